package scheduler

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// alternate plays rounds in which every scheduled probe from the datacenters fails, and its repetition is answered.
func (r *rig) alternate(check string, rounds int, datacenters ...string) {
	for range rounds {
		for _, d := range datacenters {
			r.votes(check, fail, d)
			r.after(100 * time.Millisecond)
			r.votes(check, ok, d)
		}
		r.after(59 * time.Second)
	}
}

// steadily plays intervals in which everybody sees it answer.
func (r *rig) steadily(check string, rounds int, datacenters ...string) {
	for range rounds {
		r.votes(check, ok, datacenters...)
		r.after(59 * time.Second)
	}
}

func alone(name string) *meshv1.Check {
	c := tcpCheck(name, 1)
	c.Probers, c.Datacenters = 1, []string{"fra"}
	return c
}

// Each failure is wiped out by its repetition, and still every second visitor is turned away.
func TestATargetThatFailsEverySecondTimeIsDegradedAndNotUp(t *testing.T) {
	for name, c := range map[string]struct {
		check  *meshv1.Check
		places []string
	}{"one prober": {alone("shop"), []string{"fra"}}, "three": {tcpCheck("shop", 2), []string{"ams", "fra", "iad"}}} {
		t.Run(name, func(t *testing.T) {
			r := up(t, c.check)
			r.alternate("shop", 3, c.places...)
			r.want("shop", "UP QUORUM_UP")
			r.alternate("shop", 2, c.places...)
			r.want("shop", "DEGRADED INTERMITTENT")
			if s := r.status("shop").GetSummary(); !strings.Contains(s, "fail intermittently (") || !strings.HasSuffix(s, " probes failed, and the newest of each was answered: connection refused") {
				t.Errorf("summary %q", s)
			}
			r.wantOwed()
			r.steadily("shop", 8, c.places...)
			r.want("shop", "DEGRADED INTERMITTENT")
			r.steadily("shop", 2, c.places...)
			r.want("shop", "UP QUORUM_UP")
			if x := r.s.checks["checks/shop"].seats[0].failed; x != nil {
				t.Error("a check that is steady again still holds a failed result")
			}
		})
	}
}

func TestWhoeverAsksForItIsToldOnceThatATargetFailsIntermittentlyAndOnceThatItIsSteady(t *testing.T) {
	c := alone("shop")
	c.AlertOnDegraded = true
	r := up(t, c)
	began := r.now
	r.alternate("shop", 30, "fra")
	r.want("shop", "DEGRADED INTERMITTENT")
	r.wantOwed("OPENED checks/shop")
	i := r.s.checks["checks/shop"].incident.GetIncident()
	const want = "shop is DEGRADED: 1 of 1 datacenter sees it fail intermittently (fra), 1 is enough. 4 of the last 8 probes failed. connection refused. It flaps: this lasts until it has answered 10 times in a row."
	if !strings.HasPrefix(i.GetSummary(), want) {
		t.Errorf("summary %q, want %q", i.GetSummary(), want)
	}
	if d := i.GetStartTime().AsTime().Sub(began); d < 0 || d > time.Second {
		t.Errorf("it began %s after the first failure", d)
	}
	r.steadily("shop", 12, "fra")
	r.want("shop", "UP QUORUM_UP")
	r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop")
}

// One place with a bad line sees the same, and is no target's fault.
func TestOneDatacenterThatSeesItFailIntermittentlyIsNoReasonToDegradeIt(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	for range 20 {
		r.votes("shop", ok, "ams", "iad")
		r.alternate("shop", 1, "fra")
		r.want("shop", "UP QUORUM_UP")
	}
}

// What is DEGRADED for failing intermittently may go down for good: that is told as fast as ever.
func TestAnOutageOfAnIntermittentTargetIsToldAtOnce(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.alternate("shop", 10, "ams", "fra", "iad")
	r.want("shop", "DEGRADED INTERMITTENT")
	r.votes("shop", fail, "ams", "fra", "iad")
	r.want("shop", "DOWN QUORUM_DOWN")
	r.wantOwed("OPENED checks/shop")
	if s := r.s.checks["checks/shop"].incident.GetIncident().GetSummary(); !strings.Contains(s, "It flaps: this lasts until it has answered 10 times in a row.") {
		t.Errorf("summary %q", s)
	}
}

// Requests that fail by chance, from all datacenters alike, with the repetitions that were asked for: an hour of it, probed every minute, then it is mended.
func TestATargetThatFailsByChanceIsFewMessages(t *testing.T) {
	for _, share := range []float64{0.3, 0.4, 0.5, 0.6} {
		most := 0
		for seed := range uint64(10) {
			r := up(t, tcpCheck("shop", 2))
			rng := rand.New(rand.NewPCG(seed, 1))
			probe := func(d string) {
				out := ok
				if rng.Float64() < share {
					out = fail
				}
				r.votes("shop", out, d)
			}
			for range 60 {
				for _, d := range []string{"ams", "fra", "iad"} {
					asked := len(r.asked)
					probe(d)
					for ; asked < len(r.asked) && asked < 1000; asked++ {
						r.after(50 * time.Millisecond)
						probe(strings.TrimSuffix(r.asked[asked].Prober, "-1"))
					}
					r.after(19 * time.Second)
				}
			}
			r.steadily("shop", 20, "ams", "fra", "iad")
			r.want("shop", "UP QUORUM_UP")
			most = max(most, len(r.owed))
			if n := len(r.owed); n > 10 || n%2 != 0 {
				t.Errorf("%g of all requests failed for an hour: %d messages with seed %d", share, n, seed)
			}
		}
		t.Logf("%g of all requests fail: at most %d messages", share, most)
	}
}
