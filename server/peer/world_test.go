package peer

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/rpc"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/history"
)

// world is a mesh of servers in a bubble: a network, and a store that is a list.
type world struct {
	t    *testing.T
	ctx  context.Context
	dir  string
	anew bool // journals are new, and keep everything at first

	mu        sync.Mutex // guards everything below
	records   []*statev1.ServerRecord
	changed   chan struct{}
	hosts     map[string]*host        // by name
	histories map[string]*fakeHistory // likewise; they outlive restarts
	cuts      map[[2]string]*valve
}

func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := &world{t: t, ctx: ctx, dir: dir, changed: make(chan struct{}), hosts: map[string]*host{}, histories: map[string]*fakeHistory{}, cuts: map[[2]string]*valve{}}
		defer w.end()
		f(w)
	})
}

func (w *world) end() {
	for _, v := range w.cuts {
		v.open()
	}
	for _, h := range w.histories {
		h.release()
	}
	for _, h := range w.hosts {
		h.kill()
	}
}

// valve lets bytes of one direction between two servers through, or holds them up.
type valve struct {
	mu     sync.Mutex
	closed chan struct{} // nil: open
	conns  map[net.Conn]struct{}
}

func (v *valve) wait() {
	v.mu.Lock()
	c := v.closed
	v.mu.Unlock()
	if c != nil {
		<-c
	}
}

func (v *valve) shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed == nil {
		v.closed = make(chan struct{})
	}
}

func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed != nil {
		close(v.closed)
		v.closed = nil
	}
}

// valve of the bytes from one server to another, by names.
func (w *world) valve(from, to string) *valve {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := [2]string{from, to}
	if w.cuts[k] == nil {
		w.cuts[k] = &valve{conns: map[net.Conn]struct{}{}}
	}
	return w.cuts[k]
}

// wire is the dialer's end of a connection.
type wire struct {
	net.Conn
	in, out *valve
}

func (c *wire) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.in.wait()
	return n, err
}

func (c *wire) Write(b []byte) (int, error) {
	c.out.wait()
	return c.Conn.Write(b)
}

// sever breaks every connection that the first server has opened to the second.
func (w *world) sever(from, to string) {
	v := w.valve(from, to)
	v.mu.Lock()
	defer v.mu.Unlock()
	for c := range v.conns {
		c.Close()
	}
	clear(v.conns)
}

func (w *world) publish(h *host, listed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records = slices.DeleteFunc(slices.Clone(w.records), func(r *statev1.ServerRecord) bool { return r.GetName() == h.peers.name })
	if listed {
		w.records = append(w.records, &statev1.ServerRecord{Name: h.peers.name, Datacenter: "dc-" + h.name, GrpcAddress: h.name + ":7700", BootId: h.boot})
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// host is one server. It is its controller too.
type host struct {
	w       *world
	name    string
	boot    string
	peers   *Peers
	history *fakeHistory
	server  *grpc.Server
	socket  *bufconn.Listener
	stop    context.CancelFunc
	ended   chan error
	cut     bool // it cannot see the store

	mu        sync.Mutex // guards everything below
	presences map[string]*peerv1.Presence
	newest    map[string]*meshv1.Result
	heard     map[string]map[string]bool           // probers, by server
	votes     map[string]map[string]*meshv1.Result // the newest by prober and check, by server
	count     int
	snapshots int
	silent    []string
	refusals  []string
	runs      []string
	sessions  map[string]bool
}

// start starts a server; options change its configuration.
func (w *world) start(name, boot string, options ...func(*Config, *Deps)) *host {
	w.t.Helper()
	h := &host{w: w, name: name, boot: boot, history: &fakeHistory{taken: map[string]int{}}, presences: map[string]*peerv1.Presence{}, newest: map[string]*meshv1.Result{},
		heard: map[string]map[string]bool{}, votes: map[string]map[string]*meshv1.Result{}, sessions: map[string]bool{}, ended: make(chan error, 1)}
	if old := w.histories[name]; old != nil {
		h.history = old
	}
	w.histories[name] = h.history
	cfg := Config{Server: name, BootID: boot, Datacenter: "dc-" + name, Dir: filepath.Join(w.dir, name)}
	deps := Deps{Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)), Meter: noop.Meter{}, History: h.history,
		Dial: func(address string) (*grpc.ClientConn, error) { return w.dial(name, address) }}
	for _, o := range options {
		o(&cfg, &deps)
	}
	p, err := New(cfg, deps)
	if err != nil {
		w.t.Fatal(err)
	}
	if !w.anew {
		p.fresh = time.Time{} // the tests look at what a journal lets go of; how long a new one keeps all is another matter
	}
	h.peers = p
	h.socket = bufconn.Listen(256 << 10)
	h.server, _ = rpc.NewServer(rpc.Config{}, deps.Log, noop.Meter{})
	p.Register(h.server)
	go h.server.Serve(h.socket)
	ctx, cancel := context.WithCancel(w.ctx)
	h.stop = cancel
	go func() { h.ended <- p.Run(ctx, h) }()
	w.mu.Lock()
	w.hosts[name] = h
	w.mu.Unlock()
	w.publish(h, true)
	return h
}

// kill ends a server at once; what it has on its disk stays.
func (h *host) kill() {
	h.w.mu.Lock()
	if h.w.hosts[h.name] == h {
		delete(h.w.hosts, h.name)
	}
	h.w.mu.Unlock()
	h.socket.Close()
	h.server.Stop()
	h.stop()
	if h.ended != nil {
		<-h.ended
		h.ended = nil
	}
}

func (w *world) dial(from, address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(StreamWindow), grpc.WithInitialConnWindowSize(ConnectionWindow),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			to, _, _ := net.SplitHostPort(address)
			out, in := w.valve(from, to), w.valve(to, from)
			w.mu.Lock()
			h := w.hosts[to]
			w.mu.Unlock()
			if h == nil {
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			for _, v := range []*valve{out, in} {
				v.mu.Lock()
				closed := v.closed
				v.mu.Unlock()
				if closed != nil {
					select {
					case <-closed:
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
			}
			conn, err := h.socket.DialContext(ctx)
			if err != nil {
				return nil, err
			}
			c := &wire{Conn: conn, in: in, out: out}
			out.mu.Lock()
			out.conns[c] = struct{}{}
			out.mu.Unlock()
			return c, nil
		}))
}

// A host is the Mesh of its peers.

func (h *host) Servers() ([]*statev1.ServerRecord, <-chan struct{}) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.cut {
		return nil, h.w.changed
	}
	return h.w.records, h.w.changed
}

func (h *host) Local() ([]*peerv1.Presence, []*meshv1.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var presences []*peerv1.Presence
	var results []*meshv1.Result
	for _, p := range h.presences {
		presences = append(presences, p)
	}
	for _, r := range h.newest {
		results = append(results, r)
	}
	return presences, results
}

func (h *host) PeerPresences(server string, snapshot bool, presences []*peerv1.Presence) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if snapshot || h.heard[server] == nil {
		h.heard[server] = map[string]bool{}
	}
	if snapshot {
		h.snapshots++
	}
	for _, p := range presences {
		if p.GetGone() {
			delete(h.heard[server], p.GetProber())
			continue
		}
		h.heard[server][p.GetProber()] = true
	}
}

func (h *host) PeerVotes(server string, results []*meshv1.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.votes[server] == nil {
		h.votes[server] = map[string]*meshv1.Result{}
	}
	for _, r := range results {
		h.count++
		k := r.GetProber() + " " + r.GetCheck()
		if old := h.votes[server][k]; old == nil || old.GetSequence() < r.GetSequence() {
			h.votes[server][k] = r
		}
	}
}

func (h *host) PeerSilent(server string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = append(h.silent, server)
	delete(h.heard, server)
}

func (h *host) PeerRefusal(prober, runID, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refusals = append(h.refusals, prober+" "+runID+" "+reason)
}

func (h *host) RunHere(prober string, run *meshv1.RunNow) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.sessions[prober] {
		return false
	}
	h.runs = append(h.runs, prober+" "+run.GetRunId())
	return true
}

// told is what a host was told so far.
type told struct {
	silent, refusals, runs []string
	snapshots, count       int
}

func (h *host) told() told {
	h.mu.Lock()
	defer h.mu.Unlock()
	return told{silent: slices.Clone(h.silent), refusals: slices.Clone(h.refusals), runs: slices.Clone(h.runs), snapshots: h.snapshots, count: h.count}
}

// What happens at a host.

func (h *host) attach(prober string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &peerv1.Presence{Prober: prober, BootId: "b"}
	h.presences[prober] = p
	h.peers.Presence(proto.CloneOf(p))
}

func (h *host) detach(prober string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.presences, prober)
	h.peers.Presence(&peerv1.Presence{Prober: prober, Gone: true})
}

// results makes results of a prober, with the numbers from and to.
func results(prober, check string, from, to int) []*meshv1.Result {
	var all []*meshv1.Result
	for i := from; i <= to; i++ {
		all = append(all, &meshv1.Result{Prober: "probers/" + prober, Check: "checks/" + check, Sequence: uint64(i), Outcome: meshv1.Result_OK,
			StartTime: timestamppb.New(time.Unix(1_700_000_000+int64(i), 0))})
	}
	return all
}

// cast is results that come in: votes.
func (h *host) cast(list []*meshv1.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range list {
		h.newest[r.GetProber()+" "+r.GetCheck()] = r
	}
	h.peers.Votes(list)
}

// file is results that come in: for the history.
func (h *host) file(list []*meshv1.Result) {
	h.w.t.Helper()
	var entries []history.Entry
	for _, r := range list {
		entries = append(entries, history.Entry{Result: r, Prober: r.GetProber()[len("probers/"):], Datacenter: "dc", URI: "https://x"})
	}
	if err := h.peers.Append(context.Background(), entries); err != nil {
		h.w.t.Error(err)
	}
}

// sees tells what a host knows of another one's prober and check.
func (h *host) sees(server, prober, check string) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.votes["servers/"+server]["probers/"+prober+" checks/"+check].GetSequence()
}

func (h *host) hears(server string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for p := range h.heard["servers/"+server] {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

func (h *host) view(server string) View {
	for _, v := range h.peers.Views() {
		if v.Server == "servers/"+server {
			return v
		}
	}
	return View{}
}
