package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	metricsdk "go.opentelemetry.io/otel/sdk/metric"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/etcdfake"
	"github.com/probemesh/probemesh/internal/rpc"
	"github.com/probemesh/probemesh/internal/version"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/controller"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/store"
)

// storm is a real gateway on a real controller that leads, with thousands of made-up probers, each on a connection of its own in memory. There is no bubble: what is
// measured is how long things take on this machine, the probers' work included.
type storm struct {
	t        *testing.T
	store    *store.Store
	c        *controller.Controller
	listener *bufconn.Listener
	probers  []*stormProber
	down     sync.Map      // checks that fail
	welcomed time.Duration // how long the last attach took
	// first is the prober that says the first failure of a check. It is looked for before the storm: to ask ten thousand probers takes their locks, which they hold while they send.
	first    map[string]*stormProber
	dialling chan struct{} // has an element for each prober that has said Hello and has no Welcome

	mu    sync.Mutex
	asked map[string]time.Time // when a prober was first asked to confirm an outage, by check
}

// stormDatacenters is more than a check has probers, so that each vote is of a datacenter of its own.
const stormDatacenters = 10

// stormPace is the pause between outages, without which so many at once would be a mass change: openings are held up to 2 s then, for what they share to be found.
const stormPace = 350 * time.Millisecond

type noNotifier struct{}

func (noNotifier) Run(ctx context.Context, _ store.Fence) error {
	<-ctx.Done()
	return nil
}

// newStorm makes a mesh of as many probers as checks, all attached, all checks UP.
func newStorm(t *testing.T, count int) *storm {
	t.Helper()
	s := &storm{t: t, listener: bufconn.Listen(1 << 16), asked: map[string]time.Time{}, first: map[string]*stormProber{}, dialling: make(chan struct{}, stormDialling)}
	client, _ := etcdfake.New(t).Link(t)
	s.store = store.New(client, store.Options{})
	// Lines are made, and metrics counted, as in a server.
	sink, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(sink, nil))
	meter := metricsdk.NewMeterProvider(metricsdk.WithReader(metricsdk.NewManualReader())).Meter("storm")
	s.c, err = controller.New(controller.Config{Server: "a"}, controller.Deps{Store: s.store, Notifier: noNotifier{}, Log: log, Meter: meter, Tracer: tracenoop.Tracer{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g, err := New(ctx, "a", s.c, &fakeArchive{taken: map[uint64]int{}}, log, meter)
	if err != nil {
		t.Fatal(err)
	}
	server, _ := rpc.NewServer(rpc.Config{Options: []grpc.ServerOption{grpc.ReadBufferSize(4 << 10), grpc.WriteBufferSize(4 << 10)}}, log, meter)
	g.Register(server)
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(s.listener) }) // ends with Stop
	group.Go(func() { _ = s.c.Serve(ctx) })           // ends with ctx
	group.Go(func() { _ = election.New(client, election.Config{Server: "servers/a", BootID: "1"}).Run(ctx, s.c.Lead) })
	t.Cleanup(func() {
		for _, p := range s.probers {
			p.leave()
		}
		for _, p := range s.probers {
			p.living.Wait()
		}
		cancel()
		server.Stop()
		group.Wait()
		sink.Close()
	})
	<-s.c.Ready()
	s.makeProbers(count)
	s.settle(count)
	return s
}

func (s *storm) makeChecks(count int) {
	s.t.Helper()
	work := make(chan int)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for i := range work {
				_, err := s.store.CreateCheck(s.t.Context(), &meshv1.Check{Name: fmt.Sprint("checks/c", i), Uri: fmt.Sprintf("tcp://t%d.example.com:443", i),
					Interval: durationpb.New(time.Minute), Timeout: durationpb.New(10 * time.Second), Probers: 3, Quorum: 2})
				if err != nil {
					s.t.Error(err)
				}
			}
		})
	}
	for i := range count {
		work <- i
	}
	close(work)
	group.Wait()
}

// makeProbers enrols the probers.
func (s *storm) makeProbers(count int) {
	s.t.Helper()
	for i := range count {
		s.probers = append(s.probers, &stormProber{storm: s, held: map[string]held{}, hello: &meshv1.Hello{Prober: fmt.Sprint("p-", i), BootId: fmt.Sprint("boot-", i),
			Build: "test", Protocol: version.Protocol, Datacenter: fmt.Sprint("dc-", i%stormDatacenters), Capabilities: []string{"tcp", "ipv4"}, FirstSequence: 1}})
	}
	// New probers come one after the other: each is written down first.
	s.attach(s.probers, max(time.Second, time.Duration(count)*3*time.Millisecond))
	s.until("all probers are there", func() bool { return s.inSync() == count })
	s.t.Logf("%d new probers were enrolled and welcomed within %s", count, s.welcomed.Round(time.Millisecond))
}

// settle makes the checks and waits until everything is settled. They come after the probers: placed while few of these are there, all would be on the few, and be moved one by one.
func (s *storm) settle(count int) {
	s.t.Helper()
	begin := time.Now()
	s.makeChecks(count)
	s.until("all assignments are at their probers", func() bool {
		n := 0
		for _, p := range s.probers {
			n += p.holds()
		}
		return n == 3*count && s.inSync() == count
	})
	s.until("all checks are UP", func() bool { return s.up() == count })
	s.t.Logf("%d checks were made, placed and UP after %s", count, time.Since(begin).Round(time.Millisecond))
}

func (s *storm) up() (n int) {
	s.c.EachStatus("", func(st *meshv1.CheckStatus) bool {
		if st.GetVerdict() == meshv1.CheckStatus_UP && st.GetProbers() == 3 {
			n++
		}
		return true
	})
	return n
}

// inSync is how many probers have acknowledged what they should run.
func (s *storm) inSync() (n int) {
	for _, p := range s.c.Probers() {
		if p.GetInSync() && p.GetState() == meshv1.Prober_ONLINE {
			n++
		}
	}
	return n
}

func (s *storm) until(what string, done func() bool) {
	s.t.Helper()
	for end := time.Now().Add(4 * time.Minute); !done(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Errorf("not within four minutes: %s; %s", what, s.missing())
			return
		}
	}
}

// missing says what is not settled: for a human who looks for the cause.
func (s *storm) missing() string {
	held, names := 0, []string{}
	for _, p := range s.probers {
		held += p.holds()
		if n := p.lost.Load(); n > 3 && len(names) < 10 {
			names = append(names, fmt.Sprintf("%s holds %d checks, lost %d sessions (%v)", p.hello.GetProber(), p.holds(), n, p.why.Load()))
		}
	}
	for _, p := range s.c.Probers() {
		if (!p.GetInSync() || p.GetState() != meshv1.Prober_ONLINE) && len(names) < 20 {
			names = append(names, fmt.Sprintf("%s is %s, in sync %t, with %d checks", p.GetName(), p.GetState(), p.GetInSync(), p.GetAssignments()))
		}
	}
	return fmt.Sprintf("%d assignments held, %d probers in sync, %d sessions, %d checks UP: %s", held, s.inSync(), s.c.Server().Sessions, s.up(), strings.Join(names, "; "))
}

// of gives the probers that hold a check.
func (s *storm) of(check string) (all []*stormProber) {
	for _, p := range s.probers {
		if p.runs(check) {
			all = append(all, p)
		}
	}
	return all
}

// divide gives checks that are to fail, and the probers that none of them runs on.
func (s *storm) divide(count int) (failing []string, moving []*stormProber) {
	steady := map[*stormProber]bool{}
	for i := range count {
		name := fmt.Sprint("checks/c", i)
		failing = append(failing, name)
		holders := s.of(name)
		s.first[name] = holders[0]
		for _, p := range holders {
			steady[p] = true
		}
	}
	for _, p := range s.probers {
		if !steady[p] {
			moving = append(moving, p)
		}
	}
	return failing, moving
}

// attach attaches probers, each on a new connection and within the jitter. A prober that is refused tries again.
func (s *storm) attach(probers []*stormProber, jitter time.Duration) {
	s.come(probers, s.connections(len(probers)), jitter)
}

// connections makes that many, none of which dials yet: to make ten thousand takes a second of this machine, which is the probers' and no server's.
func (s *storm) connections(n int) []*grpc.ClientConn {
	conns := make([]*grpc.ClientConn, n)
	for i := range conns {
		var err error
		conns[i], err = grpc.NewClient("passthrough:///a", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.DialContext(ctx) }),
			grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
		if err != nil {
			s.t.Error(err)
			return nil
		}
	}
	return conns
}

// come attaches probers on connections that are made, within the jitter.
func (s *storm) come(probers []*stormProber, conns []*grpc.ClientConn, jitter time.Duration) {
	begin := time.Now()
	var waiting sync.WaitGroup
	for i, conn := range conns {
		waiting.Add(1)
		probers[i].begin(conn, jitter, waiting.Done)
	}
	waiting.Wait()
	s.welcomed = time.Since(begin)
}

// note takes in that a prober was asked for a run of a check.
func (s *storm) note(check string) {
	if _, down := s.down.Load(check); !down {
		return // for its first vote
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked[check].IsZero() {
		s.asked[check] = time.Now()
	}
}

// outages lets checks fail, one after the other, for as long as more says, and gives the times.
func (s *storm) outages(checks []string, more func() bool) (all []outage) {
	s.t.Helper()
	incidents := s.c.SubscribeIncidents()
	defer incidents.Close()
	for i, name := range checks {
		if i > 0 && len(checks) > 9 {
			time.Sleep(stormPace)
		}
		if !more() {
			break
		}
		o := outage{check: name}
		s.down.Store(name, true)
		begin := time.Now()
		s.first[name].vote(name, "")
		ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
		for s.opened(name) == nil {
			if _, err := incidents.Next(ctx); err != nil {
				st, _ := s.c.Status(name)
				cancel()
				s.t.Fatalf("no incident within 30 s: %v", st)
			}
		}
		o.opened = time.Since(begin)
		cancel()
		s.mu.Lock()
		o.asked = s.asked[name].Sub(begin)
		s.mu.Unlock()
		all = append(all, o)
	}
	return all
}

func (s *storm) opened(check string) *meshv1.Incident {
	for _, i := range s.c.OpenIncidents() {
		if i.GetCheck() == check {
			return i
		}
	}
	return nil
}
