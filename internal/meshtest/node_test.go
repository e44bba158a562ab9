package meshtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/probemesh/probemesh/internal/rpc"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/breakglass"
	"github.com/probemesh/probemesh/server/controller"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/gateway"
	"github.com/probemesh/probemesh/server/notify"
	"github.com/probemesh/probemesh/server/peer"
	"github.com/probemesh/probemesh/server/store"
	"github.com/probemesh/probemesh/server/succession"
)

const (
	etcdAddress = "etcd:2379"
	leaseTTL    = 5 * time.Second
	// verifyEvery is how often servers compare what they were told of etcd with what is there: less than the usual five minutes, which would be spent waiting.
	verifyEvery = time.Minute
)

// homes are the datacenters of the servers that a mesh may have; w is a witness, where there are no probers.
var homes = map[string]string{"a": "fra", "b": "iad", "c": "nrt", "d": "sfo", "e": "syd", "w": "wit"}

func address(server string) string { return server + ":7700" }

// server is one boot of a server: what package server puts together, without the API, the history on disk and etcd's embedded member.
type server struct {
	m       *mesh
	name    string
	boot    string
	dir     string // outlives the process
	client  *clientv3.Client
	store   *store.Store
	c       *controller.Controller
	archive *archive
	peers   *peer.Peers
	pulse   *store.Pulse
	glass   *breakglass.Glass
	succ    *succession.Succession
	elect   *election.Election
	rpc     *grpc.Server
	health  *health.Server
	stop    context.CancelFunc // gracefully
	cancel  context.CancelFunc // at once
	ended   chan struct{}
	dead    bool
}

// serve starts a server, with the disk of its former life if it had one.
func (m *mesh) serve(name string) *server {
	m.t.Helper()
	m.boots++
	s := &server{m: m, name: name, boot: fmt.Sprint("boot-", m.boots), archive: &archive{have: map[string]bool{}}, ended: make(chan struct{})}
	if old := m.servers[name]; old != nil {
		<-old.ended
		s.archive, s.dir = old.archive, old.dir
	}
	m.net.set("etcd of "+name, nil)
	if s.dir == "" {
		s.dir = m.t.TempDir()
	}
	m.net.place(name, homes[name])
	if err := s.assemble(); err != nil {
		m.t.Fatal(err)
	}
	l := m.net.listen(name, address(name))
	ctx, stop := context.WithCancel(context.Background())
	base, cancel := context.WithCancel(context.Background())
	s.stop, s.cancel = stop, func() { stop(); cancel() }
	go func() {
		defer close(s.ended)
		s.run(ctx, base, l)
	}()
	m.servers[name] = s
	return s
}

// serveAnew starts a server on an empty disk.
func (m *mesh) serveAnew(name string) {
	old := m.servers[name]
	<-old.ended
	old.dir, old.archive = "", &archive{have: map[string]bool{}}
	m.serve(name)
}

func (s *server) assemble() (err error) {
	m, log := s.m, s.m.log.With("server", s.name, "boot", s.boot)
	dial := m.net.dialer(s.name)
	s.client, err = store.Connect([]string{"passthrough:///" + etcdAddress}, nil, log,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (conn netConn, err error) { return dial(ctx, etcdAddress) }))
	if err != nil {
		return err
	}
	s.store = store.New(s.client, store.Options{Log: log, VerifyEvery: verifyEvery})
	n, err := notify.New(s.store, notify.Config{Log: log, Hold: func(check string, written int64) (time.Duration, int64) { return s.c.Joining(check, written) }, OutageKey: func(check, incident string) string { return s.c.OutageKey(check, incident) }, Dial: func(ctx context.Context, _, at string) (netConn, error) { return dial(ctx, at) }})
	if err != nil {
		return err
	}
	s.pulse = store.NewPulse(s.store.Ready, log, nil)
	for _, d := range []string{"glass", "peers"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			return err
		}
	}
	s.glass, err = breakglass.New(breakglass.Config{Server: s.name, Dir: filepath.Join(s.dir, "glass"), File: m.box.file}, breakglass.Deps{
		Pulse: s.pulse, Closed: s.store.ClosedOutages, Log: log,
		Send: func(ctx context.Context, r *meshv1.Receiver, key string, x *meshv1.Notification) breakglass.Answer {
			delivered, problem := n.SendOnce(ctx, r, key, x)
			return breakglass.Answer{Delivered: delivered, Problem: problem}
		},
	})
	if err != nil {
		return err
	}
	s.peers, err = peer.New(peer.Config{Server: s.name, BootID: s.boot, Datacenter: homes[s.name], Dir: filepath.Join(s.dir, "peers")}, peer.Deps{
		Log: log, Meter: noop.Meter{}, History: s.archive,
		Fill: []func(*peerv1.Beat){func(b *peerv1.Beat) { s.c.FillBeat(b) }, func(b *peerv1.Beat) { s.succ.Fill(b) }, func(b *peerv1.Beat) { s.glass.Fill(b) }},
		Dial: func(at string) (*grpc.ClientConn, error) {
			return rpc.Dial(at, rpc.DialOptions{Dialer: dial, Options: append(m.skews.options(s.name), grpc.WithInitialWindowSize(peer.StreamWindow),
				grpc.WithInitialConnWindowSize(peer.ConnectionWindow))})
		},
	})
	if err != nil {
		return err
	}
	s.c, err = controller.New(controller.Config{Server: s.name, BootID: s.boot}, controller.Deps{
		Store: s.store, Notifier: n, Peers: s.peers, Glass: s.glass.Take, Log: log, Meter: noop.Meter{}, Tracer: tracenoop.Tracer{}})
	if err != nil {
		return err
	}
	s.succ, err = succession.New(succession.Config{Server: "servers/" + s.name}, succession.Deps{
		Hears: s.c.Hears, Uncommitted: s.store.Uncommitted, Read: s.store.Ready, Log: log, Meter: noop.Meter{}})
	if err != nil {
		return err
	}
	s.elect = election.New(s.client, election.Config{Server: "servers/" + s.name, BootID: s.boot, TTL: leaseTTL, MayStand: s.succ.MayStand, Log: log})
	s.rpc, s.health = rpc.NewServer(rpc.Config{}, log, nil)
	return nil
}

// run is what server.serve does: ctx ends it gracefully, base at once.
func (s *server) run(ctx, base context.Context, l *listener) {
	m := s.m
	gate, err := gateway.New(ctx, s.name, s.c, s.peers, m.log.With("server", s.name), noop.Meter{})
	if err != nil {
		m.t.Error(err)
		return
	}
	gate.Register(s.rpc)
	s.peers.Register(s.rpc)
	check := func(what string, err error) {
		if err != nil && base.Err() == nil {
			m.t.Errorf("%s of %s: %v", what, s.name, err)
		}
	}
	s.glass.Begin(glassMesh{s.c, s})
	under, stopUnder := context.WithCancel(base)
	defer stopUnder()
	talk, hush := context.WithCancel(base)
	defer hush()
	var ground, front sync.WaitGroup
	ground.Go(func() { check("controller", s.c.Serve(under)) })
	ground.Go(func() { check("pulse", s.pulse.Run(under)) })
	ground.Go(func() { check("glass", s.glass.Run(under, glassMesh{s.c, s})) })
	ground.Go(func() { check("succession", s.succ.Run(under, s.elect, s.peers)) })
	front.Go(func() {
		<-ctx.Done()
		s.succ.Stop()
	})
	front.Go(func() { check("peers", s.peers.Run(talk, s.c)) })
	front.Go(func() {
		_ = s.elect.Run(ctx, s.c.Lead) // ends with ctx
		s.peers.Beat()
		time.AfterFunc(50*time.Millisecond, hush)
	})
	front.Go(func() {
		_ = s.store.KeepServer(ctx, &statev1.ServerRecord{Name: "servers/" + s.name, GrpcAddress: address(s.name), Datacenter: homes[s.name], BootId: s.boot}, leaseTTL) // ends with ctx
	})
	front.Go(func() { check("gRPC", rpc.Serve(ctx, s.rpc, s.health, l, 2*time.Second)) })
	front.Wait()
	stopUnder()
	ground.Wait()
	_ = s.client.Close() // its context may have ended before
}

// glassMesh is the mesh as breakglass sees it.
type glassMesh struct {
	*controller.Controller
	s *server
}

func (g glassMesh) Others() []breakglass.Peer {
	now := time.Now()
	var list []breakglass.Peer
	for _, v := range g.s.peers.Views() {
		list = append(list, breakglass.Peer{Server: v.Server, Heard: v.Beat != nil && !v.Missed(now), Beat: v.Beat})
	}
	return list
}

// cutOff cuts the server off from etcd, or lets it back.
func (s *server) cutOff(yes bool) {
	var t *trouble
	if yes {
		t = &trouble{on: func(from, to string) bool { return from == s.name && to == "etcd" || from == "etcd" && to == s.name }, close: true}
	}
	s.m.net.set("etcd of "+s.name, t)
}

// kill ends a server as SIGKILL does: nothing is resigned, its connections are reset, its address refuses new ones, its leases run out.
func (m *mesh) kill(name string) {
	s := m.servers[name]
	if s.dead {
		return
	}
	s.dead = true
	m.net.set("death of "+s.boot, &trouble{on: between(one(name)), close: true})
	s.cancel()
	m.net.silence(address(name))
	s.archive.stall(false)
	s.rpc.Stop()
	go func() {
		<-s.ended
		m.net.set("death of "+s.boot, nil)
	}()
}

// quit stops a server as SIGTERM does.
func (m *mesh) quit(name string) {
	s := m.servers[name]
	if s.dead {
		return
	}
	s.dead = true
	s.archive.stall(false)
	s.stop()
}

// addresses are those of all servers of the mesh.
func (m *mesh) addresses() []string {
	var list []string
	for n := range m.servers {
		list = append(list, address(n))
	}
	slices.Sort(list)
	return list
}
