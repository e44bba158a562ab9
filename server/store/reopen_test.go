package store_test

import (
	"errors"
	"testing"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	"github.com/probemesh/probemesh/server/store"
)

// An attempt whose answer was lost is repeated; when the first one succeeded and the incident is over by then, the repetition must not announce it once more.
func TestIncidentThatIsClosedIsNotOpenedAgainByALateRepetition(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx, fence := b.store(store.Options{}), t.Context(), b.reign(t, 1)
		inc := newIncident(1, "checks/a")
		out := []*statev1.OutboxEntry{owed(inc, "OPENED", "ops")}
		rev, err := s.OpenIncident(ctx, fence, inc, out, 0)
		ok(t, err)
		ok(t, s.DeleteOutbox(ctx, fence, out[0].Id))
		_, err = s.ResolveIncident(ctx, fence, inc, nil, rev)
		ok(t, err)
		if _, err := s.OpenIncident(ctx, fence, inc, out, 0); !errors.Is(err, store.ErrConflict) {
			t.Fatalf("the repetition gave %v, want a conflict", err)
		}
		if left, _, err := s.ListOutbox(ctx); err != nil || len(left) != 0 {
			t.Fatalf("%d notifications are owed once more, %v", len(left), err)
		}
	})
}
