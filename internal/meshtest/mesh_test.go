package meshtest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/etcdfake"
	"github.com/probemesh/probemesh/internal/rpc"
	"github.com/probemesh/probemesh/prober"
	"github.com/probemesh/probemesh/prober/probe"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/controller"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/gateway"
	"github.com/probemesh/probemesh/server/peer"
	"github.com/probemesh/probemesh/server/store"
)

// mesh is everything, in a bubble.
type mesh struct {
	t       *testing.T
	etcd    *etcdfake.Server
	admin   *store.Store
	net     *network
	target  *target
	box     *inbox
	servers map[string]*server
	probers map[string]*agent
	boots   int
	lacked  string // a probe that missing did not find
	log     *slog.Logger
}

// server is one boot of a server.
type server struct {
	name    string
	link    *etcdfake.Link
	c       *controller.Controller
	archive *archive
	peers   *peer.Peers
	dir     string // of its peers: the journal outlives the process
	rpc     *grpc.Server
	cancel  context.CancelFunc
	group   sync.WaitGroup
	dead    bool

	// mu guards the connection to etcd being cut.
	mu  sync.Mutex
	cut bool
}

// cutOff cuts the server off from etcd, or lets it back.
func (s *server) cutOff(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = yes
	if yes {
		s.link.Cut()
	} else {
		s.link.Mend()
	}
}

// agent is one boot of a prober.
type agent struct {
	p      *prober.Prober
	cancel context.CancelFunc
	done   chan error
	dir    string
}

func inMesh(t *testing.T, f func(m *mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &mesh{t: t, etcd: etcdfake.New(t), net: &network{listeners: map[string]*bufconn.Listener{}, cut: map[string]bool{}, conns: map[string][]net.Conn{}},
			target: &target{down: map[string]bool{}, probed: map[string]time.Time{}}, box: &inbox{}, servers: map[string]*server{}, probers: map[string]*agent{},
			log: slog.New(slog.DiscardHandler)}
		if testing.Verbose() && os.Getenv("MESHTEST_LOG") != "" {
			m.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
		}
		m.admin = store.New(m.etcd.Client(t), store.Options{})
		if _, err := m.admin.CreateReceiver(t.Context(), &meshv1.Receiver{Name: "receivers/ops", MeshIncidents: true}); err != nil {
			t.Fatal(err)
		}
		defer m.stop()
		f(m)
	})
}

func (m *mesh) stop() {
	for n := range m.probers {
		m.stopProber(n)
	}
	for _, s := range m.servers {
		m.kill(s.name)
	}
}

// serve starts a server.
func (m *mesh) serve(name string) *server {
	m.t.Helper()
	m.boots++
	client, link := m.etcd.Link(m.t)
	log := m.log.With("server", name, "boot", m.boots)
	st := store.New(client, store.Options{Log: log})
	s := &server{name: name, link: link, archive: &archive{have: map[string]bool{}}, dir: m.t.TempDir()}
	if old := m.servers[name]; old != nil {
		s.archive, s.dir = old.archive, old.dir // its disk
	}
	boot := fmt.Sprint("boot-", m.boots)
	var err error
	s.peers, err = peer.New(peer.Config{Server: name, BootID: boot, Datacenter: homes[name], Dir: s.dir}, peer.Deps{
		Log: log, Meter: noop.Meter{}, History: s.archive, Fill: []func(*peerv1.Beat){func(b *peerv1.Beat) { s.c.FillBeat(b) }},
		Dial: func(address string) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(m.net.dialer("server "+name)))
		},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	s.c, err = controller.New(controller.Config{Server: name}, controller.Deps{Store: st, Notifier: courier{st, m.box}, Peers: s.peers, Log: log, Meter: noop.Meter{}, Tracer: tracenoop.Tracer{}})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	elect := election.New(client, election.Config{Server: "servers/" + name, BootID: boot, Log: log})
	g, err := gateway.New(ctx, name, s.c, s.peers, log, noop.Meter{})
	if err != nil {
		m.t.Fatal(err)
	}
	s.rpc, _ = rpc.NewServer(rpc.Config{}, log, nil)
	g.Register(s.rpc)
	s.peers.Register(s.rpc)
	l := bufconn.Listen(256 << 10)
	m.net.mu.Lock()
	m.net.listeners[address(name)] = l
	m.net.mu.Unlock()
	s.group.Go(func() {
		if err := s.c.Serve(ctx); err != nil {
			m.t.Errorf("controller of %s: %v", name, err)
		}
	})
	s.group.Go(func() { _ = elect.Run(ctx, s.c.Lead) }) // ends with ctx
	s.group.Go(func() {
		_ = st.KeepServer(ctx, &statev1.ServerRecord{Name: "servers/" + name, GrpcAddress: address(name), Datacenter: homes[name], BootId: boot}, 5*time.Second)
	}) // ends with ctx
	s.group.Go(func() {
		if err := s.peers.Run(ctx, s.c); err != nil {
			m.t.Errorf("peers of %s: %v", name, err)
		}
	})
	s.group.Go(func() { _ = s.rpc.Serve(l) }) // ends with Stop
	m.servers[name] = s
	return s
}

// homes are the datacenters of the servers: two of the probers' three.
var homes = map[string]string{"a": "fra", "b": "iad", "c": "nrt"}

func address(server string) string { return server + ":7700" }

// kill ends a server as SIGKILL does: nothing is resigned, its leases run out.
func (m *mesh) kill(name string) {
	s := m.servers[name]
	if s.dead {
		return
	}
	s.dead = true
	s.cutOff(true)
	m.net.mu.Lock()
	delete(m.net.listeners, address(name))
	m.net.mu.Unlock()
	s.archive.stall(false)
	s.cancel()
	s.rpc.Stop()
	s.group.Wait()
}

// probe starts a prober, in a datacenter that is the name up to its dash.
func (m *mesh) probe(name, datacenter string) {
	m.t.Helper()
	dir := ""
	if old := m.probers[name]; old != nil {
		dir = old.dir
	} else {
		dir = m.t.TempDir()
	}
	p, err := prober.New(prober.Config{Name: name, Datacenter: datacenter, Servers: []string{address("a"), address("b"), address("c")}, Data: dir, Build: "test"}, prober.Deps{
		Capabilities: []string{"tcp", "http", "ipv4"}, Log: m.log.With("prober", name),
		Compile: func(c *meshv1.Check) (probe.Runner, error) {
			return &runner{m.target, name, datacenter, c}, nil
		},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(m.net.dialer(name))},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &agent{p: p, cancel: cancel, done: make(chan error, 1), dir: dir}
	go func() { a.done <- p.Run(ctx) }()
	m.probers[name] = a
}

func (m *mesh) stopProber(name string) {
	a := m.probers[name]
	if a.cancel == nil {
		return
	}
	a.cancel()
	if err := <-a.done; err != nil {
		m.t.Errorf("prober %s: %v", name, err)
	}
	a.cancel = nil
}

// check makes or changes a check.
func (m *mesh) check(name string, change func(*meshv1.Check)) {
	m.t.Helper()
	k := &meshv1.Check{Name: "checks/" + name, Uri: "tcp://example.com:443", Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(5 * time.Second),
		Probers: 3, Quorum: 2, Receivers: []string{"receivers/ops"}}
	if change != nil {
		change(k)
	}
	_, err := m.admin.UpdateCheck(m.t.Context(), k, "")
	if err != nil {
		_, err = m.admin.CreateCheck(m.t.Context(), k)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// begin is a mesh with servers, three probers in three datacenters and checks c0, c1, ..., all UP.
func (m *mesh) begin(checks int, servers ...string) {
	m.t.Helper()
	for _, s := range servers {
		m.serve(s)
		time.Sleep(time.Second)
	}
	for _, d := range []string{"fra", "iad", "nrt"} {
		m.probe(d+"-1", d)
	}
	for i := range checks {
		m.check(fmt.Sprint("c", i), nil)
	}
	m.await("all are UP", 3*time.Minute, m.allUp)
}

// await waits, in mesh time, for a condition.
func (m *mesh) await(what string, limit time.Duration, ok func() bool) time.Duration {
	m.t.Helper()
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > limit {
			m.t.Fatalf("not within %v: %s\n%s", limit, what, m.describe())
		}
		time.Sleep(100 * time.Millisecond)
	}
	return time.Since(begun)
}

// leader is the server that leads, nil when none does.
func (m *mesh) leader() *server {
	for _, s := range m.servers {
		if !s.dead && s.c.Server().Leading {
			return s
		}
	}
	return nil
}

func (m *mesh) verdict(check string) meshv1.CheckStatus_Verdict {
	if l := m.leader(); l != nil {
		if s, ok := l.c.Status("checks/" + check); ok {
			return s.GetVerdict()
		}
	}
	return meshv1.CheckStatus_VERDICT_UNSPECIFIED
}

func (m *mesh) allUp() bool {
	l := m.leader()
	if l == nil {
		return false
	}
	up, n := true, 0
	l.c.EachStatus("", func(s *meshv1.CheckStatus) bool {
		n++
		up = up && (s.GetVerdict() == meshv1.CheckStatus_UP || s.GetVerdict() == meshv1.CheckStatus_PAUSED) && s.GetIncident() == ""
		return true
	})
	return up && n > 0
}

// settled tells whether the leader hears every prober, wherever it is attached, and each runs what it should.
func (m *mesh) settled() bool {
	l := m.leader()
	if l == nil {
		return false
	}
	n := 0
	for _, p := range l.c.Probers() {
		if p.GetState() == meshv1.Prober_ONLINE && p.GetInSync() {
			n++
		}
	}
	return n == len(m.probers)
}

// missing counts probes of before the last ten seconds that no server has in its history.
func (m *mesh) missing() int {
	n := 0
	m.target.mu.Lock()
	defer m.target.mu.Unlock()
	for k, at := range m.target.probed {
		if time.Since(at) < 10*time.Second {
			continue
		}
		found := false
		for _, s := range m.servers {
			s.archive.mu.Lock()
			found = found || s.archive.have[k]
			s.archive.mu.Unlock()
		}
		if !found {
			n++
			m.lacked = k
		}
	}
	return n
}

// lacking counts the probes of before the last ten seconds that the history of a server that lives lacks.
func (m *mesh) lacking() int {
	n := 0
	m.target.mu.Lock()
	defer m.target.mu.Unlock()
	for k, at := range m.target.probed {
		if time.Since(at) < 10*time.Second {
			continue
		}
		for _, s := range m.servers {
			s.archive.mu.Lock()
			if !s.dead && !s.archive.have[k] {
				n++
				m.lacked = k
			}
			s.archive.mu.Unlock()
		}
	}
	return n
}

// spread tells whether each server has a session.
func (m *mesh) spread() bool {
	for _, s := range m.servers {
		if !s.dead && s.c.Server().Sessions == 0 {
			return false
		}
	}
	return true
}

// alike tells whether every server that lives says the same of every check and prober.
func (m *mesh) alike() bool {
	said := map[string]bool{}
	for _, s := range m.servers {
		if s.dead {
			continue
		}
		all := ""
		s.c.EachStatus("", func(st *meshv1.CheckStatus) bool {
			all += fmt.Sprintln(st.GetCheck(), st.GetVerdict(), st.GetReason(), st.GetIncident(), st.GetSummary(), st.GetConfirming(), st.GetProbers())
			return true
		})
		for _, p := range s.c.Probers() {
			all += fmt.Sprintln(p.GetName(), p.GetState(), p.GetServer(), p.GetBootId(), p.GetInSync(), p.GetAssignments())
		}
		said[all] = true
	}
	return len(said) == 1
}

// describe says how the mesh stands, for a test that failed.
func (m *mesh) describe() string {
	l := m.leader()
	if l == nil {
		return "nobody leads"
	}
	out := "leader " + l.name + "\n"
	if m.lacked != "" {
		out += "  a probe that was missing: " + m.lacked + "; of the same minute, in the histories:"
		for _, s := range m.servers {
			for k := range s.archive.have {
				if len(k) > 10 && k[:len(k)-11] == m.lacked[:len(m.lacked)-11] {
					out += " " + k
				}
			}
		}
		out += "\n"
	}
	for _, p := range l.c.Probers() {
		out += fmt.Sprintf("  %s %s in_sync=%v spooled=%d\n", p.GetName(), p.GetState(), p.GetInSync(), p.GetSpooled())
	}
	l.c.EachStatus("", func(s *meshv1.CheckStatus) bool {
		if s.GetVerdict() != meshv1.CheckStatus_UP {
			out += fmt.Sprintf("  %s %s %s %s\n", s.GetCheck(), s.GetVerdict(), s.GetIncident(), s.GetSummary())
		}
		return true
	})
	return out
}
