package etcdfake_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/probemesh/probemesh/internal/etcdfake"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSessionsOfTheRealClientLiveAndDie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		c := etcd.Client(t)
		s, err := concurrency.NewSession(c, concurrency.WithTTL(10))
		ok(t, err)
		e := concurrency.NewElection(s, "/e")
		ok(t, e.Campaign(t.Context(), "a"))
		time.Sleep(24 * time.Hour)
		select {
		case <-s.Done():
			t.Fatal("the session died while it was kept alive")
		default:
		}
		etcd.MuteLeases(true)
		begun := time.Now()
		<-s.Done()
		if d := time.Since(begun); d > 10*time.Second {
			t.Fatalf("noticed after %s", d)
		}
		time.Sleep(10 * time.Second)
		if keys := etcd.Keys(); len(keys) != 0 {
			t.Fatalf("keys %q outlived their lease", keys)
		}
	})
}

func TestLeasesAreNeverShorterThanEtcdMakesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := etcdfake.New(t).Client(t)
		g, err := c.Grant(t.Context(), 1)
		ok(t, err)
		if g.TTL != 2 {
			t.Fatalf("granted %d", g.TTL)
		}
		_, err = c.Put(t.Context(), "k", "v", clientv3.WithLease(g.ID))
		ok(t, err)
		time.Sleep(1900 * time.Millisecond)
		ttl, err := c.TimeToLive(t.Context(), g.ID, clientv3.WithAttachedKeys())
		ok(t, err)
		if len(ttl.Keys) != 1 || ttl.GrantedTTL != 2 {
			t.Fatalf("%+v", ttl)
		}
		time.Sleep(200 * time.Millisecond)
		if _, err = c.KeepAliveOnce(t.Context(), g.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			t.Fatalf("%v", err)
		}
		if _, err = c.Put(t.Context(), "k", "v", clientv3.WithLease(g.ID)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			t.Fatalf("%v", err)
		}
	})
}

func TestOldRevisionsAreReadUntilCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		c, ctx := etcd.Client(t), t.Context()
		var revs []int64
		for i := range 5 {
			r, err := c.Put(ctx, "k", fmt.Sprint(i))
			ok(t, err)
			revs = append(revs, r.Header.Revision)
		}
		_, err := c.Delete(ctx, "k")
		ok(t, err)
		for i, rev := range revs {
			r, err := c.Get(ctx, "k", clientv3.WithRev(rev))
			ok(t, err)
			if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != fmt.Sprint(i) || r.Kvs[0].Version != int64(i+1) || r.Kvs[0].CreateRevision != revs[0] {
				t.Fatalf("at %d: %v", rev, r.Kvs)
			}
		}
		etcd.Compact(revs[3])
		if _, err = c.Get(ctx, "k", clientv3.WithRev(revs[2])); !errors.Is(err, rpctypes.ErrCompacted) {
			t.Fatalf("%v", err)
		}
		r, err := c.Get(ctx, "k", clientv3.WithRev(revs[3]))
		ok(t, err)
		if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "3" {
			t.Fatalf("%v", r.Kvs)
		}
		if _, err = c.Get(ctx, "k", clientv3.WithRev(1000)); !errors.Is(err, rpctypes.ErrFutureRev) {
			t.Fatalf("%v", err)
		}
	})
}

func TestWatchBeginsAtARevisionAndResumesAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		c := etcd.Client(t)
		for i := range 3 {
			_, err := c.Put(t.Context(), "k", fmt.Sprint(i))
			ok(t, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := c.Watch(ctx, "k", clientv3.WithRev(3), clientv3.WithFragment())
		got := ""
		read := func(n int) string {
			for len(got) < n {
				for _, ev := range (<-w).Events {
					got += string(ev.Kv.Value)
				}
			}
			return got
		}
		if read(2) != "12" {
			t.Fatalf("%q", got)
		}
		etcd.Stop()
		time.Sleep(time.Minute)
		etcd.Start()
		_, err := c.Txn(t.Context()).Then(clientv3.OpPut("k", "3"), clientv3.OpPut("other", "x")).Commit()
		if err != nil {
			_, err = c.Put(t.Context(), "k", "3")
			ok(t, err)
		}
		if read(3) != "123" {
			t.Fatalf("%q", got)
		}
	})
}

func TestLimitsAreEtcds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := etcdfake.New(t).Client(t)
		var ops []clientv3.Op
		for i := range 129 {
			ops = append(ops, clientv3.OpPut(fmt.Sprint(i), ""))
		}
		if _, err := c.Txn(t.Context()).Then(ops...).Commit(); !errors.Is(err, rpctypes.ErrTooManyOps) {
			t.Fatalf("%v", err)
		}
		if _, err := c.Put(t.Context(), "k", string(make([]byte, 1600<<10))); !errors.Is(err, rpctypes.ErrRequestTooLarge) {
			t.Fatalf("%v", err)
		}
		if _, err := c.Txn(t.Context()).Then(clientv3.OpPut("k", "1"), clientv3.OpPut("k", "2")).Commit(); !errors.Is(err, rpctypes.ErrDuplicateKey) {
			t.Fatalf("%v", err)
		}
	})
}
