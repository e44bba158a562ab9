package meshtest

import (
	"context"
	"net"
	"sync"
	"time"
)

// network connects the nodes of the mesh: servers, probers, etcd and receivers. Each pair has two ways, one in each direction, and trouble may befall any of them.
// A way that is stalled behaves as one that drops every packet: what is written waits, also the end of a connection, and arrives when the way is open again,
// unless somebody gave up before; new connections are neither made nor refused.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener // by address
	roads     map[[2]string]*road
	troubles  map[string]trouble
	places    map[string]string // the datacenter of each node
}

// trouble is what is wrong with ways.
type trouble struct {
	// on tells which ways it is about.
	on func(from, to string) bool
	// stall lets nothing through; close refuses connections and breaks those that are there; delay is how long everything takes.
	stall, close bool
	delay        time.Duration
}

// road is one direction between two nodes.
type road struct {
	mu      sync.Mutex
	stalled bool
	delay   time.Duration
	halves  map[*half]bool
}

func newNetwork() *network {
	return &network{listeners: map[string]*listener{}, roads: map[[2]string]*road{}, troubles: map[string]trouble{}, places: map[string]string{}}
}

func (r *road) isStalled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stalled
}

func (r *road) lag() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.delay
}

func (r *road) forget(h *half) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.halves, h)
}

func (r *road) list() []*half {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*half, 0, len(r.halves))
	for h := range r.halves {
		all = append(all, h)
	}
	return all
}

// roadLocked is the way between two nodes, as the troubles leave it.
func (n *network) roadLocked(from, to string) *road {
	key := [2]string{from, to}
	r := n.roads[key]
	if r == nil {
		r = &road{halves: map[*half]bool{}}
		n.roads[key] = r
		n.applyLocked(key, r)
	}
	return r
}

func (n *network) applyLocked(key [2]string, r *road) (closed bool) {
	stall, delay := false, time.Duration(0)
	for _, t := range n.troubles {
		if !t.on(key[0], key[1]) {
			continue
		}
		stall, delay, closed = stall || t.stall, max(delay, t.delay), closed || t.close
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stalled, r.delay = stall, delay
	return closed
}

// set makes a trouble, or with nil ends it.
func (n *network) set(name string, t *trouble) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t == nil {
		delete(n.troubles, name)
	} else {
		n.troubles[name] = *t
	}
	for key, r := range n.roads {
		closed := n.applyLocked(key, r)
		for _, h := range r.list() {
			if closed {
				h.end(func() { h.broken = true })
			} else {
				h.wake()
			}
		}
	}
}

// open tells whether both ways between two nodes are free.
func (n *network) open(a, b string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.troubles {
		if (t.on(a, b) || t.on(b, a)) && (t.stall || t.close || t.delay > 0) {
			return false
		}
	}
	return true
}

// stalled tells whether a node is out of reach of some others.
func (n *network) stalled(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.troubles {
		for other := range n.places {
			if other != node && (t.on(node, other) || t.on(other, node)) && n.listeners[address(node)] == nil {
				return true // a prober
			}
			if other != node && t.stall && t.on(node, other) && t.on(other, node) && t.on(node, "etcd") {
				return true
			}
		}
	}
	return false
}

// where is the datacenter of a node.
func (n *network) where(node string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.places[node]
}

// listen takes an address for a process of a node.
func (n *network) listen(node, at string) *listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &listener{node: node, at: at, queue: make(chan net.Conn), done: make(chan struct{})}
	n.listeners[at] = l
	return l
}

// silence has an address refuse connections from now on.
func (n *network) silence(at string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.listeners[at]; l != nil {
		l.Close()
	}
}

// place says in which datacenter a node is.
func (n *network) place(node, datacenter string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.places[node] = datacenter
}

// dialer connects a node with whoever listens at an address.
func (n *network) dialer(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, at string) (net.Conn, error) { return n.dial(ctx, from, at) }
}

func (n *network) dial(ctx context.Context, from, at string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[at]
	if l == nil {
		n.mu.Unlock()
		return nil, errRefused
	}
	there, back := n.roadLocked(from, l.node), n.roadLocked(l.node, from)
	closed := n.applyLocked([2]string{from, l.node}, there)
	closed = n.applyLocked([2]string{l.node, from}, back) || closed
	n.mu.Unlock()
	select {
	case <-l.done:
		if !there.isStalled() && !back.isStalled() {
			return nil, errRefused
		}
	default:
		if closed {
			return nil, errNoRoute
		}
	}
	// The handshake takes a way there and one back; a packet that is lost is sent again.
	for there.isStalled() || back.isStalled() {
		if err := wait(ctx, 500*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if lag := there.lag() + back.lag(); lag > 0 {
		if err := wait(ctx, lag); err != nil {
			return nil, err
		}
	}
	select {
	case <-l.done:
		return nil, errRefused
	default:
	}
	a, b := newHalf(there), newHalf(back)
	for _, x := range []struct {
		r *road
		h *half
	}{{there, a}, {back, b}} {
		x.r.mu.Lock()
		x.r.halves[x.h] = true
		x.r.mu.Unlock()
	}
	client := &conn{in: b, out: a, local: place(from), remote: place(at)}
	server := &conn{in: a, out: b, local: place(at), remote: place(from)}
	if !l.offer(ctx, server) {
		client.Close()
		server.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, errRefused
	}
	return client, nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// between are the ways between nodes, both ways; of both or neither of which in says yes are none.
func between(in func(node string) bool) func(from, to string) bool {
	return func(from, to string) bool { return in(from) != in(to) }
}

// one is a node.
func one(node string) func(string) bool { return func(n string) bool { return n == node } }

// partition cuts a node off from all others, or lets it back: its connections break, and new ones find no way.
func (n *network) partition(node string, cut bool) {
	var t *trouble
	if cut {
		t = &trouble{on: between(one(node)), close: true}
	}
	n.set("partition "+node, t)
}
