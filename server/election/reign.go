package election

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	"github.com/probemesh/probemesh/server/store"
)

// validity is until when, by this server's clock, a lease surely lives.
type validity struct {
	ttl   time.Duration
	until time.Time
}

// margin is how much earlier than its lease a leader stops: for the difference of two clocks' speeds, and for a pause between looking at the
// clock and acting. Acting too late is harmless, since it is fenced; the margin makes it rare.
func (v validity) margin() time.Duration { return v.ttl / 5 }

// renewed counts the lease's time from when the renewal was sent: etcd counts from later.
func (v validity) renewed(sent time.Time) validity {
	return validity{ttl: v.ttl, until: sent.Add(v.ttl - v.margin())}
}

// stand takes a lease and tries to become the leader within a time. The reign is nil when another was faster.
func (e *Election) stand(ctx context.Context, within time.Duration) (r *Reign, v validity, lease clientv3.LeaseID, err error) {
	sent := time.Now()
	callCtx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	g, err := e.client.Grant(callCtx, int64(e.cfg.TTL/time.Second))
	if err != nil {
		return nil, v, 0, fmt.Errorf("take a lease: %w", err)
	}
	v = validity{ttl: time.Duration(g.TTL) * time.Second}.renewed(sent)
	if r, err = e.seize(callCtx, g.ID); r == nil {
		e.revoke(ctx, g.ID)
		return nil, v, g.ID, err
	}
	if now := time.Now(); now.Sub(sent) >= v.ttl/5 {
		// The writes of an etcd that is slow have used the lease up, or nearly so. Renewing it is no write.
		if _, err := e.client.KeepAliveOnce(callCtx, g.ID); err == nil {
			v = v.renewed(now)
		}
	}
	return r, v, g.ID, nil
}

// seize writes the leader's key and the next term if there is no leader.
func (e *Election) seize(ctx context.Context, lease clientv3.LeaseID) (*Reign, error) {
	got, err := e.client.Get(ctx, store.TermKey)
	if err != nil {
		return nil, fmt.Errorf("read the term: %w", err)
	}
	var term, termMod int64
	if len(got.Kvs) > 0 {
		if term, err = strconv.ParseInt(string(got.Kvs[0].Value), 10, 64); err != nil {
			return nil, fmt.Errorf("the term in etcd is %q, not a number; set %s to a number above every term so far", got.Kvs[0].Value, store.TermKey)
		}
		termMod = got.Kvs[0].ModRevision
	}
	rec := &statev1.LeaderRecord{Server: e.cfg.Server, BootId: e.cfg.BootID, Term: term + 1}
	value, err := proto.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encode the leader's record: %w", err)
	}
	txn, err := e.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(store.LeaderKey), "=", 0), clientv3.Compare(clientv3.ModRevision(store.TermKey), "=", termMod)).
		Then(clientv3.OpPut(store.LeaderKey, string(value), clientv3.WithLease(lease)), clientv3.OpPut(store.TermKey, strconv.FormatInt(term+1, 10))).
		Commit()
	created := int64(0)
	switch {
	case err == nil && !txn.Succeeded:
		return nil, nil
	case err == nil:
		created = txn.Header.Revision
	default:
		// The answer may be lost and the key ours.
		held, readErr := e.client.Get(ctx, store.LeaderKey)
		if readErr != nil || len(held.Kvs) == 0 || clientv3.LeaseID(held.Kvs[0].Lease) != lease {
			return nil, fmt.Errorf("write the leader's key: %w", err)
		}
		created = held.Kvs[0].CreateRevision
	}
	e.see(sighting{known: true, rec: rec, created: created, rev: created})
	return &Reign{Term: rec.Term, Server: e.cfg.Server,
		Fence: store.Fence{Key: store.LeaderKey, CreateRevision: created, Term: rec.Term}}, nil
}

// reign lets lead run for as long as the reign lasts, and resigns.
func (e *Election) reign(ctx context.Context, r Reign, v validity, lease clientv3.LeaseID, lead func(context.Context, Reign) error) {
	begun := time.Now()
	reignCtx, end := context.WithCancelCause(ctx)
	e.begin(reignCtx, r.Term, end)
	e.log.InfoContext(ctx, "this server leads", "term", r.Term, "revision", r.Fence.CreateRevision, "lease_ttl", v.ttl)

	var guards sync.WaitGroup
	guards.Go(func() { end(e.keepLease(reignCtx, lease, v)) })
	guards.Go(func() { end(e.keepKey(reignCtx, r.Fence.CreateRevision)) })
	err := lead(reignCtx, r)
	cause := context.Cause(reignCtx)
	if cause == nil {
		cause = ErrResigned
	}
	end(cause)
	guards.Wait()
	e.over()
	e.resign(ctx, r, lease)
	e.m.ended(ctx, cause)
	log := e.log
	if err != nil {
		log = log.With("err", err)
	}
	log.InfoContext(ctx, "this server leads no more", "term", r.Term, "why", cause, "for", time.Since(begun).Round(time.Millisecond))
}

// over notes that there is no reign.
func (e *Election) over() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reigns, e.term, e.end = nil, 0, nil
}

// begin notes the present reign.
func (e *Election) begin(reign context.Context, term int64, end context.CancelCauseFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reigns, e.term, e.end = reign, term, end
}

// keepLease renews the lease until it cannot, and says why the reign is over.
func (e *Election) keepLease(ctx context.Context, lease clientv3.LeaseID, v validity) error {
	every := v.ttl / 5
	next := time.NewTimer(every)
	defer next.Stop()
	for {
		dead := time.NewTimer(time.Until(v.until))
		select {
		case <-ctx.Done():
			dead.Stop()
			return ctx.Err()
		case <-dead.C:
			return ErrNotRenewed
		case <-next.C:
			dead.Stop()
		}
		sent := time.Now()
		// One attempt may take until the next is due, and never beyond the reign itself.
		callCtx, cancel := context.WithDeadline(ctx, earlier(sent.Add(every), v.until))
		_, err := e.client.KeepAliveOnce(callCtx, lease)
		cancel()
		switch {
		case err == nil:
			v = v.renewed(sent)
			next.Reset(max(0, every-time.Since(sent)))
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return ErrLeaseLost
		default:
			e.log.WarnContext(ctx, "leader's lease not renewed, trying again", "left", max(0, time.Until(v.until)).Round(time.Millisecond), "err", err)
			next.Reset(every / 10)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// keepKey waits until the leader's key is seen gone or another's.
func (e *Election) keepKey(ctx context.Context, created int64) error {
	for {
		seen, changed := e.sight()
		if seen.rev >= created && seen.created != created {
			return ErrEvicted
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// resign gives the key and the lease back, in bounded time, also when ctx has ended.
func (e *Election) resign(ctx context.Context, r Reign, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignTimeout)
	defer cancel()
	if _, err := e.deleteKey(ctx, r.Fence.CreateRevision); err != nil {
		e.log.WarnContext(ctx, "could not resign, the lease will run out", "term", r.Term, "err", err)
		return
	}
	e.revoke(ctx, lease)
}

// revoke gives a lease back that is not needed; if that fails, it runs out by itself.
func (e *Election) revoke(ctx context.Context, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignTimeout)
	defer cancel()
	if _, err := e.client.Revoke(ctx, lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		e.log.DebugContext(ctx, "lease left to run out", "err", err)
	}
}
