package notify

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/probemesh/probemesh/server/store"
)

// reign is one Run.
type reign struct {
	fence   store.Fence
	workers sync.WaitGroup
	over    chan error // has the error that ended the reign early
}

// Run delivers, in the name of the reign that fence belongs to, until ctx ends or a write is fenced off; its error says which. Deliveries under way
// when it ends are given Config.Grace. Whatever was tried by an earlier reign is due at once.
func (n *Notifier) Run(ctx context.Context, fence store.Fence) error {
	r := &reign{fence: fence, over: make(chan error, 1)}
	n.begin()
	// Work outlives ctx by the grace, so that an answer that is on its way is still recorded.
	workCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	err := n.loop(ctx, workCtx, r)
	n.wind(r, stop)
	return err
}

// begin forgets what an earlier reign held back.
func (n *Notifier) begin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, it := range n.entries {
		it.next, it.failure, it.records, it.verdict, it.attempts = time.Time{}, "", 0, nil, max(it.attempts, int(it.entry.GetAttempts()))
	}
	for _, rcv := range n.receivers {
		heap.Init(&rcv.waiting)
	}
}

func (n *Notifier) loop(ctx, workCtx context.Context, r *reign) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := n.dispatch(time.Now(), func(it *item) {
			r.workers.Go(func() { n.work(workCtx, r, it) })
		})
		timer.Stop()
		var due <-chan time.Time
		if !next.IsZero() {
			timer.Reset(time.Until(next))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-r.over:
			return err
		case <-n.wake:
		case <-due:
		}
	}
}

// wind waits for the workers, for the grace and then until they have noticed that stop was called.
func (n *Notifier) wind(r *reign, stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.workers.Wait()
	}()
	grace := time.NewTimer(n.cfg.Grace)
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
		stop()
		<-done
	}
}

// dispatch starts what is due and fits into the bounds, and returns when the next is due; zero when nothing is, or when only the end of a
// delivery can make room.
func (n *Notifier) dispatch(now time.Time, start func(*item)) (next time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.synced {
		return time.Time{}
	}
	// Receivers take turns, so that the room there is goes round however much one of them is owed.
	for started := true; started; {
		started = false
		for _, rcv := range n.receivers {
			if n.inflight >= n.cfg.Concurrency {
				return time.Time{}
			}
			if rcv.inflight >= n.cfg.PerReceiver || len(rcv.waiting) == 0 || rcv.waiting[0].items[0].next.After(now) {
				continue
			}
			l := heap.Pop(&rcv.waiting).(*lane)
			l.busy = true
			rcv.inflight++
			n.inflight++
			started = true
			start(l.items[0])
		}
	}
	for _, rcv := range n.receivers {
		if rcv.inflight >= n.cfg.PerReceiver || len(rcv.waiting) == 0 {
			continue
		}
		if t := rcv.waiting[0].items[0].next; next.IsZero() || t.Before(next) {
			next = t
		}
	}
	return next
}

// work takes one step of one item and gives its lane free.
func (n *Notifier) work(ctx context.Context, r *reign, it *item) {
	settled, wait, err := n.step(ctx, r.fence, it)
	n.mu.Lock()
	it.next = time.Now().Add(wait)
	l := it.lane
	l.busy = false
	l.to.inflight--
	n.inflight--
	if settled && n.entries[it.entry.GetId()] == it {
		n.settled[it.entry.GetId()] = true
		n.removeLocked(it.entry.GetId())
	}
	n.restLocked(l)
	n.mu.Unlock()
	if errors.Is(err, store.ErrFenced) {
		select {
		case r.over <- err:
		default: // another worker was first
		}
	}
	n.poke()
}
