package scheduler

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// limp casts one vote from each datacenter's prober that is OK and degraded.
func (r *rig) limp(check string, datacenters ...string) {
	for _, d := range datacenters {
		c := r.s.checks["checks/"+check]
		r.apply(Cast{Prober: d + "-1", Result: &meshv1.Result{
			Check: c.name, StartTime: timestamppb.New(r.now), Outcome: ok, CheckRevision: c.workHash, Duration: durationpb.New(900 * time.Millisecond),
			Degraded: "the whole probe took 900ms, more than 800ms (degraded_above.total)",
		}})
		r.now = r.now.Add(time.Millisecond)
	}
}

// TestAQuorumThatSeesItDegradedMakesItDegradedAndNeverDown: nobody is asked, nothing is opened, and it is over as soon as fewer say so.
func TestAQuorumThatSeesItDegradedMakesItDegradedAndNeverDown(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.limp("shop", "ams")
	r.want("shop", "UP QUORUM_UP")
	r.limp("shop", "fra")
	r.want("shop", "DEGRADED QUORUM_DEGRADED")
	r.limp("shop", "iad")
	for range 5 {
		r.after(10 * time.Second)
		r.limp("shop", "ams", "fra", "iad")
	}
	r.want("shop", "DEGRADED QUORUM_DEGRADED")
	if len(r.asked) > 0 {
		t.Errorf("%d runs were asked for, though nothing fails", len(r.asked))
	}
	r.wantOwed()
	e, _ := r.s.Explain("checks/shop", r.now)
	for _, want := range []string{"checks/shop is DEGRADED: 3 of 3 datacenters see it degraded (ams, fra, iad), quorum 2: the whole probe took 900ms",
		"3 of those answering see it degraded (ams, fra, iad), which is no failure", "degraded: the whole probe took 900ms, more than 800ms"} {
		if !strings.Contains(e.GetText(), want) {
			t.Errorf("%q is not in\n%s", want, e.GetText())
		}
	}
	if st := e.GetStatus(); len(st.GetDegradedDatacenters()) != 3 || len(st.GetFailingDatacenters()) != 0 || st.GetVotes()[0].GetDegraded() == "" {
		t.Errorf("status %v", st)
	}
	r.votes("shop", ok, "ams")
	r.want("shop", "DEGRADED QUORUM_DEGRADED")
	r.votes("shop", ok, "fra")
	r.want("shop", "UP QUORUM_UP")
}

func TestDegradedOpensAnIncidentIfAskedAndClosesItAfterTwoRounds(t *testing.T) {
	c := tcpCheck("shop", 2)
	c.AlertOnDegraded = true
	r := up(t, c)
	began := r.now
	r.limp("shop", "ams", "fra")
	r.want("shop", "DEGRADED QUORUM_DEGRADED")
	r.wantOwed("OPENED checks/shop")
	i := r.s.checks["checks/shop"].incident.GetIncident()
	if want := "shop is DEGRADED: 2 of 3 datacenters see it degraded (ams, fra), 2 are enough. the whole probe took 900ms"; !strings.HasPrefix(i.GetSummary(), want) {
		t.Errorf("summary %q, want %q", i.GetSummary(), want)
	}
	if !i.GetStartTime().AsTime().Equal(began) || i.GetReason() != meshv1.CheckStatus_QUORUM_DEGRADED || i.GetVerdict() != meshv1.CheckStatus_DEGRADED {
		t.Errorf("incident %v", i)
	}
	r.after(20 * time.Second)
	over := r.now
	r.votes("shop", ok, "ams", "fra", "iad")
	r.want("shop", "DEGRADED RECOVERING")
	r.wantOwed("OPENED checks/shop")
	r.after(11 * time.Second)
	r.votes("shop", ok, "ams", "fra", "iad")
	r.want("shop", "UP QUORUM_UP")
	r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop")
	var resolved *meshv1.Incident
	for _, a := range r.acted {
		if a, ok := a.(Resolve); ok {
			resolved = a.Incident.GetIncident()
		}
	}
	if end := resolved.GetEndTime().AsTime(); end.Before(over) || end.Sub(over) > 10*time.Millisecond {
		t.Errorf("it ended %s, want %s", end, over)
	}
}

// TestALatencyAtItsBoundIsOneIncident: answers that are degraded now and then neither open nor close an incident each time.
func TestALatencyAtItsBoundIsOneIncident(t *testing.T) {
	c := tcpCheck("shop", 2)
	c.AlertOnDegraded = true
	r := up(t, c)
	for range 10 {
		r.limp("shop", "ams", "fra", "iad")
		r.after(30 * time.Second)
		r.votes("shop", ok, "ams", "fra", "iad")
		r.after(5 * time.Second)
	}
	r.wantOwed("OPENED checks/shop")
}

func TestADegradedCheckThatFailsIsDownAndBackToDegraded(t *testing.T) {
	c := tcpCheck("shop", 2)
	c.AlertOnDegraded = true
	r := up(t, c)
	r.limp("shop", "ams", "fra", "iad")
	r.want("shop", "DEGRADED QUORUM_DEGRADED")
	r.after(20 * time.Second)
	r.votes("shop", fail, "ams", "fra", "iad")
	r.want("shop", "DOWN QUORUM_DOWN")
	r.wantOwed("OPENED checks/shop", "ESCALATED checks/shop")
	r.after(20 * time.Second)
	r.limp("shop", "ams", "fra", "iad")
	r.after(11 * time.Second)
	r.limp("shop", "ams", "fra", "iad")
	if got := r.verdict("shop"); !strings.HasPrefix(got, "DEGRADED ") {
		t.Errorf("verdict %s", got)
	}
}

// TestOneSlowProbeOfAQuorumOfOneIsNotShown: as a single failing probe opens nothing, a single slow one shows nothing.
func TestOneSlowProbeOfAQuorumOfOneIsNotShown(t *testing.T) {
	r := newRig(t)
	r.probers("fra")
	r.check(tcpCheck("shop", 1))
	r.votes("shop", ok, "fra")
	r.limp("shop", "fra")
	r.want("shop", "UP QUORUM_UP")
	r.votes("shop", ok, "fra")
	r.limp("shop", "fra", "fra")
	r.want("shop", "DEGRADED QUORUM_DEGRADED")
}

func TestAnUnusuallySlowProbeIsNotCalledAFailure(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	c := r.s.checks["checks/shop"]
	r.apply(Cast{Prober: "fra-1", Result: &meshv1.Result{Check: c.name, StartTime: timestamppb.New(r.now), Outcome: meshv1.Result_SLOW, CheckRevision: c.workHash}})
	c.reason = meshv1.CheckStatus_CONFIRMING
	if got := c.sentence(); got != "a probe of it takes longer than usual, others are being asked" {
		t.Errorf("%q", got)
	}
	r.limp("shop", "ams", "fra")
	c.reason = meshv1.CheckStatus_CONFIRMING
	if got := c.sentence(); !strings.HasPrefix(got, "it is degraded from ams, fra, others are being asked") {
		t.Errorf("%q", got)
	}
}
