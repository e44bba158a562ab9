package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/rpc"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/telemetry"
	"github.com/probemesh/probemesh/internal/version"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/api"
	"github.com/probemesh/probemesh/server/breakglass"
	"github.com/probemesh/probemesh/server/controller"
	"github.com/probemesh/probemesh/server/deadman"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/gateway"
	"github.com/probemesh/probemesh/server/health"
	"github.com/probemesh/probemesh/server/history"
	"github.com/probemesh/probemesh/server/notify"
	"github.com/probemesh/probemesh/server/peer"
	"github.com/probemesh/probemesh/server/store"
	"github.com/probemesh/probemesh/server/store/embedded"
	"github.com/probemesh/probemesh/server/succession"
)

const meterName = "github.com/probemesh/probemesh/server"

// Addresses are where a server listens.
type Addresses struct {
	// GRPC and HTTP are host:port, with the port that was chosen.
	GRPC string `json:"grpc"`
	HTTP string `json:"http"`
}

// Deps are what a server may be given instead of making its own.
type Deps struct {
	// Log takes what the server has to say. Required.
	Log *slog.Logger
	// Telemetry, if set, is used and stays the caller's to shut down: a process that runs a prober too shows both on one page of metrics. Default: its own.
	Telemetry *telemetry.Telemetry
}

// Server is one control-plane process. Make it with New, run it once.
type Server struct {
	cfg    Config
	log    *slog.Logger
	boot   string
	began  time.Time            // when this process was started
	tls    *tls.Config          // nil: plain text
	lock   *fileutil.LockedFile // the data directory is ours
	grpcL  net.Listener
	httpL  net.Listener
	tel    *telemetry.Telemetry
	ownTel bool
	member *embedded.Member
	client *clientv3.Client
	store  *store.Store
	hist   *history.History
	notify *notify.Notifier
	mesh   *controller.Controller
	pulse  *store.Pulse
	glass  *breakglass.Glass
	peers  *peer.Peers
	elect  *election.Election
	succ   *succession.Succession
	api    *api.API
	rpc    *grpc.Server
	health *grpchealth.Server
	// cluster, monitor and deadMan watch the mesh itself; deadMan is nil without a URL.
	cluster *health.Cluster
	monitor *health.Monitor
	gate    *gateway.Gateway
	deadMan *deadman.Switch
	ready   chan struct{}
	full    atomic.Bool // the disk is full and the member has failed
}

// New checks the configuration and opens the listeners, so that the addresses are known; the caller runs the server, or closes it with Close.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.WithDefaults()
	var boot [16]byte
	_, _ = rand.Read(boot[:]) // never fails
	s := &Server{cfg: cfg, log: deps.Log, tel: deps.Telemetry, boot: hex.EncodeToString(boot[:]), began: time.Now(), ready: make(chan struct{})}
	var err error
	if s.tls, err = rpc.ServerTLS(cfg.TLS); err != nil {
		return nil, err
	}
	if s.lock, err = lockData(cfg.Data); err != nil {
		return nil, err
	}
	if s.grpcL, err = net.Listen("tcp", cfg.GRPCListen); err != nil {
		s.Close()
		return nil, listenFault("grpc-listen", cfg.GRPCListen, err)
	}
	if s.httpL, err = net.Listen("tcp", cfg.HTTPListen); err != nil {
		s.Close()
		return nil, listenFault("http-listen", cfg.HTTPListen, err)
	}
	return s, nil
}

func listenFault(flag, address string, err error) error {
	return fmt.Errorf("cannot listen on %s: %w; stop what listens there, or choose another address with --%s (port 0 takes a free one)", address, err, flag)
}

// Addresses are where the server listens.
func (s *Server) Addresses() Addresses {
	return Addresses{GRPC: s.grpcL.Addr().String(), HTTP: s.httpL.Addr().String()}
}

// Ready is closed by Run once the server has read the store and somebody leads: calls and sessions are answered in full from then on.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Close closes the listeners of a server that was not run, and gives its data directory back.
func (s *Server) Close() {
	for _, l := range []net.Listener{s.grpcL, s.httpL} {
		if l != nil {
			l.Close()
		}
	}
	s.lock.Close()
}

// advertised are the addresses under which others reach the server.
func (s *Server) advertised() Addresses {
	a := s.Addresses()
	if s.cfg.GRPCAdvertise != "" {
		a.GRPC = s.cfg.GRPCAdvertise
	}
	if s.cfg.HTTPAdvertise != "" {
		a.HTTP = s.cfg.HTTPAdvertise
	}
	return a
}

// Run serves until ctx ends, then stops cleanly: it resigns if it leads, ends calls and sessions, and closes its stores. It returns nil after a clean stop.
func (s *Server) Run(ctx context.Context) (err error) {
	defer s.Close()
	if err := s.open(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil // it was told to stop while it waited for the others
		}
		return errors.Join(err, s.shut())
	}
	defer func() { err = errors.Join(err, s.shut()) }()
	// What ends when the server stops, ends when it leads no more.
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	if err := s.assemble(late); err != nil {
		return err
	}
	return s.serve(ctx, late, end)
}

// open opens what is kept: telemetry, etcd, history.
func (s *Server) open(ctx context.Context) (err error) {
	if s.tel == nil {
		s.tel, err = telemetry.Setup(ctx, telemetry.Config{Service: "probemesh-server", Version: version.Build(), Instance: s.cfg.Name, Log: s.log})
		if err != nil {
			return fmt.Errorf("telemetry: %w", err)
		}
		s.ownTel = true
	}
	if err := s.openEtcd(ctx); err != nil {
		return err
	}
	s.store = store.New(s.client, store.Options{Log: s.log, Meter: s.tel.Meter(meterName + "/store")})
	s.hist, err = history.Open(history.Config{
		Dir: filepath.Join(s.cfg.Data, "history"), Retention: s.cfg.HistoryRetention, MaxBytes: s.cfg.HistoryMaxBytes, OutOfOrder: s.cfg.HistoryOutOfOrder,
	}, history.Dependencies{
		Log: s.log, Meter: s.tel.Meter(meterName + "/history"), Registry: s.tel.Registry(), Incomplete: s.incomplete, Interval: s.interval,
	})
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

func (s *Server) openEtcd(ctx context.Context) (err error) {
	if len(s.cfg.Etcd) > 0 {
		if s.client, err = store.Connect(s.cfg.Etcd, nil, s.log); err != nil {
			return err
		}
		return nil
	}
	s.member, err = embedded.Start(ctx, embedded.Config{
		Dir: filepath.Join(s.cfg.Data, "etcd"), Name: s.cfg.Name, ListenClient: s.cfg.EtcdListenClient, ListenPeer: s.cfg.EtcdListenPeer,
		AdvertisePeer:  s.cfg.EtcdAdvertisePeer,
		InitialCluster: s.cfg.EtcdInitialCluster, ClusterState: s.cfg.EtcdClusterState, Tick: s.cfg.EtcdHeartbeat, Election: s.cfg.EtcdElection, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.client = s.member.Client()
	return nil
}

// shut closes what open opened, in the opposite order.
func (s *Server) shut() error {
	var errs []error
	if s.cluster != nil {
		s.cluster.Close()
	}
	if s.hist != nil {
		errs = append(errs, s.hist.Close())
	}
	switch {
	case s.full.Load():
		// The member stands still with its locks held: it ends with the process.
	case s.member != nil:
		errs = append(errs, s.member.Close())
	case s.client != nil:
		errs = append(errs, s.client.Close())
	}
	if s.ownTel {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = s.tel.Shutdown(ctx) // what could not be sent is counted and logged there
	}
	return errors.Join(errs...)
}

// assemble makes the parts. None of them does anything before serve.
func (s *Server) assemble(ctx context.Context) (err error) {
	s.notify, err = notify.New(s.store, notify.Config{Hold: func(check string, written int64) (time.Duration, int64) { return s.mesh.Joining(check, written) }, OutageKey: func(check, incident string) string { return s.mesh.OutageKey(check, incident) }, Log: s.log, Meter: s.tel.Meter(meterName + "/notify"), Tracer: s.tel.Tracer(meterName + "/notify")})
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	if err := s.assembleGlass(); err != nil {
		return err
	}
	if err := s.assemblePeers(); err != nil {
		return err
	}
	s.mesh, err = controller.New(controller.Config{Server: s.cfg.Name, BootID: s.boot, KeepIncidents: s.cfg.KeepIncidents}, controller.Deps{
		Glass: s.glass.Take, Peers: s.peers,
		Store: s.store, Notifier: s.notify, Verdicts: s.recordVerdicts, Recall: s.recall, Log: s.log, Meter: s.tel.Meter(meterName + "/controller"), Tracer: s.tel.Tracer(meterName + "/controller"),
	})
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	if err := s.assembleSuccession(); err != nil {
		return err
	}
	s.elect = election.New(s.client, election.Config{
		Server: spec.Name(spec.Servers, s.cfg.Name), BootID: s.boot, TTL: s.cfg.LeaseTTL, MayStand: s.succ.MayStand, Log: s.log, Meter: s.tel.Meter(meterName + "/election"),
	})
	s.rpc, s.health = rpc.NewServer(rpc.Config{TLS: s.tls, Options: []grpc.ServerOption{s.tel.ServerOption()}}, s.log, s.tel.Meter(meterName+"/rpc"))
	s.api = api.New(s.store, s.mesh, s.notify.SendTest, s.log)
	s.api.DescribeServers(s.describe)
	s.api.MissedServers(func() []*meshv1.Server { return missed(s.monitor.Facts().Servers, time.Now()) })
	s.api.StoreLost(func() (time.Time, bool) { return s.pulse.Lost() })
	s.api.Register(s.rpc)
	s.hist.Register(s.rpc)
	s.assembleMembers()
	gate, err := gateway.New(ctx, s.cfg.Name, s.mesh, s.peers, s.log, s.tel.Meter(meterName+"/gateway"))
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	s.gate = gate
	s.gate.Register(s.rpc)
	if err := s.assembleHealth(); err != nil {
		return fmt.Errorf("health: %w", err)
	}
	s.monitor.Register(s.rpc)
	s.peers.Register(s.rpc)
	return nil
}

// assemblePeers makes the streams between servers.
func (s *Server) assemblePeers() (err error) {
	s.peers, err = peer.New(peer.Config{
		Server: s.cfg.Name, BootID: s.boot, Datacenter: s.cfg.Datacenter, Dir: filepath.Join(s.cfg.Data, "peers"), JournalBytes: s.cfg.JournalMaxBytes, ServerName: s.cfg.TLS.ServerName,
	}, peer.Deps{
		Log: s.log, Meter: s.tel.Meter(meterName + "/peer"), History: s.hist,
		Dial: func(address string) (*grpc.ClientConn, error) {
			return s.dialPeer(address, grpc.WithInitialWindowSize(peer.StreamWindow), grpc.WithInitialConnWindowSize(peer.ConnectionWindow))
		},
		Fill: []func(*peerv1.Beat){func(b *peerv1.Beat) { s.mesh.FillBeat(b) }, func(b *peerv1.Beat) { s.succ.Fill(b) }, func(b *peerv1.Beat) { s.glass.Fill(b) }},
	})
	if err != nil {
		return fmt.Errorf("the streams between servers: %w", err)
	}
	return nil
}

// dialPeer makes a client of another server. Servers of one mesh share their authorities: what verifies clients verifies servers.
func (s *Server) dialPeer(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	o := rpc.DialOptions{Options: options}
	if s.cfg.TLS != (rpc.TLSFiles{}) {
		tlsConfig, err := rpc.ClientTLS(s.cfg.TLS)
		if err != nil {
			return nil, err
		}
		o.TLS = tlsConfig
	}
	return rpc.Dial(address, o)
}

// record is what the server publishes of itself.
func (s *Server) record() *statev1.ServerRecord {
	a := s.advertised()
	return &statev1.ServerRecord{
		Name: spec.Name(spec.Servers, s.cfg.Name), Datacenter: s.cfg.Datacenter, GrpcAddress: a.GRPC, HttpAddress: a.HTTP, Version: version.Build(), BootId: s.boot,
		StartTime: timestamppb.Now(), Labels: s.cfg.Labels,
	}
}

// incomplete tells whether a prober of the check has results in its spool that are not here yet.
func (s *Server) incomplete(check string) bool {
	if s.mesh == nil {
		return true
	}
	st, ok := s.mesh.Status(check)
	if !ok {
		return false
	}
	for _, v := range st.GetVotes() {
		// A spool that is draining holds more than the results of the last moments.
		if p, ok := s.mesh.Prober(v.GetProber()); ok && (p.GetState() == meshv1.Prober_OFFLINE || p.GetSpooled() > 100) {
			return true
		}
	}
	return false
}

func (s *Server) interval(check string) time.Duration {
	if s.mesh == nil {
		return 0
	}
	k, ok := s.mesh.Check(check)
	if !ok {
		return 0
	}
	return spec.Effective(k, 1).GetInterval().AsDuration()
}
