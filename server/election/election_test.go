package election_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/probemesh/probemesh/internal/etcdfake"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/store"
	"github.com/probemesh/probemesh/server/store/embedded"
)

// candidate is a server that stands for election and tells of its reigns.
type candidate struct {
	*election.Election
	began chan election.Reign
	ended chan error // the cause of each reign's end
	stop  func()
}

func stand(t *testing.T, c *clientv3.Client, name string) *candidate {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e := election.New(c, election.Config{Server: "servers/" + name, BootID: fmt.Sprintf("%s-%d", name, time.Now().UnixNano())})
	x := &candidate{Election: e, began: make(chan election.Reign, 100), ended: make(chan error, 100)}
	done := make(chan error, 1)
	go func() {
		done <- e.Run(ctx, func(ctx context.Context, r election.Reign) error {
			x.began <- r
			<-ctx.Done()
			x.ended <- context.Cause(ctx)
			return nil
		})
	}()
	stopped := false
	x.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Run ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not end")
		}
	}
	t.Cleanup(x.stop)
	return x
}

func get[T any](t *testing.T, ch <-chan T, within time.Duration, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(within):
		t.Fatalf("%s: not within %s", what, within)
		panic("unreachable")
	}
}

func wantCause(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("the reign ended because %v, want %v", got, want)
	}
}

func TestOneLeadsAndTheOtherFollowsOnResignation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		a := stand(t, etcd.Client(t), "a")
		first := get(t, a.began, time.Second, "a's reign")
		b := stand(t, etcd.Client(t), "b")
		time.Sleep(time.Hour + 700*time.Millisecond) // not at the very moment at which observers look again
		if len(b.began) > 0 || len(a.ended) > 0 {
			t.Fatal("two leaders, or a reign that ended by itself")
		}
		if l, ok := b.Leader(); !ok || l.Server != "servers/a" || l.Term != 1 || first.Term != 1 {
			t.Fatalf("b sees %v, %v", l, ok)
		}
		if a.Resign(7) {
			t.Fatal("resigned from a term that is not the present one")
		}
		begun := time.Now()
		if !a.Resign(1) {
			t.Fatal("did not resign")
		}
		second := get(t, b.began, time.Second, "b's reign")
		wantCause(t, <-a.ended, election.ErrResigned)
		if second.Term != 2 || time.Since(begun) > 100*time.Millisecond {
			t.Fatalf("term %d after %s", second.Term, time.Since(begun))
		}
		b.stop()
		if third := get(t, a.began, 100*time.Millisecond, "a's second reign"); third.Term != 3 {
			t.Fatalf("term %d", third.Term)
		}
	})
}

func TestLoneServerThatResignsLeadsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := stand(t, etcdfake.New(t).Client(t), "a")
		for term := int64(1); term < 5; term++ {
			if r := get(t, a.began, 2*time.Second, "reign"); r.Term != term {
				t.Fatalf("term %d, want %d", r.Term, term)
			}
			a.Resign(term)
		}
	})
}

func TestSilentLeaderStopsByItsOwnClockBeforeAnotherBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		client, link := etcd.Link(t)
		a := stand(t, client, "a")
		get(t, a.began, time.Second, "a's reign")
		b := stand(t, etcd.Client(t), "b")
		time.Sleep(time.Minute)
		cut := time.Now()
		link.Cut()
		wantCause(t, get(t, a.ended, 5*time.Second, "end of a's reign"), election.ErrNotRenewed)
		aStopped := time.Since(cut)
		get(t, b.began, 6*time.Second, "b's reign")
		bBegan := time.Since(cut)
		if aStopped >= bBegan || aStopped > 4*time.Second || bBegan > 5*time.Second {
			t.Fatalf("a stopped after %s, b began after %s", aStopped, bBegan)
		}
		link.Mend()
		time.Sleep(time.Minute)
		if len(a.began) != 0 || len(b.ended) != 0 {
			t.Fatal("the return of the old leader disturbed the new one")
		}
	})
}

func TestEtcdThatHangsEndsTheReign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		a := stand(t, etcd.Client(t), "a")
		get(t, a.began, time.Second, "reign")
		etcd.SetDelay(time.Hour)
		wantCause(t, get(t, a.ended, 4100*time.Millisecond, "end"), election.ErrNotRenewed)
		etcd.SetDelay(0)
		if r := get(t, a.began, time.Minute, "next reign"); r.Term != 2 {
			t.Fatalf("term %d", r.Term)
		}
	})
}

func TestEtcdThatIsSlowHasALeaderAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		etcd.SetDelay(900 * time.Millisecond) // of each call: an attempt takes three, and one more to renew the lease
		a := stand(t, etcd.Client(t), "a")
		get(t, a.began, 15*time.Second, "reign")
		time.Sleep(time.Minute)
		if len(a.ended) > 0 {
			t.Fatalf("the reign ended because %v", <-a.ended)
		}
		etcd.SetDelay(0)
	})
}

func TestWatchThatHangsDelaysTheNextLeaderByALeaseAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		a := stand(t, etcd.Client(t), "a")
		get(t, a.began, time.Second, "a's reign")
		b := stand(t, etcd.Client(t), "b")
		synctest.Wait()
		etcd.SetStarved(true)
		a.stop()
		get(t, b.began, 6*time.Second, "b's reign")
	})
}

func TestLostLeaseAndEvictionEndTheReignAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		a := stand(t, etcd.Client(t), "a")
		get(t, a.began, time.Second, "reign")
		begun := time.Now()
		etcd.RevokeLeaseOf(store.LeaderKey)
		cause := get(t, a.ended, time.Second, "end")
		if time.Since(begun) > 100*time.Millisecond {
			t.Fatalf("ended after %s", time.Since(begun))
		}
		wantCause(t, cause, election.ErrEvicted)
		get(t, a.began, 2*time.Second, "second reign")
		b := stand(t, etcd.Client(t), "b")
		synctest.Wait()
		if done, err := b.Evict(t.Context(), 1); done || err != nil {
			t.Fatalf("evicted a past term: %v, %v", done, err)
		}
		if done, err := b.Evict(t.Context(), 2); !done || err != nil {
			t.Fatalf("not evicted: %v, %v", done, err)
		}
		wantCause(t, get(t, a.ended, time.Second, "end"), election.ErrEvicted)
		if r := get(t, b.began, time.Second, "b's reign"); r.Term != 3 {
			t.Fatalf("term %d", r.Term)
		}
	})
}

func TestOwnKeyOfAFormerLifeIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		client, link := etcd.Link(t)
		a := stand(t, client, "a")
		get(t, a.began, time.Second, "reign")
		link.Cut() // killed: nothing of it reaches etcd any more
		reborn := stand(t, etcd.Client(t), "a")
		begun := time.Now()
		if r := get(t, reborn.began, time.Second, "reign after the restart"); r.Term != 2 {
			t.Fatalf("term %d", r.Term)
		}
		if d := time.Since(begun); d > 100*time.Millisecond {
			t.Fatalf("waited %s for its own ghost", d)
		}
	})
}

func TestTermsGrowThoughEveryLeaseIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		for term := int64(1); term < 4; term++ {
			a := stand(t, etcd.Client(t), "a")
			if r := get(t, a.began, time.Second, "reign"); r.Term != term {
				t.Fatalf("term %d, want %d", r.Term, term)
			}
			a.stop()
			time.Sleep(24 * time.Hour)
		}
	})
}

func TestLostAnswerToTheDecisiveWriteStillLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		etcd.LoseAnswers(1)
		a := stand(t, etcd.Client(t), "a")
		if r := get(t, a.began, time.Second, "reign"); r.Term != 1 {
			t.Fatalf("term %d", r.Term)
		}
		if etcd.Revision() != 2 {
			t.Fatalf("revision %d: more than one write", etcd.Revision())
		}
	})
}

func TestPausedLeadersWriteIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		client := etcd.Client(t)
		a := stand(t, client, "a")
		old := get(t, a.began, time.Second, "reign")
		b := stand(t, etcd.Client(t), "b")
		etcd.RevokeLeaseOf(store.LeaderKey)
		now := get(t, b.began, 2*time.Second, "b's reign")
		s := store.New(client, store.Options{})
		table := &statev1.PlacementTable{Datacenter: "fra"}
		if _, err := s.PutTable(t.Context(), old.Fence, table, 0); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("the old leader wrote: %v", err)
		}
		if _, err := s.PutTable(t.Context(), now.Fence, table, 0); err != nil {
			t.Fatal(err)
		}
	})
}

// Many faults in a row, from a fixed pattern: reigns never overlap beyond the fence, terms strictly grow, and somebody leads in the end.
func TestTermsStrictlyGrowThroughManyFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		var all []*candidate
		for i := range 3 {
			all = append(all, stand(t, etcd.Client(t), string(rune('a'+i))))
		}
		for i := range 60 {
			switch i % 6 {
			case 0:
				etcd.RevokeLeaseOf(store.LeaderKey)
			case 1:
				etcd.SetLeaderless(true)
				time.Sleep(time.Duration(i) * 200 * time.Millisecond)
				etcd.SetLeaderless(false)
			case 2:
				etcd.BreakWatches()
			case 3:
				etcd.LoseAnswers(i % 4)
			case 4:
				etcd.Stop()
				time.Sleep(time.Second)
				etcd.Start()
			case 5:
				etcd.Compact(0)
			}
			time.Sleep(time.Duration(i%7) * 900 * time.Millisecond)
		}
		etcd.LoseAnswers(0)
		time.Sleep(time.Minute)
		terms := map[int64]bool{}
		leading := 0
		for _, c := range all {
			last := int64(0)
			for len(c.began) > 0 {
				r := <-c.began
				if r.Term <= last || terms[r.Term] {
					t.Fatalf("term %d after %d, or twice", r.Term, last)
				}
				last, terms[r.Term] = r.Term, true
			}
			if l, ok := c.Leader(); ok && last == l.Term {
				leading++
			}
		}
		if leading != 1 || len(terms) < 5 {
			t.Fatalf("%d lead, %d terms", leading, len(terms))
		}
	})
}

// The same on a real etcd: hand-over and expiry.
func TestRealEtcdElects(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := embedded.Start(ctx, embedded.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	a := stand(t, m.Client(), "a")
	old := get(t, a.began, 10*time.Second, "a's reign")
	b := stand(t, m.Client(), "b")
	defer b.stop()
	defer a.stop()
	begun := time.Now()
	a.Resign(old.Term)
	next := get(t, b.began, 5*time.Second, "b's reign")
	t.Logf("resigned to won: %s", time.Since(begun))
	if next.Term != old.Term+1 {
		t.Fatalf("terms %d, %d", old.Term, next.Term)
	}
	r, err := m.Client().Get(ctx, store.LeaderKey)
	if err != nil || len(r.Kvs) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	if _, err := m.Client().Revoke(ctx, clientv3.LeaseID(r.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	wantCause(t, get(t, b.ended, 5*time.Second, "end"), election.ErrEvicted)
	get(t, a.began, 5*time.Second, "a's second reign")
	s := store.New(m.Client(), store.Options{})
	if err := s.DeleteOutbox(ctx, next.Fence, "x"); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("the old leader wrote: %v", err)
	}
}
