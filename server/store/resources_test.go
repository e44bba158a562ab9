package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/fault"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

func wantReason(t *testing.T, err error, want meshv1.ErrorReason) {
	t.Helper()
	if !fault.IsReason(err, want) {
		t.Fatalf("error is %v, want reason %s", err, want)
	}
}

func TestChecksKeepTheirEtagsAndTimes(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{}), t.Context()
		_, err := s.GetCheck(ctx, "checks/a")
		wantReason(t, err, meshv1.ErrorReason_RESOURCE_NOT_FOUND)

		given := newCheck("a")
		given.Etag, given.Revision, given.Status = "nonsense", 5, &meshv1.CheckStatus{Summary: "nonsense"}
		made, err := s.CreateCheck(ctx, given)
		ok(t, err)
		if made.Etag == "" || made.Etag != fmt.Sprint(made.Revision) || made.Status != nil || made.CreateTime == nil {
			t.Fatalf("created as %v", made)
		}
		if given.Etag != "nonsense" {
			t.Fatal("the caller's check was changed")
		}
		read, err := s.GetCheck(ctx, "checks/a")
		ok(t, err)
		if !proto.Equal(read, made) {
			t.Fatalf("read %v, created %v", read, made)
		}
		_, err = s.CreateCheck(ctx, newCheck("a"))
		wantReason(t, err, meshv1.ErrorReason_RESOURCE_EXISTS)

		time.Sleep(time.Millisecond) // the clock of the update time must have moved
		read.DisplayName = "A"
		changed, err := s.UpdateCheck(ctx, read, read.Etag)
		ok(t, err)
		if changed.Etag == made.Etag || !proto.Equal(changed.CreateTime, made.CreateTime) || proto.Equal(changed.UpdateTime, made.UpdateTime) {
			t.Fatalf("changed to %v from %v", changed, made)
		}
		_, err = s.UpdateCheck(ctx, read, made.Etag)
		wantReason(t, err, meshv1.ErrorReason_ETAG_MISMATCH)
		_, err = s.UpdateCheck(ctx, read, "")
		ok(t, err)
		_, err = s.UpdateCheck(ctx, newCheck("missing"), "")
		wantReason(t, err, meshv1.ErrorReason_RESOURCE_NOT_FOUND)

		wantReason(t, s.DeleteCheck(ctx, "checks/a", changed.Etag), meshv1.ErrorReason_ETAG_MISMATCH)
		ok(t, s.DeleteCheck(ctx, "checks/a", ""))
		wantReason(t, s.DeleteCheck(ctx, "checks/a", ""), meshv1.ErrorReason_RESOURCE_NOT_FOUND)
	})
}

func TestListsAreSortedPagedAndConsistent(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{PageSize: 3}), t.Context()
		for i := range 10 {
			_, err := s.CreateCheck(ctx, newCheck(fmt.Sprintf("c%d", 9-i)))
			ok(t, err)
		}
		_, err := s.CreateReceiver(ctx, &meshv1.Receiver{Name: "receivers/r", Owed: 5, LastError: "x"})
		ok(t, err)
		names := func(after string, limit int) string {
			cs, rev, err := s.ListChecks(ctx, after, limit)
			ok(t, err)
			if rev < 11 {
				t.Fatalf("read at revision %d", rev)
			}
			var out []string
			for _, c := range cs {
				out = append(out, strings.TrimPrefix(c.Name, "checks/"))
			}
			return strings.Join(out, " ")
		}
		for _, c := range []struct {
			after string
			limit int
			want  string
		}{
			{"", 0, "c0 c1 c2 c3 c4 c5 c6 c7 c8 c9"}, {"", 2, "c0 c1"}, {"checks/c1", 5, "c2 c3 c4 c5 c6"},
			{"checks/c7", 5, "c8 c9"}, {"checks/c9", 5, ""}, {"checks/c2x", 1, "c3"},
		} {
			if got := names(c.after, c.limit); got != c.want {
				t.Errorf("after %q, %d: %q, want %q", c.after, c.limit, got, c.want)
			}
		}
		rs, _, err := s.ListReceivers(ctx, "", 0)
		ok(t, err)
		if len(rs) != 1 || rs[0].Owed != 0 || rs[0].LastError != "" || rs[0].Etag == "" {
			t.Fatalf("receivers %v", rs)
		}
	})
}

func TestPlanIsWrittenInChunksOrNotAtAll(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{}), t.Context()
		plan := store.Plan{PutReceivers: []store.PlannedReceiver{{Receiver: &meshv1.Receiver{Name: "receivers/r"}}}}
		for i := range 249 {
			plan.PutChecks = append(plan.PutChecks, store.PlannedCheck{Check: newCheck(fmt.Sprintf("c%03d", i))})
		}
		chunks, rev, err := s.ApplyBatch(ctx, plan)
		ok(t, err)
		if chunks != 3 || rev == 0 {
			t.Fatalf("%d chunks, revision %d", chunks, rev)
		}
		all, _, err := s.ListChecks(ctx, "", 0)
		ok(t, err)
		if len(all) != 249 {
			t.Fatalf("%d checks", len(all))
		}

		// One of 249 was changed by somebody else: nothing is written, and the one is named.
		touched := all[200]
		_, err = s.UpdateCheck(ctx, touched, "")
		ok(t, err)
		stale := store.Plan{}
		for _, c := range all {
			c.DisplayName = "new"
			stale.PutChecks = append(stale.PutChecks, store.PlannedCheck{Check: c, ModRevision: c.Revision})
		}
		chunks, _, err = s.ApplyBatch(ctx, stale)
		wantReason(t, err, meshv1.ErrorReason_ETAG_MISMATCH)
		if chunks != 0 || !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), touched.Name) {
			t.Fatalf("%d chunks, %v", chunks, err)
		}
		if c, err := s.GetCheck(ctx, all[0].Name); err != nil || c.DisplayName != "" {
			t.Fatalf("%v, %v", c, err)
		}

		all, _, err = s.ListChecks(ctx, "", 0)
		ok(t, err)
		gone := store.Plan{}
		for _, c := range all {
			gone.DeleteChecks = append(gone.DeleteChecks, store.PlannedDelete{Name: c.Name, ModRevision: c.Revision})
		}
		r, err := s.GetReceiver(ctx, "receivers/r")
		ok(t, err)
		var mod int64
		_, err = fmt.Sscan(r.Etag, &mod)
		ok(t, err)
		gone.DeleteReceivers = []store.PlannedDelete{{Name: r.Name, ModRevision: mod}}
		_, _, err = s.ApplyBatch(ctx, gone)
		ok(t, err)
		if all, _, err = s.ListChecks(ctx, "", 0); err != nil || len(all) != 0 {
			t.Fatalf("%d left, %v", len(all), err)
		}
		twice := store.Plan{PutChecks: []store.PlannedCheck{{Check: newCheck("x")}, {Check: newCheck("x")}}}
		_, _, err = s.ApplyBatch(ctx, twice)
		wantReason(t, err, meshv1.ErrorReason_INVALID_FIELD)
	})
}

func TestWhatEtcdWouldRefuseIsRefusedFirst(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{}), t.Context()
		huge := newCheck("huge")
		huge.DisplayName = strings.Repeat("x", 1500<<10)
		_, err := s.CreateCheck(ctx, huge)
		wantReason(t, err, meshv1.ErrorReason_LIMIT_EXCEEDED)
		// Many large checks are split by size, not only by number.
		plan := store.Plan{}
		for i := range 40 {
			c := newCheck(fmt.Sprintf("c%d", i))
			c.DisplayName = strings.Repeat("x", 100<<10)
			plan.PutChecks = append(plan.PutChecks, store.PlannedCheck{Check: c})
		}
		chunks, _, err := s.ApplyBatch(ctx, plan)
		ok(t, err)
		if chunks < 3 {
			t.Fatalf("%d chunks for 4 MB", chunks)
		}
	})
}

func TestEnrolmentsAndTablesCompareRevisions(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{}), t.Context()
		rev, err := s.PutEnrolment(ctx, &statev1.Enrolment{Name: "probers/p", Datacenter: "fra"}, 0)
		ok(t, err)
		_, err = s.PutEnrolment(ctx, &statev1.Enrolment{Name: "probers/p", Datacenter: "iad"}, 0)
		if !errors.Is(err, store.ErrConflict) {
			t.Fatalf("second creation: %v", err)
		}
		e, err := s.GetEnrolment(ctx, "probers/p")
		ok(t, err)
		if e.ModRevision != rev || e.CreateRevision != rev || e.Value.Datacenter != "fra" {
			t.Fatalf("%+v, written at %d", e, rev)
		}
		if err := s.DeleteEnrolment(ctx, "probers/p", rev-1); !errors.Is(err, store.ErrConflict) {
			t.Fatalf("stale deletion: %v", err)
		}
		ok(t, s.DeleteEnrolment(ctx, "probers/p", rev))
		ok(t, s.DeleteEnrolment(ctx, "probers/p", rev))
		if all, _, err := s.ListEnrolments(ctx); err != nil || len(all) != 0 {
			t.Fatalf("%v, %v", all, err)
		}

		old := b.reign(t, 1)
		rev, err = s.PutTable(ctx, old, &statev1.PlacementTable{Datacenter: "fra", Epoch: 1}, 0)
		ok(t, err)
		now := b.reign(t, 2)
		if _, err = s.PutTable(ctx, old, &statev1.PlacementTable{Datacenter: "fra", Epoch: 2}, rev); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("the old leader's table: %v", err)
		}
		_, err = s.PutTable(ctx, now, &statev1.PlacementTable{Datacenter: "fra", Epoch: 2}, rev)
		ok(t, err)
		tables, _, err := s.ListTables(ctx)
		ok(t, err)
		if len(tables) != 1 || tables[0].Value.Epoch != 2 {
			t.Fatalf("%v", tables)
		}
	})
}

func TestRequestsAreRememberedForAnHour(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{}), t.Context()
		_, found, err := s.LookupRequest(ctx, "id", "digest")
		if err != nil || found {
			t.Fatalf("%v, %v", found, err)
		}
		ok(t, s.RememberRequest(ctx, "id", "digest", "checks/a"))
		ok(t, s.RememberRequest(ctx, "id", "digest", "checks/a"))
		wantReason(t, s.RememberRequest(ctx, "id", "other", "checks/a"), meshv1.ErrorReason_REQUEST_ID_REUSED)
		name, found, err := s.LookupRequest(ctx, "id", "digest")
		if err != nil || !found || name != "checks/a" {
			t.Fatalf("%q, %v, %v", name, found, err)
		}
		_, _, err = s.LookupRequest(ctx, "id", "other")
		wantReason(t, err, meshv1.ErrorReason_REQUEST_ID_REUSED)
		if b.fake == nil {
			return
		}
		time.Sleep(59 * time.Minute)
		if _, found, err = s.LookupRequest(ctx, "id", "digest"); err != nil || !found {
			t.Fatalf("after 59 minutes: %v, %v", found, err)
		}
		time.Sleep(15 * time.Minute)
		if _, found, err = s.LookupRequest(ctx, "id", "digest"); err != nil || found {
			t.Fatalf("after 74 minutes: %v, %v", found, err)
		}
	})
}

func TestServerRecordLivesAsLongAsItsServer(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s := b.store(store.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.KeepServer(ctx, &statev1.ServerRecord{Name: "servers/a"}, 2*time.Second) }()
		f := follow(t, s)
		b1 := f.next(t)
		if len(b1.Events) == 0 {
			b1 = f.next(t)
		}
		if e := b1.Events[0]; e.Kind != store.KindServer || e.Name != "servers/a" {
			t.Fatalf("%v", e)
		}
		if b.fake != nil {
			time.Sleep(time.Hour)
			if !b.fake.RevokeLeaseOf("/probemesh/v1/server/a") {
				t.Fatal("the record has no lease after an hour")
			}
			wantBatch(t, f.next(t), "-server:servers/a")
			wantBatch(t, f.next(t), "server:servers/a")
		}
		cancel()
		<-done
		wantBatch(t, f.next(t), "-server:servers/a")
	})
}
