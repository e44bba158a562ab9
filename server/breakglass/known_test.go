package breakglass

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// What a server tells of an incident that another does not know must say when it was opened: the other's votes of before are no recovery.
func TestAKnownIncidentSaysWhenItWasOpened(t *testing.T) {
	opened := time.Date(2026, 3, 1, 12, 0, 5, 0, time.UTC)
	k := &peerv1.KnownIncident{ModRevision: 7, Incident: "incidents/01x", Check: "checks/shop", StartTime: timestamppb.New(opened.Add(-5 * time.Second)), OpenTime: timestamppb.New(opened)}
	peers := []Peer{{Heard: true, Beat: &peerv1.Beat{EtcdLostTime: timestamppb.New(opened), KnownIncidents: []*peerv1.KnownIncident{k}}}}
	events := learned(6, peers)
	if len(events) != 1 || !events[0].(scheduler.IncidentKnown).Incident.GetOpenTime().AsTime().Equal(opened) {
		t.Fatalf("%v", events)
	}
	if events := learned(7, peers); len(events) != 0 {
		t.Errorf("what etcd has told of is learned again: %v", events)
	}
}
