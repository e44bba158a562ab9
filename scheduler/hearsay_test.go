package scheduler

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

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
