package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	"github.com/probemesh/probemesh/server/store"
)

// Store is what deliveries rest on; *store.Store is one. Its methods are called concurrently.
type Store interface {
	// Follow hands over the state and then every change, in order, until ctx ends or f fails.
	Follow(ctx context.Context, f func(context.Context, store.Batch) error) error
	// SettleOutbox deletes an entry and changes its incident, in one transaction; change may run several times. An entry or incident that is gone is
	// no error.
	SettleOutbox(ctx context.Context, fence store.Fence, id, incident string, change func(*statev1.StoredIncident) error) error
	// DeleteOutbox deletes an entry; one that is gone already is no error.
	DeleteOutbox(ctx context.Context, fence store.Fence, id string) error
	// UpdateOutbox replaces an entry that exists.
	UpdateOutbox(ctx context.Context, fence store.Fence, e *statev1.OutboxEntry) error
	// AmendIncident changes an incident, open or resolved; change may run several times.
	AmendIncident(ctx context.Context, fence *store.Fence, name string, change func(*statev1.StoredIncident) error) (store.Versioned[*statev1.StoredIncident], error)
}

// Config is what a notifier may be told. The zero value is good.
type Config struct {
	// MaxInFlight is how many entries are in the works at once. 1 to 1,000; default 64. The half of them that may go to
	// receivers with several under way makes 320 a second when an answer takes 100 ms.
	MaxInFlight int
	// PerReceiver is how many of them may be for one receiver. 1 to MaxInFlight; default 8, or MaxInFlight when that is less.
	PerReceiver int
	// Grace is how long requests under way may go on after the reign has ended, so that an answer is still recorded. At most 1s; default 200ms, since
	// the next leader waits for it when the reign ends by resigning, and is to have decided within 300 ms. Negative: none.
	Grace time.Duration
	// Dial opens the connections to receivers, within the receiver's timeout. Default: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Hold tells of the OPENED of a check's incident, written at a revision of the store, for how long it is to wait before it is asked about again, 0 for not at all:
	// people may just have been told of it without etcd, or be told so next. revision is what this notifier must know of the store before it sends, 0 for any. It is asked before each attempt and must
	// not block. Default: nothing is held.
	Hold func(check string, written int64) (wait time.Duration, revision int64)
	// OutageKey gives the break-glass key of an incident of a check that has taken in what was due without etcd, though its OPENED was written before; else empty. It is asked before the first
	// attempt of such an OPENED and must not block; later ones keep the key of the first. Default: there is none.
	OutageKey func(check, incident string) string
	// Seed makes the pauses between attempts repeatable. Default: chance.
	Seed uint64
	// Log gets deliveries (Info), failures that differ from the one before, and drops (Warn). Default: nothing is logged.
	Log *slog.Logger
	// Meter gets the metrics of metrics.go. Default: none.
	Meter metric.Meter
	// Tracer makes a span of each attempt. Default: none.
	Tracer trace.Tracer
}

// Validate lists every fault of the configuration; it takes 0 for the default.
func (c Config) Validate() error {
	var faults []error
	if c.MaxInFlight < 0 || c.MaxInFlight > 1000 {
		faults = append(faults, fmt.Errorf("max_in_flight %d is not between 1 and 1000", c.MaxInFlight))
	}
	if c.PerReceiver < 0 || (c.MaxInFlight > 0 && c.PerReceiver > c.MaxInFlight) {
		faults = append(faults, fmt.Errorf("per_receiver %d is not between 1 and max_in_flight (%d)", c.PerReceiver, c.MaxInFlight))
	}
	if c.Grace > time.Second {
		faults = append(faults, fmt.Errorf("grace %s is above 1s: it would hold up the next leader", c.Grace))
	}
	return errors.Join(faults...)
}

// withDefaults resolves what is unset.
func (c Config) withDefaults() Config {
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 64
	}
	if c.PerReceiver == 0 {
		c.PerReceiver = 8
	}
	c.PerReceiver = min(c.PerReceiver, c.MaxInFlight)
	if c.Grace == 0 {
		c.Grace = 200 * time.Millisecond
	}
	c.Grace = max(c.Grace, 0)
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: spec.MaxWebhookTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Meter == nil {
		c.Meter = metricnoop.Meter{}
	}
	if c.Tracer == nil {
		c.Tracer = tracenoop.Tracer{}
	}
	return c
}

// Notifier delivers the outbox while this server leads, and tests whenever asked. Make one with New; it needs no closing.
type Notifier struct {
	store  Store
	cfg    Config
	sender sender
	m      *metrics

	mu sync.Mutex
	// reign is the one under way, for the gauges; nil between reigns. Guarded by mu.
	reign *reign
}

// New makes a notifier over the store; it starts nothing. The error lists the faults of the configuration.
func New(s Store, cfg Config) (*Notifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	n := &Notifier{store: s, cfg: cfg, sender: newWebhooks(cfg.Dial)}
	var err error
	if n.m, err = newMetrics(cfg.Meter, n.standing); err != nil {
		return nil, fmt.Errorf("make the metrics of notify: %w", err)
	}
	return n, nil
}

// Run delivers what the outbox owes under the reign of fence, until ctx ends: then it gives requests under way Config.Grace and returns nil. It
// returns an error that matches store.ErrFenced as soon as a write shows that the reign is over, and any other error that ended the following of
// the store. In every case all its goroutines have ended. One Run at a time.
func (n *Notifier) Run(ctx context.Context, fence store.Fence) error {
	r := newReign(n, fence)
	n.setReign(r)
	defer func() {
		n.setReign(nil)
		n.sender.idle()
	}()
	return r.run(ctx)
}

func (n *Notifier) setReign(r *reign) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reign = r
}

// standing is how many entries are owed and when the oldest of them was written; zero when nothing is owed or another server leads.
func (n *Notifier) standing() (owed int, oldest time.Time) {
	n.mu.Lock()
	r := n.reign
	n.mu.Unlock()
	if r == nil {
		return 0, time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queue.standing()
}
