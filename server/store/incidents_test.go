package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

func TestIncidentLivesInOneTransactionEach(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx, fence := b.store(store.Options{}), t.Context(), b.reign(t, 1)
		check, err := s.CreateCheck(ctx, newCheck("a"))
		ok(t, err)
		inc := newIncident(1, check.Name)
		rev, err := s.OpenIncident(ctx, fence, inc, []*statev1.OutboxEntry{owed(inc, "OPENED", "r1"), owed(inc, "OPENED", "r2")}, check.Revision)
		ok(t, err)

		// The same again is success; another incident of the check is not; nor is one on an old revision of the check.
		again, err := s.OpenIncident(ctx, fence, inc, nil, check.Revision)
		if err != nil || again != rev {
			t.Fatalf("repeated: revision %d, %v; first %d", again, err, rev)
		}
		if _, err = s.OpenIncident(ctx, fence, newIncident(2, check.Name), nil, check.Revision); !errors.Is(err, store.ErrConflict) {
			t.Fatalf("second incident: %v", err)
		}
		other, err := s.CreateCheck(ctx, newCheck("b"))
		ok(t, err)
		if _, err = s.OpenIncident(ctx, fence, newIncident(3, other.Name), nil, other.Revision-1); !errors.Is(err, store.ErrConflict) {
			t.Fatalf("changed check: %v", err)
		}
		if entries, _, err := s.ListOutbox(ctx); err != nil || len(entries) != 2 {
			t.Fatalf("outbox %v, %v", entries, err)
		}

		v, err := s.GetIncident(ctx, inc.Incident.Name)
		ok(t, err)
		if v.ModRevision != rev || v.Value.Incident.Etag != fmt.Sprint(rev) {
			t.Fatalf("%+v", v)
		}
		v.Value.Incident.Verdict = meshv1.CheckStatus_DOWN
		rev2, err := s.UpdateIncident(ctx, fence, v.Value, []*statev1.OutboxEntry{owed(inc, "ESCALATED", "r1"), owed(inc, "ESCALATED", "r3")}, rev)
		ok(t, err)
		v.Value.Incident.Summary = "other"
		if _, err = s.UpdateIncident(ctx, fence, v.Value, nil, rev); !errors.Is(err, store.ErrConflict) {
			t.Fatalf("stale update: %v", err)
		}
		// What is paid is owed no more, with the change or not at all; what is not there needs nothing.
		paid := owed(inc, "ESCALATED", "r3").Id
		if _, err = s.UpdateIncident(ctx, fence, v.Value, nil, rev, paid); !errors.Is(err, store.ErrConflict) || !owes(t, s, paid) {
			t.Fatalf("stale update: %v", err)
		}
		rev2, err = s.UpdateIncident(ctx, fence, v.Value, nil, rev2, paid, "none.OPENED.r9")
		ok(t, err)
		if owes(t, s, paid) {
			t.Fatalf("%s is still owed", paid)
		}

		v.Value.Incident.State = meshv1.Incident_RESOLVED
		_, err = s.ResolveIncident(ctx, fence, v.Value, []*statev1.OutboxEntry{owed(inc, "RESOLVED", "r1")}, rev2)
		ok(t, err)
		_, err = s.ResolveIncident(ctx, fence, v.Value, nil, rev2)
		ok(t, err)
		if open, _, err := s.ListOpenIncidents(ctx); err != nil || len(open) != 0 {
			t.Fatalf("open %v, %v", open, err)
		}
		if v, err = s.GetIncident(ctx, inc.Incident.Name); err != nil || v.Value.Incident.State != meshv1.Incident_RESOLVED {
			t.Fatalf("%v, %v", v, err)
		}
		for _, e := range []string{"OPENED.r1", "OPENED.r2", "ESCALATED.r1", "RESOLVED.r1"} {
			id := strings.TrimPrefix(inc.Incident.Name, "incidents/") + "." + e
			ok(t, s.UpdateOutbox(ctx, fence, &statev1.OutboxEntry{Id: id, Attempts: 2}))
			ok(t, s.DeleteOutbox(ctx, fence, id))
			ok(t, s.DeleteOutbox(ctx, fence, id))
			wantReason(t, s.UpdateOutbox(ctx, fence, &statev1.OutboxEntry{Id: id}), meshv1.ErrorReason_RESOURCE_NOT_FOUND)
		}
		_, err = s.GetIncident(ctx, "incidents/none")
		wantReason(t, err, meshv1.ErrorReason_RESOURCE_NOT_FOUND)
	})
}

func TestOldLeaderChangesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx, old := b.store(store.Options{}), t.Context(), b.reign(t, 1)
		inc := newIncident(1, "checks/a")
		rev, err := s.OpenIncident(ctx, old, inc, []*statev1.OutboxEntry{owed(inc, "OPENED", "r")}, 0)
		ok(t, err)
		id := owed(inc, "OPENED", "r").Id
		past := newIncident(0, "checks/past")
		pastRev, err := s.OpenIncident(ctx, old, past, nil, 0)
		ok(t, err)
		_, err = s.ResolveIncident(ctx, old, past, nil, pastRev)
		ok(t, err)
		b.reign(t, 2)
		attempts := map[string]error{}
		_, attempts["open"] = s.OpenIncident(ctx, old, newIncident(2, "checks/b"), nil, 0)
		_, attempts["update"] = s.UpdateIncident(ctx, old, inc, nil, rev)
		_, attempts["resolve"] = s.ResolveIncident(ctx, old, inc, nil, rev)
		_, attempts["amend"] = s.AmendIncident(ctx, &old, inc.Incident.Name, func(*statev1.StoredIncident) error { return nil })
		_, attempts["prune"] = s.PruneClosed(ctx, old, 0)
		attempts["outbox update"] = s.UpdateOutbox(ctx, old, owed(inc, "OPENED", "r"))
		attempts["outbox delete"] = s.DeleteOutbox(ctx, old, id)
		for what, err := range attempts {
			if !errors.Is(err, store.ErrFenced) {
				t.Errorf("%s: %v", what, err)
			}
		}
		open, _, err := s.ListOpenIncidents(ctx)
		ok(t, err)
		entries, _, err := s.ListOutbox(ctx)
		ok(t, err)
		if len(open) != 1 || open[0].ModRevision != rev || len(entries) != 1 || entries[0].ModRevision != rev {
			t.Fatalf("something changed: %v, %v", open, entries)
		}
		// And with nobody leading at all.
		if _, err := b.client.Delete(ctx, store.LeaderKey); err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteOutbox(ctx, old, id); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("with no leader: %v", err)
		}
	})
}

func TestAmendmentsByManyAllCount(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx, fence := b.store(store.Options{}), t.Context(), b.reign(t, 1)
		inc := newIncident(1, "checks/a")
		_, err := s.OpenIncident(ctx, fence, inc, nil, 0)
		ok(t, err)
		var wg sync.WaitGroup
		for i := range 8 {
			f := &fence
			if i%2 == 0 {
				f = nil
			}
			wg.Go(func() {
				_, err := s.AmendIncident(ctx, f, inc.Incident.Name, func(si *statev1.StoredIncident) error {
					si.Incident.Timeline = append(si.Incident.Timeline, &meshv1.TimelineEntry{Text: fmt.Sprint(i)})
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		v, err := s.GetIncident(ctx, inc.Incident.Name)
		ok(t, err)
		if len(v.Value.Incident.Timeline) != 8 {
			t.Fatalf("%d entries of 8", len(v.Value.Incident.Timeline))
		}
		e := owed(inc, "OPENED", "r")
		v.Value.Incident.Summary = "now with something owed"
		_, err = s.UpdateIncident(ctx, fence, v.Value, []*statev1.OutboxEntry{e}, v.ModRevision)
		ok(t, err)
		told := func(si *statev1.StoredIncident) error { si.Incident.Summary = "told"; return nil }
		ok(t, s.SettleOutbox(ctx, fence, e.Id, inc.Incident.Name, told))
		entries, _, err := s.ListOutbox(ctx)
		ok(t, err)
		if v, err = s.GetIncident(ctx, inc.Incident.Name); err != nil || len(entries) != 0 || v.Value.Incident.Summary != "told" {
			t.Fatalf("%v, %v, %v", entries, v, err)
		}
		ok(t, s.SettleOutbox(ctx, fence, e.Id, "incidents/pruned", told))
		refusal := errors.New("no")
		if _, err = s.AmendIncident(ctx, nil, inc.Incident.Name, func(*statev1.StoredIncident) error { return refusal }); !errors.Is(err, refusal) {
			t.Fatalf("%v", err)
		}
	})
}

func TestClosedIncidentsAreListedNewestFirstAndPruned(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx, fence := b.store(store.Options{PageSize: 2}), t.Context(), b.reign(t, 1)
		for i := range 7 {
			inc := newIncident(i, "checks/a")
			rev, err := s.OpenIncident(ctx, fence, inc, nil, 0)
			ok(t, err)
			_, err = s.ResolveIncident(ctx, fence, inc, nil, rev)
			ok(t, err)
		}
		list := func(before string, limit int) string {
			all, _, err := s.ListClosedIncidents(ctx, before, limit)
			ok(t, err)
			out := ""
			for _, v := range all {
				n := v.Value.Incident.Name
				out += n[len(n)-1:]
			}
			return out
		}
		name := func(i int) string { return newIncident(i, "").Incident.Name }
		for _, c := range []struct{ got, want string }{
			{list("", 0), "6543210"}, {list("", 3), "654"}, {list(name(4), 3), "321"}, {list(name(0), 3), ""},
		} {
			if c.got != c.want {
				t.Errorf("%q, want %q", c.got, c.want)
			}
		}
		n, err := s.PruneClosed(ctx, fence, 4)
		if err != nil || n != 3 || list("", 0) != "6543" {
			t.Fatalf("pruned %d, left %q, %v", n, list("", 0), err)
		}
		if n, err = s.PruneClosed(ctx, fence, 4); err != nil || n != 0 {
			t.Fatalf("pruned %d again, %v", n, err)
		}
	})
}

func TestIncidentOfTheMeshHasItsOwnKey(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx, fence := b.store(store.Options{}), t.Context(), b.reign(t, 1)
		inc := newIncident(1, "")
		inc.Incident.Kind, inc.Incident.Reason = meshv1.Incident_MESH, meshv1.CheckStatus_MESH_BLIND
		_, err := s.OpenIncident(ctx, fence, inc, nil, 0)
		ok(t, err)
		f := follow(t, s)
		for _, e := range f.next(t).Events {
			if e.Kind == store.KindIncident && e.Subject != "_mesh-mesh_blind" {
				t.Fatalf("subject %q", e.Subject)
			}
		}
		if v, err := s.GetIncident(ctx, inc.Incident.Name); err != nil || v.Value.Incident.Kind != meshv1.Incident_MESH {
			t.Fatalf("%v, %v", v, err)
		}
	})
}

func TestIncidentOpensHoweverLargeItsEvidence(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx, fence := b.store(store.Options{}), t.Context(), b.reign(t, 1)
		inc := newIncident(1, "checks/a")
		for i := range 50 {
			inc.Incident.Evidence = append(inc.Incident.Evidence, &meshv1.Vote{Prober: fmt.Sprintf("probers/p%d", i), Error: "refused",
				Evidence: &meshv1.Evidence{StatusLine: "HTTP/1.1 500", Body: []byte(strings.Repeat("b", 4096))}})
		}
		var entries []*statev1.OutboxEntry
		for i := range 16 {
			e := owed(inc, "OPENED", fmt.Sprintf("r%d", i))
			e.Notification.Evidence = inc.Incident.Evidence
			entries = append(entries, e)
		}
		_, err := s.OpenIncident(ctx, fence, inc, entries, 0)
		ok(t, err)
		v, err := s.GetIncident(ctx, inc.Incident.Name)
		ok(t, err)
		if got := v.Value.Incident.Evidence; len(got) != 50 || len(got[0].Evidence.Body) != 4096 {
			t.Fatal("the incident's own evidence was cut though it fits")
		}
		out, _, err := s.ListOutbox(ctx)
		ok(t, err)
		if e := out[0].Value.Notification.Evidence; len(out) != 16 || len(e) != 50 || e[0].Error != "refused" || !e[0].Evidence.BodyTruncated {
			t.Fatalf("%d entries, first %v", len(out), e[0])
		}
		if len(entries[0].Notification.Evidence[0].Evidence.Body) != 4096 {
			t.Fatal("the caller's entry was changed")
		}
	})
}

func owes(t *testing.T, s *store.Store, id string) bool {
	t.Helper()
	list, _, err := s.ListOutbox(t.Context())
	ok(t, err)
	for _, e := range list {
		if e.Value.GetId() == id {
			return true
		}
	}
	return false
}
