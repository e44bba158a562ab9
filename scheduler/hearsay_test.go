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
