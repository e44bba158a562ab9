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
	events := learned(peers)
	if len(events) != 1 || !events[0].(scheduler.IncidentKnown).Incident.GetOpenTime().AsTime().Equal(opened) {
		t.Fatalf("%v", events)
	}
}

// What the others have not applied they are told in any case; what they have, and may have lost on the way, as far as there is room, the newest first.
func TestIncidentsThatAWatchMayHaveLostAreToldToo(t *testing.T) {
	list := func(n int) (all []*peerv1.KnownIncident) {
		for i := range n {
			all = append(all, &peerv1.KnownIncident{ModRevision: int64(i + 1)})
		}
		return all
	}
	for _, c := range []struct {
		open        int
		after       int64
		want, until int64
	}{{10, 8, 10, 1}, {100, 98, inBeat, 100 - inBeat + 1}, {200, 100, 100, 101}} {
		got := worthTelling(list(c.open), c.after)
		if int64(len(got)) != c.want || got[0].GetModRevision() != int64(c.open) || got[len(got)-1].GetModRevision() != c.until {
			t.Errorf("of %d, %d applied by all: %d told", c.open, c.after, len(got))
		}
	}
}
