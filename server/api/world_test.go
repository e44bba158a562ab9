package api

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/etcdfake"
	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/rpc"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// world is a server with this API over bufconn, a store on the etcd in memory, and a mesh that follows the store.
type world struct {
	t         testing.TB
	etcd      *etcdfake.Server
	store     *store.Store
	mesh      *mesh
	api       *API
	conn      *grpc.ClientConn
	checks    meshv1.CheckServiceClient
	receivers meshv1.ReceiverServiceClient
	statuses  meshv1.StatusServiceClient
	incidents meshv1.IncidentServiceClient
	probers   meshv1.ProberServiceClient
	servers   meshv1.ServerServiceClient
}

// inWorld runs a test in a bubble with a world of its own.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, etcd: etcdfake.New(t), mesh: newMesh()}
	w.store = store.New(w.etcd.Client(t), store.Options{})
	w.api = New(w.store, w.mesh, w.mesh.test, slog.New(slog.DiscardHandler))
	server, health := rpc.NewServer(rpc.Config{}, nil, nil)
	w.api.Register(server)
	listener := bufconn.Listen(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := rpc.Serve(ctx, server, health, listener, time.Second); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() { _ = w.store.Follow(ctx, w.mesh.follow) }) // ends only with the context
	conn, err := rpc.Dial("mesh", rpc.DialOptions{
		Dialer:  func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) },
		Options: []grpc.DialOption{grpc.WithInitialWindowSize(1 << 16)}, // a client that does not read is soon felt
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.api.Stop()
		conn.Close()
		cancel()
		running.Wait()
	})
	w.conn, w.checks, w.receivers = conn, meshv1.NewCheckServiceClient(conn), meshv1.NewReceiverServiceClient(conn)
	w.statuses, w.incidents = meshv1.NewStatusServiceClient(conn), meshv1.NewIncidentServiceClient(conn)
	w.probers, w.servers = meshv1.NewProberServiceClient(conn), meshv1.NewServerServiceClient(conn)
	synctest.Wait()
	return w
}

// create creates a check or ends the test.
func (w *world) create(c *meshv1.Check) *meshv1.Check {
	w.t.Helper()
	made, err := w.checks.CreateCheck(context.Background(), &meshv1.CreateCheckRequest{Check: c})
	if err != nil {
		w.t.Fatalf("create %s: %v", c.GetName(), err)
	}
	return made
}

// receiver creates a receiver or ends the test.
func (w *world) receiver(id string) {
	w.t.Helper()
	if _, err := w.receivers.CreateReceiver(context.Background(), &meshv1.CreateReceiverRequest{Receiver: hook(id)}); err != nil {
		w.t.Fatalf("create receiver %s: %v", id, err)
	}
}

func check(id string) *meshv1.Check {
	return &meshv1.Check{Name: "checks/" + id, Uri: "https://" + id + ".example.com/", Interval: durationpb.New(30 * time.Second)}
}

func hook(id string) *meshv1.Receiver {
	return &meshv1.Receiver{Name: "receivers/" + id, Webhook: &meshv1.Webhook{Url: "https://" + id + ".example.com/hook"}}
}

// want ends the test unless err carries the reason.
func want(t testing.TB, err error, reason meshv1.ErrorReason) *fault.Error {
	t.Helper()
	e, ok := fault.From(err)
	if !ok || e.Reason != reason {
		t.Fatalf("got %v, want an error with reason %s", err, reason)
	}
	return e
}

// mesh is a Mesh that behaves: it follows the store, and holds the verdicts that tests give it.
type mesh struct {
	statuses, incidents hub

	mu       sync.Mutex // guards everything below
	known    map[string]*meshv1.Check
	verdicts map[string]meshv1.CheckStatus_Verdict
	probers  map[string]*meshv1.Prober
	builds   map[string]*meshv1.Build
	server   ServerInfo
	answer   *meshv1.TestReceiverResponse
	summary  string                      // of every status
	open     map[string]*meshv1.Incident // by key
	hooks    map[string]*meshv1.Receiver
	records  map[string]*statev1.ServerRecord
}

func newMesh() *mesh {
	return &mesh{open: map[string]*meshv1.Incident{}, hooks: map[string]*meshv1.Receiver{}, records: map[string]*statev1.ServerRecord{}, known: map[string]*meshv1.Check{}, verdicts: map[string]meshv1.CheckStatus_Verdict{}, probers: map[string]*meshv1.Prober{},
		answer: &meshv1.TestReceiverResponse{Delivered: true, Status: 204}}
}

func (m *mesh) follow(_ context.Context, b store.Batch) error {
	for _, e := range b.Events {
		m.mu.Lock()
		switch value := e.Value.(type) {
		case *statev1.StoredIncident:
			m.open[e.Subject] = value.GetIncident()
		case *meshv1.Receiver:
			m.hooks[e.Name] = value
		case *statev1.ServerRecord:
			m.records[e.Name] = value
		case *meshv1.Check:
			m.known[e.Name] = value
		case nil:
			delete(m.open, e.Subject)
			delete(m.hooks, e.Name)
			delete(m.records, e.Name)
			delete(m.known, e.Name)
		}
		m.mu.Unlock()
		switch e.Kind {
		case store.KindIncident:
			m.incidents.tell(e.Name)
		case store.KindCheck:
			m.statuses.tell(e.Name)
		}
	}
	return nil
}

// decide sets the verdict of a check.
func (m *mesh) decide(name string, v meshv1.CheckStatus_Verdict) {
	m.mu.Lock()
	m.verdicts[name] = v
	m.mu.Unlock()
	m.statuses.tell(name)
}

func (m *mesh) Check(name string) (*meshv1.Check, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.known[name]
	return proto.CloneOf(c), ok
}

func (m *mesh) Status(name string) (*meshv1.CheckStatus, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statusLocked(name)
}

func (m *mesh) statusLocked(name string) (*meshv1.CheckStatus, bool) {
	c, ok := m.known[name]
	if !ok {
		return nil, false
	}
	s := &meshv1.CheckStatus{Check: name, Verdict: meshv1.CheckStatus_UP, Reason: meshv1.CheckStatus_QUORUM_UP, Summary: m.summary,
		Votes: []*meshv1.Vote{{Prober: "probers/fra-1", Evidence: &meshv1.Evidence{}}}}
	if v, ok := m.verdicts[name]; ok {
		s.Verdict = v
	}
	if c.GetPaused() {
		s.Verdict, s.Reason = meshv1.CheckStatus_PAUSED, meshv1.CheckStatus_CHECK_PAUSED
	}
	return s, true
}

func (m *mesh) EachStatus(after string, yield func(*meshv1.CheckStatus) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.known {
		if name > after {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		if s, ok := m.statusLocked(name); ok && !yield(s) {
			return
		}
	}
}

func (m *mesh) Receivers() []*meshv1.Receiver    { return sortedCopies(m, m.hooks) }
func (m *mesh) Records() []*statev1.ServerRecord { return sortedCopies(m, m.records) }

func (m *mesh) OpenIncidents() []*meshv1.Incident {
	all := sortedCopies(m, m.open)
	slices.Reverse(all)
	return all
}

func sortedCopies[T interface {
	proto.Message
	GetName() string
}](m *mesh, of map[string]T) (all []T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range of {
		all = append(all, proto.CloneOf(x))
	}
	slices.SortFunc(all, func(a, b T) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

func (m *mesh) SubscribeStatuses() Subscription  { return m.statuses.subscribe() }
func (m *mesh) SubscribeIncidents() Subscription { return m.incidents.subscribe() }

func (m *mesh) Explain(name string) (*meshv1.ExplainCheckResponse, bool) {
	s, ok := m.Status(name)
	return &meshv1.ExplainCheckResponse{Status: s, Text: name + " is " + s.GetVerdict().String()}, ok
}

func (m *mesh) Run(_ context.Context, name string, probers []string, send func(*meshv1.RunCheckResponse) error) error {
	if len(probers) == 0 {
		probers = []string{"probers/fra-1"}
	}
	if err := send(&meshv1.RunCheckResponse{Asked: probers}); err != nil {
		return err
	}
	for _, p := range probers {
		if err := send(&meshv1.RunCheckResponse{Result: &meshv1.Result{Check: name, Prober: p, Outcome: meshv1.Result_OK}}); err != nil {
			return err
		}
	}
	return send(&meshv1.RunCheckResponse{})
}

func (m *mesh) Probers() []*meshv1.Prober {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*meshv1.Prober
	for _, p := range m.probers {
		list = append(list, proto.CloneOf(p))
	}
	sort.Slice(list, func(i, j int) bool { return list[i].GetName() < list[j].GetName() })
	return list
}

func (m *mesh) Builds() []*meshv1.Build {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*meshv1.Build
	for _, n := range slices.Sorted(maps.Keys(m.builds)) {
		list = append(list, proto.CloneOf(m.builds[n]))
	}
	return list
}

func (m *mesh) Build(name string) (*meshv1.Build, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.builds[name]
	return proto.CloneOf(b), ok
}

func (m *mesh) Prober(name string) (*meshv1.Prober, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.probers[name]
	return proto.CloneOf(p), ok
}

func (m *mesh) Server() ServerInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.server
}

func (m *mesh) StepDown(term int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.server.Leading || (term != 0 && term != m.server.Term) {
		return 0, fmt.Errorf("step down of term %d: %+v", term, m.server)
	}
	m.server.Leading, m.server.Leader = false, ""
	return m.server.Term, nil
}

func (m *mesh) test(_ context.Context, r *meshv1.Receiver) *meshv1.TestReceiverResponse {
	m.mu.Lock()
	defer m.mu.Unlock()
	answer := proto.CloneOf(m.answer)
	answer.Error += r.GetName()
	return answer
}

// hub tells subscribers of names.
type hub struct {
	mu   sync.Mutex // guards everything below and in the subscriptions
	subs map[*subscription]bool
}

func (h *hub) tell(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		s.names[name] = true
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (h *hub) subscribe() Subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs == nil {
		h.subs = map[*subscription]bool{}
	}
	s := &subscription{hub: h, names: map[string]bool{}, wake: make(chan struct{}, 1)}
	h.subs[s] = true
	return s
}

type subscription struct {
	hub   *hub
	names map[string]bool
	wake  chan struct{}
}

func (s *subscription) Next(ctx context.Context) ([]string, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.wake:
		}
		s.hub.mu.Lock()
		var names []string
		for name := range s.names {
			names = append(names, name)
		}
		clear(s.names)
		s.hub.mu.Unlock()
		if len(names) > 0 {
			return names, nil
		}
	}
}

func (s *subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subs, s)
}

// subscribers says how many subscriptions are open.
func (h *hub) subscribers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs)
}
