package notify

import (
	"container/heap"
	"slices"
	"strings"
	"time"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// queue is what is owed, in memory: a lane for each receiver, in it a thread for each incident, in it the entries by ordinal. It does no I/O and
// has no clock; the reign's loop is its only writer.
type queue struct {
	lanes map[string]*lane
	items map[string]*item
	// settled are the entries that this reign deleted and whose deletion the follower has not told of yet, by id, with the create revision of the
	// key. Without it, a batch or snapshot from before the deletion would bring an entry back and have it sent twice.
	settled map[string]int64
	// inFlight is how many entries are in the works.
	inFlight int
}

// item is an entry and what this reign did about it.
type item struct {
	entry *statev1.OutboxEntry
	// created is the create revision of its key.
	created int64
	thread  *thread
	// trying is the number of the attempt under way, or of the last one.
	trying int32
	// failures counts the failed attempts of this reign, records those that went into the incident.
	failures, records int
	// lastError is what was recorded last.
	lastError string
	// gone is true when its key was deleted while it was in the works.
	gone bool
}

// attempts is how many were made, in earlier reigns too as far as they are known.
func (i *item) attempts() int { return int(i.entry.GetAttempts()) }

// thread is what one receiver is owed of one incident. Only its first entry is ever in the works.
type thread struct {
	lane     *lane
	incident string
	items    []*item
	// due is when the first entry may be tried.
	due time.Time
	// busy is true while an entry is in the works; then the thread is not in the heap.
	busy bool
	at   int // index in the heap, -1 when not in it
}

// lane is what one receiver is owed.
type lane struct {
	name string
	// receiver is nil when it does not exist.
	receiver *meshv1.Receiver
	threads  map[string]*thread
	waiting  threadHeap
	inFlight int
	// failing counts the failures in a row that ought to pass.
	failing int
	// notBefore holds all sending back: the receiver asked for it, or is down.
	notBefore time.Time
}

func newQueue() *queue {
	return &queue{lanes: map[string]*lane{}, items: map[string]*item{}, settled: map[string]int64{}}
}

// standing is the number of entries and when the oldest was written.
func (q *queue) standing() (owed int, oldest time.Time) {
	for _, i := range q.items {
		if t := i.entry.GetCreateTime().AsTime(); oldest.IsZero() || t.Before(oldest) {
			oldest = t
		}
	}
	return len(q.items), oldest
}

func (q *queue) lane(receiver string) *lane {
	l := q.lanes[receiver]
	if l == nil {
		l = &lane{name: receiver, threads: map[string]*thread{}}
		q.lanes[receiver] = l
	}
	return l
}

// put adds an entry, or takes over its new value. now is when a new one may be tried.
func (q *queue) put(e *statev1.OutboxEntry, created int64, now time.Time) {
	if q.settled[e.GetId()] >= created {
		return
	}
	delete(q.settled, e.GetId())
	if held := q.items[e.GetId()]; held != nil {
		if held.created == created {
			// Attempts are the reign's own: what comes back is what it wrote.
			e.Attempts = max(e.GetAttempts(), held.entry.GetAttempts())
			if key := held.entry.GetNotification().GetBreakGlassKey(); key != "" {
				e.Notification.BreakGlassKey = key // so is what it is sent under
			}
			held.entry = e
			return
		}
		q.remove(e.GetId())
	}
	l := q.lane(e.GetNotification().GetReceiver())
	t := l.threads[e.GetNotification().GetIncident()]
	if t == nil {
		t = &thread{lane: l, incident: e.GetNotification().GetIncident(), due: now, at: -1}
		l.threads[t.incident] = t
	}
	i := &item{entry: e, created: created, thread: t}
	q.items[e.GetId()] = i
	at, _ := slices.BinarySearchFunc(t.items, i, func(a, b *item) int {
		if a.entry.GetOrdinal() != b.entry.GetOrdinal() {
			return int(a.entry.GetOrdinal()) - int(b.entry.GetOrdinal())
		}
		return strings.Compare(a.entry.GetId(), b.entry.GetId())
	})
	t.items = slices.Insert(t.items, at, i)
	if at == 0 && len(t.items) > 1 && !t.busy {
		t.due = now
	}
	q.requeue(t)
}

// remove forgets an entry, because the store or the reign deleted it.
func (q *queue) remove(id string) {
	i := q.items[id]
	if i == nil {
		return
	}
	delete(q.items, id)
	i.gone = true
	t := i.thread
	at := slices.Index(t.items, i)
	t.items = slices.Delete(t.items, at, at+1)
	if at == 0 && !t.busy {
		t.due = time.Time{}
	}
	q.requeue(t)
}

// requeue puts a thread where it belongs: into the heap when it waits, out of the lane when it is empty.
func (q *queue) requeue(t *thread) {
	l := t.lane
	switch waits := !t.busy && len(t.items) > 0; {
	case waits && t.at < 0:
		heap.Push(&l.waiting, t)
	case waits:
		heap.Fix(&l.waiting, t.at)
	case t.at >= 0:
		heap.Remove(&l.waiting, t.at)
	}
	if !t.busy && len(t.items) == 0 {
		delete(l.threads, t.incident)
	}
	if len(l.threads) == 0 && l.receiver == nil && l.inFlight == 0 {
		delete(q.lanes, l.name)
	}
}

// setReceiver takes over a receiver, nil when it is gone. Somebody may have mended it: all that waits for it is due now.
func (q *queue) setReceiver(name string, r *meshv1.Receiver, now time.Time) {
	l := q.lane(name)
	l.receiver = r
	l.notBefore, l.failing = time.Time{}, 0
	l.wake(now)
	if r == nil && len(l.threads) == 0 && l.inFlight == 0 {
		delete(q.lanes, name)
	}
}

// wake makes all that waits in the lane due now; what waited longest stays first.
func (l *lane) wake(now time.Time) {
	for _, t := range l.waiting {
		if t.due.After(now) {
			t.due = now
		}
	}
	heap.Init(&l.waiting)
}

// threadHeap orders waiting threads by when they are due, then by age of what they owe.
type threadHeap []*thread

func (h threadHeap) Len() int { return len(h) }
func (h threadHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	a, b := h[i].items[0], h[j].items[0]
	if a.created != b.created {
		return a.created < b.created
	}
	return a.entry.GetId() < b.entry.GetId()
}
func (h threadHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push is for package heap.
func (h *threadHeap) Push(x any) {
	t := x.(*thread)
	t.at = len(*h)
	*h = append(*h, t)
}

// Pop is for package heap.
func (h *threadHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h, t.at = (*h)[:last], -1
	return t
}
