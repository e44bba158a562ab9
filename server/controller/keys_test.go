package controller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/probemesh/probemesh/internal/etcdfake"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
	"github.com/probemesh/probemesh/server/store"
)

// The mind names an incident by a key, the store tells of it by a subject. If the two differ, the mind takes its own incident for that of a check that is
// gone: it closes it, and opens the next.
func TestMindAndStoreNameTheIncidentOfTheMeshAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := etcdfake.New(t).Client(t)
		s := store.New(client, store.Options{})
		leader, err := client.Put(t.Context(), store.LeaderKey, "")
		if err != nil {
			t.Fatal(err)
		}
		inc := &statev1.StoredIncident{Incident: &meshv1.Incident{Name: "incidents/1", Kind: meshv1.Incident_MESH, Reason: meshv1.CheckStatus_MESH_BLIND}}
		if _, err := s.OpenIncident(t.Context(), store.Fence{Key: store.LeaderKey, CreateRevision: leader.Header.Revision}, inc, nil, 0); err != nil {
			t.Fatal(err)
		}
		enough := errors.New("enough")
		err = s.Follow(t.Context(), func(_ context.Context, b store.Batch) error {
			for _, e := range b.Events {
				if e.Kind == store.KindIncident && e.Subject != scheduler.MeshKey {
					t.Errorf("the store tells of %q, the mind knows %q", e.Subject, scheduler.MeshKey)
				}
			}
			return enough
		})
		if !errors.Is(err, enough) {
			t.Fatal(err)
		}
	})
}

func TestMindAndStoreNameGroupsAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := etcdfake.New(t).Client(t)
		s := store.New(client, store.Options{})
		leader, err := client.Put(t.Context(), store.LeaderKey, "")
		if err != nil {
			t.Fatal(err)
		}
		for n, shared := range []*meshv1.SharedCause{{Side: meshv1.SharedCause_NOTHING}, {Side: meshv1.SharedCause_TARGETS, Dimension: "network", Value: "192.0.2.0/24"}} {
			inc := &statev1.StoredIncident{Incident: &meshv1.Incident{Name: "incidents/" + string(rune('1'+n)), Kind: meshv1.Incident_GROUP, Reason: meshv1.CheckStatus_SHARED_CAUSE, Shared: shared}}
			if _, err := s.OpenIncident(t.Context(), store.Fence{Key: store.LeaderKey, CreateRevision: leader.Header.Revision}, inc, nil, 0); err != nil {
				t.Fatal(err)
			}
		}
		enough, seen := errors.New("enough"), map[string]bool{}
		err = s.Follow(t.Context(), func(_ context.Context, b store.Batch) error {
			for _, e := range b.Events {
				if e.Kind == store.KindIncident {
					seen[e.Subject] = scheduler.IsGroup(e.Subject)
				}
			}
			return enough
		})
		if !errors.Is(err, enough) || !seen["_group-"] || !seen["_group-network=192.0.2.0%2F24"] {
			t.Fatalf("%v, %v", err, seen)
		}
	})
}
