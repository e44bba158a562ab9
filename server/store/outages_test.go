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
		rev, err := s.OpenIncident(ctx, fence, inc, nil, 0)
		ok(t, err)
		if closed, err := s.ClosedOutages(ctx); err != nil || len(closed) != 0 {
			t.Fatalf("while it is open: %v, %v", closed, err)
		}
		inc.Incident.State = meshv1.Incident_RESOLVED
		_, err = s.ResolveIncident(ctx, fence, inc, nil, rev)
		ok(t, err)
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
