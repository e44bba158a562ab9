package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// sweepEvery is how often entries of receivers that are down are looked through for those whose time is over.
const sweepEvery = time.Minute

// reign is one Run: a loop that owns the queue, a goroutine that follows the store, and one for each entry in the works.
type reign struct {
	n     *Notifier
	fence store.Fence
	log   *slog.Logger
	lim   limits

	batches chan store.Batch
	// reports has room for everything that is in the works, so that nothing waits to report.
	reports chan report
	pages   *pages

	// mu guards queue: the loop writes it, the gauges read it. revision is that of the newest batch.
	mu       sync.Mutex
	queue    *queue
	revision int64

	// chanceMu guards chance.
	chanceMu sync.Mutex
	chance   *rand.Rand
}

// job is an entry to be worked on, as it was when it was taken.
type job struct {
	item     *item
	entry    *statev1.OutboxEntry // not to be changed
	receiver *meshv1.Receiver     // not to be changed; nil when it is gone
	// drop is why it is not to be sent; empty when it is.
	drop dropReason
	// attempt is the number of this attempt, from 1.
	attempt int
	// failures, records and lastError are those of the item.
	failures, records int
	lastError         string
	// receiverFailing is the lane's failing.
	receiverFailing int
}

// report is what became of a job.
type report struct {
	item *item
	// settled is true when the entry is deleted.
	settled bool
	// outcome is empty when nothing was sent.
	outcome outcome
	// due is when to try again, notBefore when anything may be sent to the receiver again; zero when that does not matter.
	due, notBefore time.Time
	// recorded is the error that was recorded, if one was.
	recorded string
	// err ends the reign.
	err error
}

func newReign(n *Notifier, fence store.Fence) *reign {
	return &reign{
		n: n, fence: fence, log: n.cfg.Log.With("term", fence.Term),
		lim:     limits{all: n.cfg.MaxInFlight, perReceiver: n.cfg.PerReceiver},
		batches: make(chan store.Batch), reports: make(chan report, n.cfg.MaxInFlight),
		pages: newPages(), queue: newQueue(),
		chance: rand.New(rand.NewPCG(n.cfg.Seed, uint64(fence.Term))),
	}
}

// run is the loop. Requests live in a context of their own, which outlives ctx by the grace.
func (r *reign) run(ctx context.Context) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	following, stopFollowing := context.WithCancel(ctx)
	defer stopFollowing()
	followed := make(chan error, 1)
	go func() { followed <- r.follow(following) }()

	err := r.loop(ctx, work, followed)
	if err != nil {
		stopWork() // fenced: whatever is under way may change nothing any more
	}
	stopFollowing()
	if late := r.drain(work, stopWork); err == nil {
		err = late
	}
	if !errors.Is(err, errFollow) {
		<-followed
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// errFollow marks the error of a follower that has ended.
var errFollow = errors.New("following the store ended")

// follow hands batches to the loop.
func (r *reign) follow(ctx context.Context) error {
	return r.n.store.Follow(ctx, func(ctx context.Context, b store.Batch) error {
		select {
		case r.batches <- b:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// loop works until ctx ends (nil) or the reign does.
func (r *reign) loop(ctx, work context.Context, followed <-chan error) error {
	next := time.NewTimer(0)
	defer next.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-followed:
			if ctx.Err() != nil {
				err = nil
			}
			return errors.Join(errFollow, err)
		case b := <-r.batches:
			r.apply(b, time.Now())
		case rep := <-r.reports:
			if err := r.take(rep, time.Now()); err != nil {
				return err
			}
		case <-sweep.C:
			r.mu.Lock()
			r.queue.expire(time.Now())
			r.mu.Unlock()
		case <-next.C:
		}
		r.dispatch(work, next)
	}
}

// drain waits for what is in the works, for the grace and then until it has noticed that it is to stop.
func (r *reign) drain(work context.Context, stop context.CancelFunc) error {
	grace := time.AfterFunc(r.n.cfg.Grace, stop)
	defer grace.Stop()
	var ended error
	for r.queue.inFlight > 0 {
		rep := <-r.reports
		if err := r.take(rep, time.Now()); err != nil && ended == nil {
			ended = err
			stop()
		}
	}
	if work.Err() != nil && ended == nil {
		r.log.DebugContext(work, "requests under way were cut off at the end of the reign")
	}
	return ended
}

// apply takes over what the store told.
func (r *reign) apply(b store.Batch, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queue
	r.revision = b.Revision
	if b.Snapshot {
		r.replace(b, now)
	}
	// Receivers first: in a snapshot an entry may come before its receiver, and a receiver that is not known is taken for deleted.
	for _, e := range b.Events {
		if e.Kind == store.KindReceiver {
			v, _ := e.Value.(*meshv1.Receiver)
			if held := q.lanes[e.Name]; b.Snapshot && held != nil && proto.Equal(held.receiver, v) {
				continue
			}
			q.setReceiver(e.Name, v, now)
		}
	}
	for _, e := range b.Events {
		if e.Kind != store.KindOutbox {
			continue
		}
		if v, ok := e.Value.(*statev1.OutboxEntry); ok && v != nil {
			q.put(v, e.CreateRevision, now)
			continue
		}
		delete(q.settled, e.Name)
		q.remove(e.Name)
	}
}

// replace forgets what a snapshot does not have.
func (r *reign) replace(b store.Batch, now time.Time) {
	q := r.queue
	names := map[store.Kind]map[string]bool{store.KindReceiver: {}, store.KindOutbox: {}}
	for _, e := range b.Events {
		if set := names[e.Kind]; set != nil {
			set[e.Name] = true
		}
	}
	for id := range q.settled {
		if !names[store.KindOutbox][id] {
			delete(q.settled, id)
		}
	}
	for id := range q.items {
		if !names[store.KindOutbox][id] {
			q.remove(id)
		}
	}
	for name, l := range q.lanes {
		if l.receiver != nil && !names[store.KindReceiver][name] {
			q.setReceiver(name, nil, now)
		}
	}
}

// take takes over what became of a job. An error ends the reign.
func (r *reign) take(rep report, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case rep.outcome == delivered:
		r.queue.answered(rep.item, now)
	case rep.outcome != "" && rep.outcome != aborted:
		r.queue.failed(rep.item, rep.outcome, rep.due, rep.notBefore)
	}
	if rep.recorded != "" {
		rep.item.records++
		rep.item.lastError = rep.recorded
	}
	r.queue.done(rep.item, rep.settled, now)
	if rep.err != nil {
		return fmt.Errorf("deliver %s: %w", rep.item.entry.GetId(), rep.err)
	}
	return nil
}

// dispatch begins everything that may begin, and sets the timer for what comes next.
func (r *reign) dispatch(work context.Context, timer *time.Timer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for {
		i, drop := r.queue.next(now, r.lim)
		if i == nil {
			break
		}
		if drop == "" {
			if wait := r.held(i); wait > 0 {
				r.queue.postpone(i, now.Add(wait))
				continue
			}
		}
		r.christen(i)
		l := i.thread.lane
		i.trying = int32(i.attempts() + 1)
		j := job{item: i, entry: i.entry, receiver: l.receiver, drop: drop, attempt: i.attempts() + 1,
			failures: i.failures, records: i.records, lastError: i.lastError, receiverFailing: l.failing}
		// drain waits for it: each job reports exactly once.
		go func() { r.reports <- r.do(work, j) }()
	}
	timer.Stop()
	if at := r.queue.wake(now, r.lim); !at.IsZero() {
		timer.Reset(at.Sub(now))
	}
}

// catchUp is how long a notification waits for this notifier to know the outbox as of a revision that others of this server know.
const catchUp = 5 * time.Millisecond

// held is how long a notification is to wait: a break-glass message may have told the same, and the leader is about to take it out of the outbox.
func (r *reign) held(i *item) time.Duration {
	n := i.entry.GetNotification()
	if r.n.cfg.Hold == nil || n.GetTransition() != meshv1.Notification_OPENED || n.GetCheck() == "" {
		return 0
	}
	wait, revision := r.n.cfg.Hold(n.GetCheck(), i.created)
	if wait == 0 && r.revision < revision {
		return catchUp
	}
	return wait
}

// christen settles under which key an entry is sent, before its first attempt: that of the break-glass message which may have told the same. What has been tried keeps its key, since
// the receiver may have taken it, and its answer been lost.
func (r *reign) christen(i *item) {
	n := i.entry.GetNotification()
	if r.n.cfg.OutageKey == nil || n.GetTransition() != meshv1.Notification_OPENED || n.GetBreakGlassKey() != "" || i.attempts()+i.failures > 0 {
		return
	}
	if key := r.n.cfg.OutageKey(n.GetCheck(), n.GetIncident()); key != "" {
		i.entry = proto.CloneOf(i.entry)
		i.entry.Notification.BreakGlassKey = key
	}
}

// pause draws the pause after a failure of j, and how long the receiver is to be left alone.
func (r *reign) pause(j job, a answer) (entry, receiver time.Duration) {
	r.chanceMu.Lock()
	defer r.chanceMu.Unlock()
	entry = pause(a.outcome, a.retryAfter, j.failures+1, r.chance)
	if !a.outcome.passing() {
		return entry, 0
	}
	receiver = a.retryAfter
	if j.receiverFailing+1 >= downAfter {
		receiver = max(receiver, jitter(downPause, j.receiverFailing+2-downAfter, r.chance))
	}
	return entry, receiver
}
