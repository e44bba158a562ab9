package scheduler

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A server without etcd hears that an incident is open, while all that it has is votes of before. They are no recovery: nothing is told until the target is seen to answer again.
func TestVotesOfBeforeAnIncidentDoNotEndIt(t *testing.T) {
	r := lostShop(t)
	r.votes("shop", ok, "ams", "fra", "iad")
	r.now = r.now.Add(500 * time.Millisecond)
	r.apply(IncidentKnown{ModRevision: 77, Incident: &meshv1.Incident{Name: "incidents/01x", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN,
		StartTime: timestamppb.New(r.now), OpenTime: timestamppb.New(r.now)}})
	r.after(20 * time.Second)
	r.wantGlass()
	if r.status("shop").GetUndecided() {
		t.Error("its end is shown as undecided")
	}
	r.rounds(3, ok)
	r.wantGlass("RESOLVED")
}

// A leader that etcd tells late of an incident, which another opened whose votes this one does not hear, has only votes of before it: it neither ends it by them, nor waits
// for the timetable to bring others.
func TestLeaderDoesNotEndAnIncidentByVotesOfBeforeIt(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.rounds(3, ok)
	opened := r.now
	r.after(5 * time.Second)
	i := &meshv1.Incident{Name: "incidents/01x", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, State: meshv1.Incident_OPEN, Receivers: []string{"receivers/ops"},
		StartTime: timestamppb.New(opened), OpenTime: timestamppb.New(opened)}
	r.asked = nil
	r.apply(IncidentPut{Key: "checks/shop", Incident: &statev1.StoredIncident{Incident: i}, ModRevision: 77})
	r.after(8 * time.Second)
	r.want("shop", "DOWN RECOVERING")
	if len(r.asked) < 2 {
		t.Errorf("%d probers were asked what they see now", len(r.asked))
	}
	r.rounds(2, ok)
	if r.s.Incident("checks/shop") != nil {
		t.Error("it is not over although all have seen the target answer since")
	}
}

// The clock of the server that opened it may be ahead: what is seen after it became known here counts.
func TestIncidentOpenedInTheFutureEndsAllTheSame(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	i := &meshv1.Incident{Name: "incidents/01x", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, State: meshv1.Incident_OPEN,
		StartTime: timestamppb.New(r.now), OpenTime: timestamppb.New(r.now.Add(time.Hour))}
	r.apply(IncidentPut{Key: "checks/shop", Incident: &statev1.StoredIncident{Incident: i}, ModRevision: 77})
	r.rounds(6, ok)
	if r.s.Incident("checks/shop") != nil {
		t.Error("the incident is still open")
	}
}

// Nor is a server that lost etcd first to tell the end of an incident that the others saw closed: it was told.
func TestIncidentThatOthersKnowToBeClosedIsNotEndedAgain(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "ams", "fra", "iad")
	r.after(time.Second)
	name := r.opened()[0].Incident.GetIncident().GetName()
	other := up(t, tcpCheck("shop", 2))
	other.apply(IncidentPut{Key: "checks/shop", Incident: r.s.Incident("checks/shop"), ModRevision: 50}, IncidentGone{Key: "checks/shop", ModRevision: 60})
	told := other.s.ClosedAfter(50)
	if len(told) != 1 || told[0] != (IncidentEnded{Check: "checks/shop", Incident: name, ModRevision: 60}) || len(other.s.ClosedAfter(60)) != 0 {
		t.Fatalf("told %v", told)
	}
	r.lose()
	r.apply(told[0])
	// One that knows less still speaks of it.
	r.apply(IncidentKnown{ModRevision: 55, Incident: &meshv1.Incident{Name: name, Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, StartTime: timestamppb.New(r.now)}})
	r.rounds(6, ok)
	r.wantGlass()
	if st := r.status("shop"); st.GetIncident() != "" || st.GetUndecided() {
		t.Fatalf("status %v", st)
	}
	r.rounds(2, fail)
	if b := r.wantGlass("OPENED")[0]; b.Outage.Incident != "" {
		t.Fatalf("what follows is told as %+v", b)
	}
}

// What is gone from a snapshot was closed, and what is in it again was not.
func TestIncidentsThatEndUnseenAreKnownToBeClosed(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.check(tcpCheck("web", 2))
	at := func(check string) IncidentPut {
		return IncidentPut{Key: "checks/" + check, ModRevision: 50, Incident: &statev1.StoredIncident{Incident: &meshv1.Incident{Name: "incidents/" + check, Check: "checks/" + check,
			Verdict: meshv1.CheckStatus_DOWN, State: meshv1.Incident_OPEN, StartTime: timestamppb.New(r.now), OpenTime: timestamppb.New(r.now)}}}
	}
	r.apply(at("shop"), at("web"))
	r.apply(Reset{Revision: 70}, CheckPut{Check: tcpCheck("shop", 2), ModRevision: 1}, CheckPut{Check: tcpCheck("web", 2), ModRevision: 2}, at("web"))
	if got := r.s.ClosedAfter(0); len(got) != 1 || got[0].Incident != "incidents/shop" || got[0].ModRevision != 70 {
		t.Fatalf("closed %v", got)
	}
}

// A server that is started anew counts the outages of a term from the beginning, and uses no key of one that is over: neither of one that it is told of, nor of one that it
// finds in the store.
func TestKeyOfAnOutageThatIsOverIsNotUsedAgain(t *testing.T) {
	first := lostShop(t)
	first.rounds(2, fail)
	first.rounds(6, ok)
	seen := first.wantGlass("OPENED", "RESOLVED")[1].Outage
	seen.Told = []Told{{Receiver: "receivers/ops", Transition: meshv1.Notification_OPENED, Time: first.now}, {Receiver: "receivers/ops", Transition: meshv1.Notification_RESOLVED, Time: first.now}}
	for name, e := range map[string]Event{"it is told of": OutageSeen{seen}, "it finds": OutageOver{Check: "checks/shop", Key: seen.Key}} {
		t.Run(name, func(t *testing.T) {
			r := lostShop(t)
			r.now = first.now
			r.apply(e)
			r.rounds(3, fail)
			if b := r.wantGlass("OPENED")[0]; b.Outage.Key == seen.Key || len(b.Outage.Told) != 0 {
				t.Fatalf("another outage is told as %+v", b.Outage)
			}
		})
	}
}

// A server that read all of etcd later than an incident changed, and did not find it, is not told that it is open by one whose watch lost its end.
func TestIncidentThatWasNotFoundInEtcdIsNotBelieved(t *testing.T) {
	for revision, believed := range map[int64]bool{70: false, 71: true} {
		r := lostShop(t)
		r.apply(Store{Term: 1}, Reset{Revision: 70}, CheckPut{Check: tcpCheck("shop", 2), ModRevision: 1}, Store{Lost: true, Since: r.now, Term: 1})
		r.apply(IncidentKnown{ModRevision: revision, Incident: &meshv1.Incident{Name: "incidents/01x", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, StartTime: timestamppb.New(r.now)}})
		if got := r.s.Incident("checks/shop") != nil; got != believed {
			t.Errorf("revision %d: believed %v", revision, got)
		}
	}
}

// What has no name is no check's incident: an outage that waits to be joined does not end with it.
func TestEndOfAnIncidentWithoutANameEndsNothing(t *testing.T) {
	r := lostShop(t)
	r.rounds(2, fail)
	r.wantGlass("OPENED")
	r.apply(IncidentEnded{Check: "checks/shop", ModRevision: 60})
	r.rounds(1, fail)
	r.wantGlass("OPENED")
}

// The leader's own watch is silent when it has opened an incident, and then etcd is lost: it knows what it has written, tells nobody of the same outage without etcd, and
// others hear of it. What the watch tells late is older.
func TestLeaderKnowsTheIncidentThatItHasWrittenBeforeItsWatchTells(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "ams", "fra", "iad")
	r.after(time.Second)
	st := r.s.Incident("checks/shop")
	leader := up(t, tcpCheck("shop", 2))
	leader.apply(IncidentWritten{Key: "checks/shop", Incident: st, ModRevision: 50})
	leader.apply(IncidentGone{Key: "checks/shop", ModRevision: 40})
	if known := leader.s.OpenAfter(30); len(known) != 1 || known[0].Incident.GetName() != st.GetIncident().GetName() || known[0].ModRevision != 50 {
		t.Fatalf("others hear of %v", known)
	}
	leader.lose()
	leader.rounds(3, fail)
	leader.wantGlass()

	leader.regain()
	leader.apply(IncidentPut{Key: "checks/shop", Incident: st, ModRevision: 50}, IncidentGone{Key: "checks/shop", ModRevision: 60})
	// The answer to the write comes after the watch has told that it is over.
	leader.apply(IncidentWritten{Key: "checks/shop", Incident: st, ModRevision: 50})
	if leader.s.Incident("checks/shop").GetIncident().GetName() == st.GetIncident().GetName() {
		t.Error("an incident that is over is open again")
	}
}
