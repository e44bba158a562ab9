package controller

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/etcdfake"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeSession is a prober's session that remembers what it was told. Its prober answers runs if answer is set.
type fakeSession struct {
	boot   string
	since  time.Time
	from   netip.Addr
	answer func(*meshv1.RunNow)

	mu       sync.Mutex
	runs     []*meshv1.RunNow
	ended    []string
	refusals []*meshv1.AssignmentRefusal
}

func (s *fakeSession) BootID() string { return s.boot }
func (s *fakeSession) Wake()          {}
func (s *fakeSession) Facts() SessionFacts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SessionFacts{InSync: true, Since: s.since, Address: s.from, Refusals: s.refusals}
}

func (s *fakeSession) RunNow(r *meshv1.RunNow) bool {
	s.mu.Lock()
	s.runs = append(s.runs, r)
	s.mu.Unlock()
	if s.answer != nil {
		go s.answer(r)
	}
	return true
}

func (s *fakeSession) End(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, reason)
}

func (s *fakeSession) ends() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ended)
}

// idleNotifier delivers nothing: what is owed stays in the outbox, where tests count it.
type idleNotifier struct{}

func (idleNotifier) Run(ctx context.Context, _ store.Fence) error {
	<-ctx.Done()
	return nil
}

// world is one controller on an etcd in memory, in a bubble, with three probers in three datacenters.
type world struct {
	t     *testing.T
	etcd  *etcdfake.Server
	link  *etcdfake.Link
	store *store.Store
	c     *Controller
	elect *election.Election
	down  map[string]bool // checks that fail
	stop  context.CancelFunc
	group sync.WaitGroup

	mu       sync.Mutex // guards sessions and down
	sessions map[string]*fakeSession
}

func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, etcdfake.New(t), "a", nil)
		defer w.end()
		f(w)
	})
}

// newWorld starts a controller on an etcd, in a bubble, and waits until it has read the store. The caller ends it.
func newWorld(t *testing.T, etcd *etcdfake.Server, name string, peers Peers) *world {
	t.Helper()
	w := &world{t: t, etcd: etcd, sessions: map[string]*fakeSession{}, down: map[string]bool{}}
	client, link := w.etcd.Link(t)
	w.link = link
	w.store = store.New(client, store.Options{})
	var err error
	w.c, err = New(Config{Server: name}, Deps{
		Store: w.store, Notifier: idleNotifier{}, Peers: peers, Log: slog.New(slog.DiscardHandler), Meter: noop.Meter{}, Tracer: tracenoop.Tracer{},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.elect = election.New(client, election.Config{Server: "servers/" + name, BootID: "1"})
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	w.group.Go(func() {
		if err := w.c.Serve(ctx); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	w.group.Go(func() { _ = w.elect.Run(ctx, w.c.Lead) }) // ends with ctx
	<-w.c.Ready()
	return w
}

func (w *world) end() {
	w.stop()
	w.group.Wait()
}

// attach attaches a prober in a datacenter of its own, whose runs are answered.
func (w *world) attach(name string) *fakeSession {
	w.t.Helper()
	s := &fakeSession{boot: "boot-" + name, since: time.Now()}
	s.answer = func(r *meshv1.RunNow) { w.cast(name, r.GetCheck(), r.GetRunId()) }
	if err := w.c.Attach(w.t.Context(), w.hello(name), s); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.sessions[name] = s
	w.mu.Unlock()
	return s
}

func (w *world) hello(name string) *meshv1.Hello {
	return &meshv1.Hello{Prober: name, BootId: "boot-" + name, Datacenter: "dc-" + name, Build: "b-" + name, Capabilities: []string{"tcp", "http", "ipv4"}}
}

// cast is a probe of a check by a prober, now.
func (w *world) cast(prober, check, run string) {
	var a *meshv1.Assignment
	for _, x := range w.c.Difference(prober, nil).Upserts {
		if x.GetCheck().GetName() == check {
			a = x
		}
	}
	if a == nil {
		return
	}
	w.mu.Lock()
	down := w.down[check]
	w.mu.Unlock()
	r := &meshv1.Result{Check: check, Prober: "probers/" + prober, StartTime: timestamppb.Now(), Duration: durationpb.New(time.Millisecond), RunId: run,
		CheckRevision: a.GetCheck().GetRevision(), Outcome: meshv1.Result_OK}
	if down {
		r.Outcome, r.Error = meshv1.Result_FAIL, "connection refused"
	}
	w.c.Cast(prober, []*meshv1.Result{r})
}

// probe lets all probers probe all checks for so long, each check every ten seconds.
func (w *world) probe(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
		w.mu.Lock()
		var names []string
		for n := range w.sessions {
			names = append(names, n)
		}
		w.mu.Unlock()
		for _, n := range names {
			for _, a := range w.c.Difference(n, nil).Upserts {
				w.cast(n, a.GetCheck().GetName(), "")
			}
		}
	}
}

// mesh makes probers and checks, and waits until all checks are UP.
func (w *world) mesh(checks int) {
	w.t.Helper()
	for _, p := range []string{"p1", "p2", "p3"} {
		w.attach(p)
	}
	w.makeChecks(checks)
	time.Sleep(5 * time.Second)
	w.probe(30 * time.Second)
	w.c.EachStatus("", func(s *meshv1.CheckStatus) bool {
		if s.GetVerdict() != meshv1.CheckStatus_UP {
			w.t.Fatalf("%s is %v at the beginning: %s", s.GetCheck(), s.GetVerdict(), s.GetSummary())
		}
		return true
	})
}

// makeChecks makes a receiver and so many checks, c0, c1, ..., of three probers and a quorum of two.
func (w *world) makeChecks(n int) {
	w.t.Helper()
	if _, err := w.store.CreateReceiver(w.t.Context(), &meshv1.Receiver{Name: "receivers/ops"}); err != nil {
		w.t.Fatal(err)
	}
	for i := range n {
		if _, err := w.store.CreateCheck(w.t.Context(), &meshv1.Check{Name: fmt.Sprint("checks/c", i), Uri: "tcp://example.com:443", Interval: durationpb.New(10 * time.Second),
			Timeout: durationpb.New(5 * time.Second), Probers: 3, Quorum: 2, Receivers: []string{"receivers/ops"}}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) setDown(check string, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[check] = down
}

// owed counts what the outbox holds, by transition.
func (w *world) owed() map[string]int {
	w.t.Helper()
	entries, _, err := w.store.ListOutbox(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	n := map[string]int{}
	for _, e := range entries {
		n[e.Value.GetNotification().GetTransition().String()]++
	}
	return n
}

func storedOf(k *meshv1.Check) *statev1.StoredIncident {
	return &statev1.StoredIncident{Incident: &meshv1.Incident{Name: "incidents/stale", Check: k.GetName(), Kind: meshv1.Incident_CHECK, State: meshv1.Incident_OPEN}}
}
