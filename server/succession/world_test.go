package succession

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/probemesh/probemesh/internal/etcdfake"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/peer"
	"github.com/probemesh/probemesh/server/store"
)

// mesh is several servers with an etcd, and the beats between them, in a bubble.
type mesh struct {
	t    *testing.T
	etcd *etcdfake.Server

	mu      sync.Mutex
	servers map[string]*node
	cut     map[[2]string]bool // beats from, to
	reigns  chan win
}

// win is a reign that began.
type win struct {
	server string
	election.Reign
	at time.Time
}

// node is one server: its election, its succession, and what it makes of the others.
type node struct {
	m      *mesh
	name   string
	boot   string
	link   *etcdfake.Link
	elect  *election.Election
	succ   *Succession
	stop   func()
	cancel func()
	ended  chan error

	mu      sync.Mutex
	views   map[string]peer.View
	changed chan struct{}
	hears   int
	waiting time.Duration // of its oldest write
	frozen  bool          // it neither sends nor takes beats
}

func newMesh(t *testing.T, names ...string) *mesh {
	m := &mesh{t: t, etcd: etcdfake.New(t), servers: map[string]*node{}, cut: map[[2]string]bool{}, reigns: make(chan win, 1000)}
	for _, n := range names {
		m.start(n, n+"1", Config{})
	}
	return m
}

// start starts a server. Its disk never hangs unless a test says so.
func (m *mesh) start(name, boot string, cfg Config) *node {
	client, link := m.etcd.Link(m.t)
	n := &node{m: m, name: name, boot: boot, link: link, views: map[string]peer.View{}, changed: make(chan struct{}), hears: 5, ended: make(chan error, 100)}
	cfg.Server = "servers/" + name
	var err error
	n.succ, err = New(cfg, Deps{
		Hears:       func() int { n.mu.Lock(); defer n.mu.Unlock(); return n.hears },
		Uncommitted: func() time.Duration { n.mu.Lock(); defer n.mu.Unlock(); return n.waiting },
		Read:        func(ctx context.Context) error { _, err := client.Get(ctx, store.TermKey); return err },
		Log:         slog.New(slog.DiscardHandler), Meter: noop.Meter{},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	n.elect = election.New(client, election.Config{Server: cfg.Server, BootID: boot, MayStand: n.succ.MayStand})
	n.run()
	m.mu.Lock()
	m.servers[name] = n
	m.mu.Unlock()
	return n
}

func (n *node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = n.elect.Run(ctx, func(ctx context.Context, r election.Reign) error {
			n.m.reigns <- win{n.name, r, time.Now()}
			<-ctx.Done()
			n.ended <- context.Cause(ctx)
			return nil
		})
	})
	wg.Go(func() { _ = n.succ.Run(ctx, n.elect, n) })
	wg.Go(func() { n.beat(ctx) })
	n.stop = func() { cancel(); wg.Wait() }
	n.cancel = cancel
	n.m.t.Cleanup(n.stop)
}

// beat sends a beat to everybody every 200 ms.
func (n *node) beat(ctx context.Context) {
	t := time.NewTicker(peer.BeatEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		n.m.mu.Lock()
		for to, other := range n.m.servers {
			if to != n.name && !n.m.cut[[2]string{n.name, to}] {
				other.take(n)
			}
		}
		n.m.mu.Unlock()
	}
}

// say is a server's beat, nil when it sends none.
func (n *node) say() *peerv1.Beat {
	b := &peerv1.Beat{}
	n.succ.Fill(b)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frozen {
		return nil
	}
	b.Hears = int32(n.hears)
	for _, v := range n.views {
		if v.Missed(time.Now()) || v.Refused {
			b.Missed = append(b.Missed, &peerv1.Missed{Server: v.Server, BootId: v.BootID, Refused: v.Refused})
		}
	}
	return b
}

func (n *node) take(from *node) {
	b := from.say()
	n.mu.Lock()
	defer n.mu.Unlock()
	if b == nil || n.frozen {
		return
	}
	v := n.views[from.name]
	if v.Since.IsZero() {
		v.Since = time.Now().Add(-time.Millisecond)
	}
	v.Server, v.BootID, v.Heard, v.Beat, v.Refused = "servers/"+from.name, from.boot, time.Now(), b, false
	n.set(from.name, v)
}

func (n *node) set(name string, v peer.View) {
	n.views[name] = v
	close(n.changed)
	n.changed = make(chan struct{})
}

// Views implements Peers.
func (n *node) Views() []peer.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []peer.View
	for _, v := range n.views {
		list = append(list, v)
	}
	return list
}

// Changed implements Peers.
func (n *node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// Beat implements Peers: here they are sent every 200 ms and not before.
func (n *node) Beat() {}

// kill takes a server away as SIGKILL does: its lease stays, its address refuses connections.
func (m *mesh) kill(name string) {
	m.mu.Lock()
	n := m.servers[name]
	delete(m.servers, name)
	m.mu.Unlock()
	n.link.Cut()
	m.mu.Lock()
	for _, other := range m.servers {
		other.mu.Lock()
		v := other.views[name]
		v.Refused = true
		other.set(name, v)
		other.mu.Unlock()
	}
	m.mu.Unlock()
	n.cancel() // its resignation reaches nobody
}

// freeze stops a server as SIGSTOP does, as far as others see: no beats, and no answer of etcd reaches it.
func (m *mesh) freeze(name string, yes bool) {
	m.mu.Lock()
	n := m.servers[name]
	m.mu.Unlock()
	n.mu.Lock()
	n.frozen = yes
	n.mu.Unlock()
	if yes {
		n.link.Cut()
	} else {
		n.link.Mend()
	}
}

func (m *mesh) next(within time.Duration) win {
	m.t.Helper()
	select {
	case w := <-m.reigns:
		return w
	case <-time.After(within):
		m.t.Fatalf("nobody leads within %s", within)
		panic("unreachable")
	}
}

// others are the servers but one.
func (m *mesh) others(name string) []*node {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*node
	for n, x := range m.servers {
		if n != name {
			list = append(list, x)
		}
	}
	return list
}

func (m *mesh) node(name string) *node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.servers[name]
}
