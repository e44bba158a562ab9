package notify

import (
	"container/heap"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// dropReason is why an entry is not sent any more; empty when it is. It is the label `reason` of the metric.
type dropReason string

const (
	receiverDeleted dropReason = "receiver_deleted"
	receiverPaused  dropReason = "receiver_paused"
	givenUp         dropReason = "given_up"
)

// giveUpAfter is how long a receiver's notifications are tried.
func giveUpAfter(r *meshv1.Receiver) time.Duration {
	if d := r.GetGiveUpAfter(); d != nil {
		return d.AsDuration()
	}
	return spec.DefaultGiveUpAfter
}

// deadline is when an entry is given up.
func (i *item) deadline() time.Time {
	return i.entry.GetCreateTime().AsTime().Add(giveUpAfter(i.thread.lane.receiver))
}

// fate tells why an entry is to be dropped now; empty when it is to be sent.
func (i *item) fate(now time.Time) dropReason {
	switch r := i.thread.lane.receiver; {
	case r == nil:
		return receiverDeleted
	case r.GetPaused():
		return receiverPaused
	case i.attempts() > 0 && !now.Before(i.deadline()):
		return givenUp
	}
	return ""
}

// limits are how much may be in the works at once.
type limits struct{ all, perReceiver int }

// next takes the entry that is to be worked on now and why it is to be dropped, if it is; nil when nothing can be begun now. Among the receivers with
// something to do, that with the least in the works comes first, then the one that waited longest.
func (q *queue) next(now time.Time, lim limits) (*item, dropReason) {
	var best *thread
	for _, l := range q.lanes {
		if t := l.ready(now, q.inFlight, lim); t != nil && (best == nil || prefer(t, best)) {
			best = t
		}
	}
	if best == nil {
		return nil, ""
	}
	heap.Remove(&best.lane.waiting, best.at)
	best.busy = true
	best.lane.inFlight++
	q.inFlight++
	return best.items[0], best.items[0].fate(now)
}

// postpone gives an entry back that next has taken.
func (q *queue) postpone(i *item, due time.Time) {
	t := i.thread
	t.busy, t.due = false, due
	t.lane.inFlight--
	q.inFlight--
	q.requeue(t)
}

func prefer(a, b *thread) bool {
	if a.lane.inFlight != b.lane.inFlight {
		return a.lane.inFlight < b.lane.inFlight
	}
	if !a.due.Equal(b.due) {
		return a.due.Before(b.due)
	}
	return a.lane.name < b.lane.name
}

// ready is the thread of the lane that may begin now, or nil.
func (l *lane) ready(now time.Time, inFlight int, lim limits) *thread {
	if len(l.waiting) == 0 || l.waiting[0].due.After(now) || !l.hasRoom(inFlight, lim) {
		return nil
	}
	if t := l.waiting[0]; !l.heldBack(now) || t.items[0].fate(now) != "" {
		return t
	}
	return nil
}

// hasRoom tells whether one more of the lane may be in the works. While half of all places are taken, only a lane that has none gets one.
func (l *lane) hasRoom(inFlight int, lim limits) bool {
	if inFlight >= lim.all || l.inFlight >= lim.perReceiver {
		return false
	}
	return l.inFlight == 0 || inFlight < max(lim.all/2, 1)
}

// heldBack tells whether nothing may be sent to the receiver now.
func (l *lane) heldBack(now time.Time) bool {
	return now.Before(l.notBefore) || (l.failing >= downAfter && l.inFlight > 0)
}

// wake is when next may have something that it does not have now, if nothing else happens; zero when never.
func (q *queue) wake(now time.Time, lim limits) time.Time {
	var first time.Time
	for _, l := range q.lanes {
		if len(l.waiting) == 0 || !l.hasRoom(q.inFlight, lim) {
			continue // the end of what is in the works comes first
		}
		at := l.waiting[0].due
		if l.receiver != nil && l.notBefore.After(at) {
			at = l.notBefore
		}
		if !at.After(now) {
			continue // one at a time: the same
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// expire moves entries whose time is over to the front: in the queue of a receiver that is down they would wait for their turn.
func (q *queue) expire(now time.Time) {
	for _, l := range q.lanes {
		moved := false
		for _, t := range l.waiting {
			if t.items[0].fate(now) == givenUp {
				t.due, moved = time.Time{}, true
			}
		}
		if moved {
			heap.Init(&l.waiting)
		}
	}
}

// done takes an entry out of the works. When it is settled, its thread's next entry is due.
func (q *queue) done(i *item, settled bool, now time.Time) {
	t := i.thread
	t.busy = false
	t.lane.inFlight--
	q.inFlight--
	switch {
	case i.gone:
		t.due = now
	case settled:
		q.settled[i.entry.GetId()] = i.created
		q.remove(i.entry.GetId())
		return
	}
	q.requeue(t)
}

// failed notes a failed attempt: when the entry may be tried again, and what the failure says of the receiver.
func (q *queue) failed(i *item, o outcome, due, notBefore time.Time) {
	l := i.thread.lane
	// The attempt may have come back from the store already, written with its failure.
	i.entry.Attempts = max(i.entry.GetAttempts(), i.trying)
	i.failures++
	if l.receiver != nil {
		if end := i.deadline(); due.After(end) {
			due = end
		}
	}
	i.thread.due = due
	if !o.passing() {
		l.failing = 0 // it answers, if only to refuse
		return
	}
	l.failing++
	if notBefore.After(l.notBefore) {
		l.notBefore = notBefore
	}
}

// answered notes that the receiver took something. If it had been down, all that waits for it is due now.
func (q *queue) answered(i *item, now time.Time) {
	l := i.thread.lane
	was := l.failing
	l.failing, l.notBefore = 0, time.Time{}
	if was >= downAfter {
		l.wake(now)
	}
}
