package scheduler

import (
	"strings"
	"testing"
	"time"
)

// What people read is part of the contract: numbers agree with their nouns and verbs, and every default that was filled in says where it comes from.

func TestSentencesAgreeWithTheirNumbers(t *testing.T) {
	r := newRig(t)
	r.probers("ams")
	c := tcpCheck("shop", 0)
	r.check(c)
	r.votes("shop", ok, "ams")
	r.wantText("shop", "1 of 1 datacenter sees it answer, quorum 1.")
	r.wantText("shop", "wants 1 prober; probers are enrolled in 1 datacenter (probers is not set: 3, or as many as there are datacenters)")
	r.wantText("shop", "the quorum is 1 (not set: the majority of 1 prober)")
	r.probers("fra", "iad")
	r.after(2 * time.Minute)
	r.votes("shop", ok, "ams")
	r.wantText("shop", "only 1 of 3 datacenters has a fresh vote, quorum 2.")
	r.votes("shop", ok, "fra", "iad")
	r.wantText("shop", "3 of 3 datacenters see it answer, quorum 2.")
	r.wantText("shop", "the quorum is 2 (not set: the majority of 3 probers)")
	c = tcpCheck("shop", 2)
	c.Probers, c.Datacenters = 2, []string{"nowhere", "iad"}
	r.check(c)
	r.after(2 * time.Minute)
	r.wantText("shop", "it asks for a quorum of 2 datacenters, and only 1 has a prober that can run it; add probers or lower the quorum.")
	r.wantText("shop", "1 of 2 places is empty: no other prober that is in service there can run kind tcp")
	r.wantText("shop", "  the quorum is 2\n")
}

func TestDownIsSinceTheIncidentAlsoAfterATakeover(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "ams", "fra", "iad")
	before := r.s.checks["checks/shop"]
	began := before.incident.GetIncident().GetStartTime().AsTime()
	next := newRig(t)
	next.now = r.now.Add(time.Hour)
	next.probers("ams", "fra", "iad")
	next.check(tcpCheck("shop", 2))
	next.apply(IncidentPut{"checks/shop", before.incident, before.incidentRev})
	next.votes("shop", fail, "ams", "fra", "iad")
	next.want("shop", "DOWN QUORUM_DOWN")
	if st, _ := next.s.Status("checks/shop", next.now, false); !st.GetSince().AsTime().Equal(began) {
		t.Fatalf("DOWN since %s after a takeover; the incident began at %s", st.GetSince().AsTime(), began)
	}
}

func (r *rig) wantText(check, want string) {
	r.t.Helper()
	e, found := r.s.Explain("checks/"+check, r.now)
	if !found || !strings.Contains(e.GetText(), want) {
		r.t.Fatalf("explain lacks %q:\n%s", want, e.GetText())
	}
}

func TestDrainedProberIsDrainedSinceItWasDrained(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.after(time.Hour)
	for _, drained := range []bool{true, false} {
		r.after(time.Minute)
		e := r.prober("fra-1", "fra").(EnrolmentPut)
		e.Enrolment.Drained = drained
		r.apply(e)
		if p, _ := r.s.Prober("fra-1"); !p.GetStateTime().AsTime().Equal(r.now) {
			t.Errorf("drained %t at %s, the prober is %s since %s", drained, r.now, p.GetState(), p.GetStateTime().AsTime())
		}
	}
}
