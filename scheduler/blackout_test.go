package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/credibility"
)

// vast is a mesh of three datacenters with two probers each and thousands of checks of one rack, of which three probers probe each every twenty seconds, every seat at its own moment.
type vast struct {
	*rig
	hosts   int
	refused time.Duration // a failure comes so long after its probe began
	fails   func(check int, prober string) bool
	late    []Event // failures that are under way, oldest first
	arrive  []time.Time
}

const vastInterval = 20 * time.Second

func newVast(t *testing.T, n, hosts int) *vast {
	b := &vast{rig: newRig(t), hosts: hosts, refused: time.Millisecond, fails: func(int, string) bool { return false }}
	b.s.cfg.Crowd = 20
	b.apply(ReceiverPut{Receiver: &meshv1.Receiver{Name: "receivers/mesh", MeshIncidents: true}})
	for _, d := range []string{"ams", "fra", "nrt"} {
		for i := 1; i <= 2; i++ {
			name := fmt.Sprint(d, "-", i)
			b.apply(EnrolmentPut{Enrolment: &statev1.Enrolment{Name: "probers/" + name, Datacenter: d, Build: "1.0", Capabilities: []string{"tcp", "ipv4"}}}, ProberOnline{Name: name, Server: "servers/a"})
		}
	}
	b.after(2 * time.Second)
	var puts []Event
	for i := range n {
		c := tcpCheck(fmt.Sprintf("c%04d", i), 2)
		c.Uri, c.Probers, c.Interval, c.Timeout = fmt.Sprintf("tcp://host%d.example.com:80", i%hosts), 3, durationpb.New(vastInterval), durationpb.New(3*time.Second)
		c.Labels = map[string]string{"rack": "r7"}
		puts = append(puts, CheckPut{Check: c, ModRevision: int64(i + 1)})
	}
	b.apply(puts...)
	b.after(2 * time.Second)
	return b
}

// probe has one prober probe one check now.
func (b *vast) probe(check int, prober, run string) {
	c := b.s.checks[fmt.Sprintf("checks/c%04d", check)]
	e := Cast{Prober: prober, Result: &meshv1.Result{Check: c.name, StartTime: timestamppb.New(b.now), Outcome: ok, CheckRevision: c.workHash, RunId: run, Duration: durationpb.New(time.Millisecond)}}
	if b.fails(check, prober) {
		e.Result.Outcome = fail
		b.late, b.arrive = append(b.late, e), append(b.arrive, b.now.Add(b.refused))
		return
	}
	b.apply(e)
}

// play lets time pass, and ends early when stop says so.
func (b *vast) play(d time.Duration, stop func() bool) {
	const step = 20 * time.Millisecond
	names := b.s.Names()
	for end := b.now.Add(d); b.now.Before(end) && (stop == nil || !stop()); {
		b.after(step)
		slot := int(b.now.UnixNano() / int64(step) % int64(vastInterval/step))
		for i := range names {
			for k, v := range b.s.checks[names[i]].votes {
				if (i*7+k*331)%int(vastInterval/step) == slot {
					b.probe(i, v.Prober, "")
				}
			}
		}
		asked := b.asked
		b.asked = nil
		for _, a := range asked {
			var i int
			if _, err := fmt.Sscanf(a.Run.GetCheck(), "checks/c%d", &i); err != nil {
				b.t.Fatal(err)
			}
			b.probe(i, a.Prober, a.Run.GetRunId())
		}
		n := 0
		for n < len(b.late) && !b.arrive[n].After(b.now) {
			b.apply(b.late[n])
			n++
		}
		b.late, b.arrive = b.late[n:], b.arrive[n:]
	}
}

func (b *vast) outage() {
	b.fails = func(int, string) bool { return true }
	b.play(25*time.Second, nil)
	b.fails = func(int, string) bool { return false }
	b.play(70*time.Second, nil)
}

// dissent has every prober disagree with the others about every host as often as counts, each time for a moment and none more than the others: what a mass outage leaves behind.
func (b *vast) dissent(times int) {
	for range times {
		for _, p := range b.s.Probers() {
			for h := range b.hosts {
				for range 3 {
					b.s.book.Dissent(b.now, credibility.Dissent{Prober: p, Check: fmt.Sprintf("checks/c%04d", h), Subject: fmt.Sprintf("host%d.example.com:80", h), Kind: "tcp", Failed: true})
				}
				for range 1000 {
					b.s.book.Agree(p)
				}
			}
		}
	}
}

func in(place string) func(int, string) bool {
	return func(_ int, prober string) bool { return strings.HasPrefix(prober, place) }
}

// One datacenter's probers see all checks of a big mesh fail, after outages of the very same hosts.
func TestDatacenterThatSeesThousandsFailIsNamedSoonWhateverHappenedBefore(t *testing.T) {
	for _, x := range []struct {
		name    string
		n       int
		before  int
		refused time.Duration
	}{{"after outages", 1500, 2, 3 * time.Second}, {"in calm", 5000, 0, 3 * time.Second}, {"refused at once", 1000, 1, time.Millisecond}, {"hundreds", 300, 0, 3 * time.Second}} {
		t.Run(x.name, func(t *testing.T) {
			b := newVast(t, x.n, 50)
			b.play(60*time.Second, nil)
			for range x.before {
				b.outage()
			}
			if len(asideOf(b.rig)) > 0 || len(b.owed) != 2*x.before {
				t.Fatalf("set aside %q, owed %q", asideOf(b.rig), b.owed)
			}
			b.dissent(x.before)
			b.owed, b.refused, b.fails = nil, x.refused, in("nrt")
			begun := b.now
			b.play(90*time.Second, func() bool { return len(b.owed) > 0 })
			took := b.now.Sub(begun)
			t.Logf("after %s: %q", took, asideOf(b.rig))
			if took > 10*time.Second {
				t.Errorf("named after %s", took)
			}
			b.play(30*time.Second, nil)
			if got := asideOf(b.rig); !slices.Equal(got, []string{"nrt-1 for datacenter=nrt QUARANTINED", "nrt-2 for datacenter=nrt QUARANTINED"}) {
				t.Errorf("set aside: %q", got)
			}
			if len(b.owed) != 1 {
				t.Errorf("owed %q", b.owed)
			}
			b.want("c0003", "UP QUORUM_UP")
		})
	}
}

// What looks like it and is not, and what is a single prober's. The sequential test is made to take no notice: the rule for blackouts is on its own.
func TestBlackoutIsToldFromWhatLooksLikeIt(t *testing.T) {
	host := func(check int) int { return check % 50 }
	for name, x := range map[string]struct {
		lasts time.Duration
		fails func(check int, prober string) bool
		want  []string
	}{
		"a network that blinks":                               {2 * time.Second, in("nrt"), nil},
		"one host that refuses a datacenter":                  {40 * time.Second, func(i int, p string) bool { return host(i) == 7 && in("nrt")(i, p) }, nil},
		"four hosts that refuse a datacenter":                 {40 * time.Second, func(i int, p string) bool { return host(i) < 4 && in("nrt")(i, p) }, nil},
		"many hosts that refuse a datacenter, not all":        {40 * time.Second, func(i int, p string) bool { return host(i) >= 5 && in("nrt")(i, p) }, nil},
		"half of what it sees fails":                          {40 * time.Second, func(i int, p string) bool { return host(i)%2 == 0 && in("nrt")(i, p) }, nil},
		"everything fails":                                    {40 * time.Second, func(int, string) bool { return true }, nil},
		"everything fails for two datacenters of three":       {40 * time.Second, func(i int, p string) bool { return !in("ams")(i, p) }, nil},
		"one prober sees everything fail":                     {40 * time.Second, in("nrt-2"), []string{"nrt-2 for prober=nrt-2 QUARANTINED"}},
		"one prober sees everything fail, its neighbour most": {40 * time.Second, func(i int, p string) bool { return p == "nrt-2" || p == "nrt-1" && host(i) >= 4 }, nil},
		"one of each of two datacenters sees all fail":        {40 * time.Second, func(i int, p string) bool { return p == "nrt-2" || p == "fra-1" }, nil},
		"a datacenter that reaches one host nevertheless":     {40 * time.Second, func(i int, p string) bool { return host(i) > 0 && in("nrt")(i, p) }, []string{"nrt-1 for datacenter=nrt QUARANTINED", "nrt-2 for datacenter=nrt QUARANTINED"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newVast(t, 600, 50)
			b.s.book = credibility.New(credibility.Config{Threshold: 1e9})
			for _, p := range b.s.Probers() {
				b.s.putInBook(b.now, p)
			}
			b.play(45*time.Second, nil)
			b.fails = x.fails
			b.play(x.lasts, nil)
			b.fails = func(int, string) bool { return false }
			b.play(20*time.Second, nil)
			if got := asideOf(b.rig); !slices.Equal(got, x.want) {
				t.Errorf("set aside: %q, want %q", got, x.want)
			}
		})
	}
}

// However many checks it has, and if it is all that is probed, one host is its own trouble.
func TestOneHostThatRefusesADatacenterIsNoBlackout(t *testing.T) {
	for _, hosts := range []int{1, 4} {
		b := newVast(t, 600, hosts)
		b.s.book = credibility.New(credibility.Config{Threshold: 1e9})
		for _, p := range b.s.Probers() {
			b.s.putInBook(b.now, p)
		}
		b.play(45*time.Second, nil)
		b.fails = func(i int, p string) bool { return in("nrt")(i, p) }
		b.play(40*time.Second, nil)
		if got := asideOf(b.rig); len(got) > 0 {
			t.Errorf("%d hosts: set aside: %q", hosts, got)
		}
		b.want("c0007", "DEGRADED MINORITY_DOWN")
	}
}

// What was set aside at once comes back as what was set aside after long.
func TestDatacenterThatWasBlackComesBack(t *testing.T) {
	b := newVast(t, 300, 50)
	b.play(45*time.Second, nil)
	b.fails = in("nrt")
	b.play(20*time.Second, nil)
	if len(asideOf(b.rig)) != 2 {
		t.Fatalf("set aside: %q", asideOf(b.rig))
	}
	b.apply(Leadership{Term: 1})
	b.apply(Leadership{Leading: true, Term: 2})
	b.fails = func(int, string) bool { return false }
	b.play(8*time.Minute, func() bool { return len(asideOf(b.rig)) == 0 })
	if len(asideOf(b.rig)) > 0 {
		t.Errorf("still set aside: %q", asideOf(b.rig))
	}
	b.wantOwed("OPENED ", "RESOLVED ")
}
