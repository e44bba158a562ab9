package meshtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/prober/probe"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/history"
	"github.com/probemesh/probemesh/server/store"
)

// network connects probers to servers by address; each prober's way can be cut.
type network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
	cut       map[string]bool
	conns     map[string][]net.Conn
}

func (n *network) dialer(who string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		n.mu.Lock()
		l := n.listeners[address]
		cut := n.cut[who] || n.cut[who+">"+address]
		n.mu.Unlock()
		if l == nil || cut {
			return nil, errors.New("connection refused")
		}
		c, err := l.DialContext(ctx)
		if err == nil {
			n.mu.Lock()
			n.conns[who] = append(n.conns[who], c)
			n.conns[who+">"+address] = append(n.conns[who+">"+address], c)
			n.mu.Unlock()
		}
		return c, err
	}
}

// partition cuts a prober or server off from those that it calls, or from one of them ("fra-1>a:7700"), or lets it back.
func (n *network) partition(who string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[who] = cut
	if cut {
		for _, c := range n.conns[who] {
			c.Close()
		}
		n.conns[who] = nil
	}
}

// isolate cuts a server off from the other servers, or lets it back; probers and etcd reach it all the time.
func (n *network) isolate(server string, cut bool) {
	n.partition("server "+server, cut)
	for other := range homes {
		n.partition("server "+other+">"+address(server), cut)
	}
}

// target is what probes meet.
type target struct {
	mu     sync.Mutex
	down   map[string]bool // by check, or check@datacenter
	probed map[string]time.Time
}

func (g *target) set(key string, down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down[key] = down
}

type runner struct {
	g                  *target
	prober, datacenter string
	check              *meshv1.Check
}

// Probe takes 10 ms.
func (r *runner) Probe(ctx context.Context, _ probe.Options) *meshv1.Result {
	start := time.Now()
	name := r.check.GetName()
	res := &meshv1.Result{Check: name, StartTime: timestamppb.New(start), Outcome: meshv1.Result_OK}
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
		res.Outcome = meshv1.Result_ERROR
		return res
	}
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	if r.g.down[name] || r.g.down[name+"@"+r.datacenter] {
		res.Outcome, res.ErrorClass, res.Error = meshv1.Result_FAIL, meshv1.Result_CONNECTION_REFUSED, "connection refused"
	}
	res.Duration = durationpb.New(time.Since(start))
	r.g.probed[key(r.prober, name, start)] = start
	return res
}

func (r *runner) Close() {}

// count is how many probes there were.
func (g *target) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.probed)
}

func key(prober, check string, start time.Time) string {
	return fmt.Sprint(prober, " ", check, " ", start.UnixNano())
}

// archive is the history of one server.
type archive struct {
	mu      sync.Mutex
	have    map[string]bool
	stalled chan struct{}
}

func (a *archive) Append(_ context.Context, entries []history.Entry) error {
	a.mu.Lock()
	stalled := a.stalled
	a.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range entries {
		a.have[key(e.Prober, e.Result.GetCheck(), e.Result.GetStartTime().AsTime())] = true
	}
	return nil
}

func (a *archive) stall(yes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case yes && a.stalled == nil:
		a.stalled = make(chan struct{})
	case !yes && a.stalled != nil:
		close(a.stalled)
		a.stalled = nil
	}
}

// inbox is the receiver: it knows idempotency keys.
type inbox struct {
	mu   sync.Mutex
	seen []delivery
}

type delivery struct {
	key string
	at  time.Time
	n   *meshv1.Notification
}

func (b *inbox) take(d delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range b.seen {
		if x.key == d.key {
			return
		}
	}
	b.seen = append(b.seen, d)
}

// of gives what came of a check, or of the mesh with an empty name, oldest first.
func (b *inbox) of(check string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, d := range b.seen {
		if d.n.GetCheck() == check {
			out = append(out, d.n.GetTransition().String())
		}
	}
	return out
}

func (b *inbox) all() []delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.seen)
}

// courier delivers what the outbox owes, in order, fenced.
type courier struct {
	s   *store.Store
	box *inbox
}

func (c courier) Run(ctx context.Context, fence store.Fence) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
		owed, _, err := c.s.ListOutbox(ctx)
		if err != nil {
			continue
		}
		slices.SortFunc(owed, func(a, b store.Versioned[*statev1.OutboxEntry]) int {
			return int(a.Value.GetOrdinal() - b.Value.GetOrdinal())
		})
		for _, o := range owed {
			c.box.take(delivery{o.Value.GetId(), time.Now(), o.Value.GetNotification()})
			if err := c.s.DeleteOutbox(ctx, fence, o.Value.GetId()); errors.Is(err, store.ErrFenced) {
				return err
			}
		}
	}
}
