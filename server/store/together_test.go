package store_test

import (
	"errors"
	"fmt"
	"testing"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

func TestIncidentsOfAGroupAreOpenedAndClosedTogetherOrNotAtAll(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx, fence := b.store(store.Options{}), t.Context(), b.reign(t, 1)
		var open []store.Change
		for i := range 38 {
			check, err := s.CreateCheck(ctx, newCheck(fmt.Sprint("c", i)))
			ok(t, err)
			open = append(open, store.Change{Incident: newIncident(i+1, check.Name), CheckModRevision: check.Revision})
		}
		rev, err := s.ChangeIncidents(ctx, fence, open)
		ok(t, err)
		if list, _, err := s.ListOpenIncidents(ctx); err != nil || len(list) != 38 {
			t.Fatalf("%d open, %v", len(list), err)
		}
		if _, err := s.ChangeIncidents(ctx, fence, open); !errors.Is(err, store.ErrConflict) {
			t.Fatalf("again: %v", err)
		}
		// One by one, what was done is recognised.
		if again, err := s.OpenIncident(ctx, fence, open[3].Incident, nil, open[3].CheckModRevision); err != nil || again != rev {
			t.Fatalf("revision %d, %v; first %d", again, err, rev)
		}
		var end []store.Change
		for _, c := range open {
			c.Incident.Incident.State = meshv1.Incident_RESOLVED
			end = append(end, store.Change{Incident: c.Incident, ModRevision: rev})
		}
		end[37].ModRevision--
		if _, err := s.ChangeIncidents(ctx, fence, end); !errors.Is(err, store.ErrConflict) {
			t.Fatalf("one has changed: %v", err)
		}
		if list, _, err := s.ListOpenIncidents(ctx); err != nil || len(list) != 38 {
			t.Fatalf("%d open, %v", len(list), err)
		}
		end[37].ModRevision++
		_, err = s.ChangeIncidents(ctx, fence, end)
		ok(t, err)
		if list, _, err := s.ListOpenIncidents(ctx); err != nil || len(list) != 0 {
			t.Fatalf("%d open, %v", len(list), err)
		}
	})
}
