package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

func TestFollowTellsOfEveryKindWithoutAGap(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{PageSize: 2}), t.Context()
		made, err := s.CreateCheck(ctx, newCheck("b"))
		ok(t, err)
		_, err = s.CreateCheck(ctx, newCheck("a"))
		ok(t, err)
		_, err = s.CreateReceiver(ctx, &meshv1.Receiver{Name: "receivers/r"})
		ok(t, err)
		f := follow(t, s)
		first := f.next(t)
		wantBatch(t, first, "snapshot check:checks/b check:checks/a receiver:receivers/r")
		if c := first.Events[0].Value.(*meshv1.Check); c.Etag != made.Etag || c.Revision != made.Revision || first.Events[0].ModRevision != made.Revision {
			t.Fatalf("%v", first.Events[0])
		}

		fence := b.reign(t, 1)
		wantBatch(t, f.next(t), "leader:leader")
		inc := newIncident(1, "checks/a")
		rev, err := s.OpenIncident(ctx, fence, inc, []*statev1.OutboxEntry{owed(inc, "OPENED", "r")}, 0)
		ok(t, err)
		id := owed(inc, "OPENED", "r").Id
		opened := f.next(t)
		wantBatch(t, opened, "incident:"+inc.Incident.Name+" outbox:"+id)
		if opened.Revision != rev || opened.Events[0].Subject != "checks/a" {
			t.Fatalf("%+v", opened)
		}
		_, err = s.ResolveIncident(ctx, fence, inc, nil, rev)
		ok(t, err)
		gone := f.next(t)
		wantBatch(t, gone, "-incident:"+inc.Incident.Name)
		_, err = s.PutEnrolment(ctx, &statev1.Enrolment{Name: "probers/p"}, 0)
		ok(t, err)
		wantBatch(t, f.next(t), "enrolment:probers/p")
		_, err = s.PutTable(ctx, fence, &statev1.PlacementTable{Datacenter: "fra"}, 0)
		ok(t, err)
		wantBatch(t, f.next(t), "table:fra")
		ok(t, s.DeleteCheck(ctx, "checks/b", ""))
		wantBatch(t, f.next(t), "-check:checks/b")
	})
}

func TestFollowSurvivesCompactionWhileAway(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{}), t.Context()
		_, err := s.CreateCheck(ctx, newCheck("a"))
		ok(t, err)
		hold := make(chan struct{})
		f := followSlowly(t, s, hold)
		// The follower sits in its first callback while the world changes and is compacted.
		for range 3 {
			_, err = s.UpdateCheck(ctx, newCheck("a"), "")
			ok(t, err)
		}
		_, err = s.CreateCheck(ctx, newCheck("b"))
		ok(t, err)
		ok(t, s.DeleteCheck(ctx, "checks/a", ""))
		b.compact(t)
		close(hold)
		wantBatch(t, f.next(t), "snapshot check:checks/a")
		wantBatch(t, f.next(t), "snapshot check:checks/b")
		_, err = s.CreateCheck(ctx, newCheck("c"))
		ok(t, err)
		wantBatch(t, f.next(t), "check:checks/c")
	})
}

func TestFollowSurvivesARestartOfItsMember(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{}), t.Context()
		f := follow(t, s)
		wantBatch(t, f.next(t), "snapshot")
		_, err := s.CreateCheck(ctx, newCheck("a"))
		ok(t, err)
		wantBatch(t, f.next(t), "check:checks/a")
		b.restart()
		for i := range 3 {
			name := fmt.Sprintf("b%d", i)
			if _, err := s.CreateCheck(ctx, newCheck(name)); err != nil {
				t.Logf("while reconnecting: %v", err)
				if _, err := s.GetCheck(ctx, "checks/"+name); err != nil {
					_, err = s.CreateCheck(ctx, newCheck(name))
					ok(t, err)
				}
			}
			wantBatch(t, f.next(t), "check:checks/"+name)
		}
	})
}

func TestFollowSurvivesTheLossOfTheLeaderAndOfStreams(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{}), t.Context()
		f := follow(t, s)
		wantBatch(t, f.next(t), "snapshot")
		for i := range 5 {
			b.fake.SetLeaderless(true)
			_, err := s.GetCheck(ctx, "checks/a")
			wantReason(t, err, meshv1.ErrorReason_STORE_UNAVAILABLE)
			time.Sleep(time.Minute)
			b.fake.SetLeaderless(false)
			name := fmt.Sprintf("c%d", i)
			_, err = s.CreateCheck(ctx, newCheck(name))
			ok(t, err)
			wantBatch(t, f.next(t), "check:checks/"+name)
			b.fake.BreakWatches()
			_, err = s.UpdateCheck(ctx, newCheck(name), "")
			ok(t, err)
			wantBatch(t, f.next(t), "check:checks/"+name)
		}
	})
}

func TestFollowBeginsWhenEtcdComes(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		b.fake.SetLeaderless(true)
		f := follow(t, b.store(store.Options{}))
		f.quiet(t, time.Hour)
		b.fake.SetLeaderless(false)
		wantBatch(t, f.next(t), "snapshot")
	})
}

func TestMissedEventIsHealedByTheComparison(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		reader := metric.NewManualReader()
		s, ctx := b.store(store.Options{VerifyEvery: time.Minute, Meter: metric.NewMeterProvider(metric.WithReader(reader)).Meter("t")}), t.Context()
		_, err := s.CreateCheck(ctx, newCheck("gone"))
		ok(t, err)
		f := follow(t, s)
		wantBatch(t, f.next(t), "snapshot check:checks/gone")
		f.quiet(t, time.Hour+5*time.Second) // comparisons that find nothing say nothing

		b.fake.HideEvents(2)
		_, err = s.CreateCheck(ctx, newCheck("hidden"))
		ok(t, err)
		ok(t, s.DeleteCheck(ctx, "checks/gone", ""))
		f.quiet(t, 30*time.Second)
		wantBatch(t, f.next(t), "snapshot check:checks/hidden")
		if got := counter(t, reader, "probemesh_store_verify_mismatches_total"); got != 2 {
			t.Fatalf("%d mismatches counted, want 2", got)
		}
		f.quiet(t, time.Hour)
	})
}

func TestMissedEventIsHealedAtOnceWhenSomebodyDoubts(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{VerifyEvery: -1}), t.Context()
		f := follow(t, s)
		wantBatch(t, f.next(t), "snapshot")
		s.Doubt() // there is nothing to find
		f.quiet(t, time.Hour)
		b.fake.HideEvents(1)
		_, err := s.CreateCheck(ctx, newCheck("hidden"))
		ok(t, err)
		for range 100 {
			s.Doubt()
		}
		wantBatch(t, f.next(t), "snapshot check:checks/hidden")
		f.quiet(t, time.Hour)
	})
}

// A watch that is open and says nothing is not waited for when somebody has met what it keeps back; whoever else follows reads anew too.
func TestSilentWatchIsLeftAtOnceWhenSomebodyDoubts(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{VerifyEvery: -1}), t.Context()
		f, g := follow(t, s), follow(t, s)
		wantBatch(t, f.next(t), "snapshot")
		wantBatch(t, g.next(t), "snapshot")
		synctest.Wait()
		b.fake.SetStarved(true)
		_, err := s.CreateCheck(ctx, newCheck("a"))
		ok(t, err)
		begun := time.Now()
		s.Doubt()
		wantBatch(t, f.next(t), "snapshot check:checks/a")
		wantBatch(t, g.next(t), "snapshot check:checks/a")
		if d := time.Since(begun); d > 3*time.Second {
			t.Errorf("after %s", d)
		}
		s.Doubt() // there is nothing to find
		s.Doubt()
		f.quiet(t, 9*time.Second)
	})
}

// Reading all keys may take longer than a watch is waited for: its answer is then there already, or on its way.
func TestSlowListingIsNoStuckWatch(t *testing.T) {
	for i := range 20 { // of an answer and a timer that are both there, either may be seen first
		onFake(t, func(t *testing.T, b *backend) {
			s, ctx := b.store(store.Options{VerifyEvery: -1}), t.Context()
			f := follow(t, s)
			wantBatch(t, f.next(t), "snapshot")
			synctest.Wait()
			b.fake.SetDelay(300 * time.Millisecond)
			done := make(chan error, 1)
			go func() { _, err := s.CreateCheck(ctx, newCheck(fmt.Sprint("a", i))); done <- err }()
			time.Sleep(100 * time.Millisecond)
			s.Doubt()
			ok(t, <-done)
			wantBatch(t, f.next(t), fmt.Sprint("check:checks/a", i))
			f.quiet(t, 9*time.Second)
		})
	}
}

func TestStuckWatchIsHealedByTheComparison(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{VerifyEvery: 20 * time.Second}), t.Context()
		f := follow(t, s)
		wantBatch(t, f.next(t), "snapshot")
		synctest.Wait()
		b.fake.SetStarved(true)
		_, err := s.CreateCheck(ctx, newCheck("a"))
		ok(t, err)
		wantBatch(t, f.next(t), "snapshot check:checks/a")
	})
}

func TestWatchThatIsNeverConfirmedIsOpenedAgain(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		f := follow(t, b.store(store.Options{VerifyEvery: -1}))
		wantBatch(t, f.next(t), "snapshot")
		synctest.Wait()
		b.fake.SetDelay(time.Hour)
		b.fake.BreakWatches()
		time.Sleep(5 * time.Second) // the new watch hangs in the member
		b.fake.SetDelay(0)
		_, err := b.store(store.Options{}).CreateCheck(t.Context(), newCheck("a"))
		ok(t, err)
		wantBatch(t, f.next(t), "check:checks/a")
	})
}

func TestQuietStoreKeepsItsWatch(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		reader := metric.NewManualReader()
		s := b.store(store.Options{Meter: metric.NewMeterProvider(metric.WithReader(reader)).Meter("t")})
		f := follow(t, s)
		wantBatch(t, f.next(t), "snapshot")
		// Nothing was ever written after the watch began, as after a restart at night: etcd answers no request for progress then.
		f.quiet(t, time.Hour+5*time.Second)
		if got := counter(t, reader, "probemesh_store_watch_breaks_total"); got != 0 {
			t.Fatalf("the watch was opened again %d times", got)
		}
		_, err := s.CreateCheck(t.Context(), newCheck("a"))
		ok(t, err)
		wantBatch(t, f.next(t), "check:checks/a")
	})
}

func TestComparisonDuringChangesFindsNothing(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		s, ctx := b.store(store.Options{VerifyEvery: 50 * time.Millisecond}), t.Context()
		f := follow(t, s)
		wantBatch(t, f.next(t), "snapshot")
		for i := range 200 {
			name := fmt.Sprintf("c%d", i%7)
			if i%3 == 2 {
				if err := s.DeleteCheck(ctx, "checks/"+name, ""); err != nil {
					wantReason(t, err, meshv1.ErrorReason_RESOURCE_NOT_FOUND)
				}
			} else if _, err := s.UpdateCheck(ctx, newCheck(name), ""); err != nil {
				_, err = s.CreateCheck(ctx, newCheck(name))
				ok(t, err)
			}
			time.Sleep(7 * time.Millisecond)
		}
		for len(f.batches) > 0 {
			if got := <-f.batches; got.Snapshot {
				t.Fatal("a snapshot, though no event was missed")
			}
		}
	})
}

func TestFollowEndsWithTheErrorOfItsCallback(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		mine := errors.New("mine")
		err := b.store(store.Options{}).Follow(t.Context(), func(context.Context, store.Batch) error { return mine })
		if !errors.Is(err, mine) {
			t.Fatalf("%v", err)
		}
	})
}

func TestUndecodableValueIsLeftOutAndCounted(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		reader := metric.NewManualReader()
		s := b.store(store.Options{Meter: metric.NewMeterProvider(metric.WithReader(reader)).Meter("t")})
		_, err := b.client.Put(t.Context(), "/probemesh/v1/check/broken", "\xff\xff\xff")
		ok(t, err)
		_, err = s.CreateCheck(t.Context(), newCheck("good"))
		ok(t, err)
		wantBatch(t, follow(t, s).next(t), "snapshot check:checks/good")
		if got := counter(t, reader, "probemesh_store_undecodable_total"); got != 1 {
			t.Fatalf("%d counted", got)
		}
		_, err = s.GetCheck(t.Context(), "checks/broken")
		wantReason(t, err, meshv1.ErrorReason_INTERNAL_FAULT)
	})
}

// followSlowly is follow with a first callback that returns when hold is closed.
func followSlowly(t *testing.T, s *store.Store, hold <-chan struct{}) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{batches: make(chan store.Batch, 1000), done: make(chan error, 1)}
	inside := make(chan struct{})
	go func() {
		first := true
		f.done <- s.Follow(ctx, func(_ context.Context, b store.Batch) error {
			if first {
				close(inside)
				<-hold
				first = false
			}
			f.batches <- b
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-f.done
	})
	<-inside
	return f
}
