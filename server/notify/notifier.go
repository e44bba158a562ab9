package notify

import (
	"container/heap"
	"context"
	"log/slog"
	"math/rand/v2"
	"sort"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// Store is what of *store.Store the delivery needs.
type Store interface {
	AmendIncident(ctx context.Context, fence *store.Fence, name string, change func(*statev1.StoredIncident) error) (store.Versioned[*statev1.StoredIncident], error)
	UpdateOutbox(ctx context.Context, fence store.Fence, e *statev1.OutboxEntry) error
	SettleOutbox(ctx context.Context, fence store.Fence, id, incident string, change func(*statev1.StoredIncident) error) error
}

// Config bounds the delivery. The zero value is good.
type Config struct {
	// Concurrency is how many deliveries may be under way at once. Default 64.
	Concurrency int
	// PerReceiver is how many of them may go to one receiver. Default 8.
	PerReceiver int
	// Grace is how long deliveries under way may go on when a reign ends, so that a graceful stop does not cut an answer off. Default 200ms:
	// the next leader is to have begun within 300 ms.
	Grace time.Duration
	// Seed seeds the jitter of retries; 0 takes one from the clock.
	Seed uint64
	// Log, Meter and Tracer get what the package has to say. Default: nothing.
	Log    *slog.Logger
	Meter  metric.Meter
	Tracer trace.Tracer
}

// ReceiverState is what is known of a receiver besides its configuration: what the API shows as output-only fields.
type ReceiverState struct {
	// Owed is how many notifications it has not got yet.
	Owed int
	// LastError is the error of the last attempt, empty after a success. Only the server that leads, or led, knows it.
	LastError string
	// LastDelivery is when a notification was last delivered; zero if never by this server.
	LastDelivery time.Time
}

// Notifier delivers notifications. Its methods may be called concurrently; Run only once at a time.
type Notifier struct {
	store  Store
	sender Sender
	cfg    Config
	log    *slog.Logger
	m      *metrics
	tracer trace.Tracer
	wake   chan struct{} // has one element when there may be something to do

	// mu guards everything below.
	mu        sync.Mutex
	synced    bool
	entries   map[string]*item
	receivers map[string]*receiver
	settled   map[string]bool // entries this server deleted, whose deletion the feed has not told of yet
	inflight  int
	rng       *rand.Rand
}

// receiver is one receiver and what it is owed.
type receiver struct {
	name     string
	spec     *meshv1.Receiver // nil: it does not exist
	lanes    map[string]*lane // by incident
	waiting  laneHeap         // lanes that are not busy
	inflight int
	state    ReceiverState
}

// lane is what one receiver is owed of one incident, in order.
type lane struct {
	to       *receiver
	incident string
	items    []*item
	busy     bool
	index    int // in the receiver's heap, -1 when not there
}

// item is one notification owed.
type item struct {
	entry    *statev1.OutboxEntry
	lane     *lane
	attempts int
	next     time.Time // not before
	failure  string    // the last error that was recorded in this reign
	records  int       // failures recorded in this reign
	verdict  *ending   // set once the receiver answered or it was given up, until that is in the store
}

// New makes a notifier. sender is usually NewWebhook's.
func New(s Store, sender Sender, cfg Config) *Notifier {
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = 64
	}
	if cfg.PerReceiver <= 0 {
		cfg.PerReceiver = 8
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 200 * time.Millisecond
	}
	if cfg.Seed == 0 {
		cfg.Seed = uint64(time.Now().UnixNano())
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Meter == nil {
		cfg.Meter = noop.Meter{}
	}
	if cfg.Tracer == nil {
		cfg.Tracer = tracenoop.Tracer{}
	}
	n := &Notifier{store: s, sender: sender, cfg: cfg, log: cfg.Log, tracer: cfg.Tracer, wake: make(chan struct{}, 1),
		entries: map[string]*item{}, receivers: map[string]*receiver{}, settled: map[string]bool{}, rng: rand.New(rand.NewPCG(cfg.Seed, 0))}
	n.m = newMetrics(cfg.Meter, n.owed)
	return n
}

// Replace sets everything that is owed and every receiver; what is not given is gone.
func (n *Notifier) Replace(entries []*statev1.OutboxEntry, receivers []*meshv1.Receiver) {
	n.mu.Lock()
	defer n.poke()
	defer n.mu.Unlock()
	n.synced = true
	kept := make(map[string]bool, len(entries))
	for _, e := range entries {
		kept[e.GetId()] = true
	}
	for id := range n.entries {
		if !kept[id] {
			n.removeLocked(id)
		}
	}
	for id := range n.settled {
		if !kept[id] {
			delete(n.settled, id)
		}
	}
	for _, r := range n.receivers {
		r.spec = nil
	}
	for _, r := range receivers {
		n.receiverLocked(r.GetName()).spec = r
	}
	for _, e := range entries {
		n.putLocked(e)
	}
}

// Put tells of an entry that is new or changed.
func (n *Notifier) Put(e *statev1.OutboxEntry) {
	n.mu.Lock()
	defer n.poke()
	defer n.mu.Unlock()
	n.putLocked(e)
}

// Gone tells that an entry was deleted.
func (n *Notifier) Gone(id string) {
	n.mu.Lock()
	defer n.poke()
	defer n.mu.Unlock()
	delete(n.settled, id)
	n.removeLocked(id)
}

// PutReceiver tells of a receiver that is new or changed. Retries of what it is owed are brought forward: the change may have mended it.
func (n *Notifier) PutReceiver(spec *meshv1.Receiver) {
	n.mu.Lock()
	defer n.poke()
	defer n.mu.Unlock()
	r := n.receiverLocked(spec.GetName())
	r.spec = spec
	n.hurryLocked(r)
}

// GoneReceiver tells that a receiver was deleted: what it is owed will be dropped.
func (n *Notifier) GoneReceiver(name string) {
	n.mu.Lock()
	defer n.poke()
	defer n.mu.Unlock()
	r := n.receiverLocked(name)
	r.spec = nil
	n.hurryLocked(r)
}

// State is what is known of a receiver.
func (n *Notifier) State(name string) ReceiverState {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.receivers[name]
	if r == nil {
		return ReceiverState{}
	}
	s := r.state
	s.Owed = 0
	for _, l := range r.lanes {
		s.Owed += len(l.items)
	}
	return s
}

// owed is how much is owed, and since when the oldest.
func (n *Notifier) owed() (count int, oldest time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, it := range n.entries {
		if t := it.entry.GetCreateTime().AsTime(); oldest.IsZero() || t.Before(oldest) {
			oldest = t
		}
	}
	return len(n.entries), oldest
}

func (n *Notifier) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *Notifier) receiverLocked(name string) *receiver {
	r := n.receivers[name]
	if r == nil {
		r = &receiver{name: name, lanes: map[string]*lane{}}
		n.receivers[name] = r
	}
	return r
}

func (n *Notifier) putLocked(e *statev1.OutboxEntry) {
	if n.settled[e.GetId()] {
		return // an echo of before its deletion
	}
	if it := n.entries[e.GetId()]; it != nil {
		it.entry = e
		return
	}
	r := n.receiverLocked(e.GetNotification().GetReceiver())
	l := r.lanes[e.GetNotification().GetIncident()]
	if l == nil {
		l = &lane{to: r, incident: e.GetNotification().GetIncident(), index: -1}
		r.lanes[l.incident] = l
	}
	it := &item{entry: e, lane: l, attempts: int(e.GetAttempts())}
	n.entries[e.GetId()] = it
	l.items = append(l.items, it)
	head := l.items[0]
	sort.SliceStable(l.items, func(i, j int) bool { return l.items[i].entry.GetOrdinal() < l.items[j].entry.GetOrdinal() })
	if l.busy && l.items[0] != head {
		// What is under way stays the head: it cannot be called back.
		n.log.Warn("notification arrived after one with a higher ordinal was begun", "incident", l.incident, "receiver", r.name)
	}
	n.restLocked(l)
}

// removeLocked forgets an entry.
func (n *Notifier) removeLocked(id string) {
	it := n.entries[id]
	if it == nil {
		return
	}
	delete(n.entries, id)
	l := it.lane
	for i, x := range l.items {
		if x == it {
			l.items = append(l.items[:i:i], l.items[i+1:]...)
			break
		}
	}
	n.restLocked(l)
}

// restLocked puts a lane where it belongs: into the heap by the time of its head, or away when it is busy or empty.
func (n *Notifier) restLocked(l *lane) {
	if l.busy || len(l.items) == 0 {
		if l.index >= 0 {
			heap.Remove(&l.to.waiting, l.index)
		}
		if !l.busy && len(l.items) == 0 {
			delete(l.to.lanes, l.incident)
		}
		return
	}
	if l.index >= 0 {
		heap.Fix(&l.to.waiting, l.index)
		return
	}
	heap.Push(&l.to.waiting, l)
}

// hurryLocked makes everything waiting for a receiver due.
func (n *Notifier) hurryLocked(r *receiver) {
	for _, l := range r.lanes {
		for _, it := range l.items {
			it.next = time.Time{}
		}
		n.restLocked(l)
	}
}

// laneHeap orders lanes by when their heads are due.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].items[0].next.Before(h[j].items[0].next) }
func (h laneHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is heap.Interface's.
func (h *laneHeap) Push(x any) {
	l := x.(*lane)
	l.index = len(*h)
	*h = append(*h, l)
}

// Pop is heap.Interface's.
func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	*h, l.index = old[:len(old)-1], -1
	return l
}
