package store_test

import (
	"slices"
	"testing"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// The end of an outage whose incident is open may still be to be written: only closed incidents settle it.
func TestOutagesOfClosedIncidentsAloneAreOver(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx, fence := b.store(store.Options{}), t.Context(), b.reign(t, 1)
		inc := newIncident(1, "checks/a")
		inc.Incident.BreakGlassKey = "outage-1"
		inc.Incident.Timeline = []*meshv1.TimelineEntry{{Event: meshv1.TimelineEntry_BREAK_GLASS, Text: "under the key x (of outage outage-2)."}}
		keys := map[string]bool{"outage-1": true, "outage-2": true, "outage-3": true}
		rev, err := s.OpenIncident(ctx, fence, inc, nil, 0)
		ok(t, err)
		if joined, err := s.JoinedOutages(ctx, keys); err != nil || len(joined) != 0 {
			t.Fatalf("while it is open: %v, %v", joined, err)
		}
		inc.Incident.State = meshv1.Incident_RESOLVED
		_, err = s.ResolveIncident(ctx, fence, inc, nil, rev)
		ok(t, err)
		if joined, err := s.JoinedOutages(ctx, keys); err != nil || len(joined) != 2 || joined["outage-3"] {
			t.Fatalf("when it is closed: %v, %v", joined, err)
		}
		for n, key := range map[int]string{2: "outage-4", 3: ""} {
			inc := newIncident(n, "checks/b")
			inc.Incident.BreakGlassKey = key
			rev, err := s.OpenIncident(ctx, fence, inc, nil, 0)
			ok(t, err)
			inc.Incident.State = meshv1.Incident_RESOLVED
			_, err = s.ResolveIncident(ctx, fence, inc, nil, rev)
			ok(t, err)
		}
		var order []string
		closed, err := s.ClosedOutages(ctx)
		for _, i := range closed {
			order = append(order, i.GetCheck()+" "+i.GetBreakGlassKey())
		}
		if err != nil || !slices.Equal(order, []string{"checks/a outage-1", "checks/b outage-4"}) {
			t.Fatalf("closed %q, %v; want the oldest first", order, err)
		}
	})
}
