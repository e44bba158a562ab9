//go:build linux

package gateway

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metricsdk "go.opentelemetry.io/otel/sdk/metric"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/collector"
	"github.com/probemesh/probemesh/internal/etcdfake"
	meshrpc "github.com/probemesh/probemesh/internal/rpc"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/controller"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/store"
)

// storm is a real gateway on a real controller that leads. Thousands of made-up probers are in a process of their own, each on a connection of its own over a Unix socket; a few, which
// alone run the checks that are to fail, are in this one and keep their sessions. There is no bubble: what is measured is how long things take on this machine.
type storm struct {
	t     *testing.T
	store *store.Store
	c     *controller.Controller
	near  *stormFleet
	far   *rpc.Client
	count int // of probers, near and far; as many checks
}

const (
	// stormDatacenters is more than a check has probers, so that each vote is of a datacenter of its own.
	stormDatacenters = 10
	// stormNear is how many probers are near, in three datacenters.
	stormNear = 12
)

// stormPace is the pause between outages, without which so many at once would be a mass change: openings are held up to 2 s then, for what they share to be found.
const stormPace = 350 * time.Millisecond

type noNotifier struct{}

func (noNotifier) Run(ctx context.Context, _ store.Fence) error {
	<-ctx.Done()
	return nil
}

// newStorm makes a mesh of as many probers as checks, all attached, all checks UP; the first of the checks, as many as failing says, run at near probers.
func newStorm(t *testing.T, count, failing int) *storm {
	t.Helper()
	dir, err := os.MkdirTemp("", "storm") // t.TempDir's name may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	address := "unix:" + listener.Addr().String()
	s := &storm{t: t, near: newStormFleet(address), count: count}
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
	t.Cleanup(collector.Roomy(os.Getenv)) // as in a server
	ctx, cancel := context.WithCancel(context.Background())
	g, err := New(ctx, "a", s.c, &fakeArchive{taken: map[uint64]int{}}, log, meter)
	if err != nil {
		t.Fatal(err)
	}
	server, _ := meshrpc.NewServer(meshrpc.Config{Options: []grpc.ServerOption{grpc.ReadBufferSize(4 << 10), grpc.WriteBufferSize(4 << 10)}}, log, meter)
	g.Register(server)
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(listener) }) // ends with Stop
	group.Go(func() { _ = s.c.Serve(ctx) })         // ends with ctx
	group.Go(func() { _ = election.New(client, election.Config{Server: "servers/a", BootID: "1"}).Run(ctx, s.c.Lead) })
	s.startFar(address)
	t.Cleanup(func() {
		s.far.Close()
		s.near.leave()
		cancel()
		server.Stop()
		group.Wait()
		sink.Close()
	})
	<-s.c.Ready()
	s.makeProbers()
	s.settle(failing)
	return s
}

// startFar starts the process of the far probers, which ends with the connection to it.
func (s *storm) startFar(address string) {
	s.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		s.t.Fatal(err)
	}
	s.far = rpc.NewClient(conn)
	far := exec.Command(os.Args[0], "-test.run=^TestFarProbersOfAStorm$")
	far.Env = append(os.Environ(), "PROBEMESH_STORM_SERVER="+address, fmt.Sprint("PROBEMESH_STORM_COUNT=", s.count-stormNear))
	far.ExtraFiles, far.Stderr = []*os.File{theirs}, os.Stderr
	var said bytes.Buffer
	far.Stdout = &said
	if err := far.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := far.Wait(); err != nil {
			s.t.Errorf("the far probers: %v\n%s", err, said.String())
		}
	})
}

// call asks the other process.
func (s *storm) call(method string, in, out any) {
	if err := s.far.Call("Far."+method, in, out); err != nil {
		s.t.Errorf("%s: %v", method, err)
	}
}

func (s *storm) farState() (x StormState) {
	s.call("State", 0, &x)
	return x
}

func (s *storm) makeChecks(failing int) {
	s.t.Helper()
	near, far := datacentersOf("near", 3), datacentersOf("far", stormDatacenters)
	work := make(chan int)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for i := range work {
				c := &meshv1.Check{Name: stormCheck(i), Uri: fmt.Sprintf("tcp://t%d.example.com:443", i),
					Interval: durationpb.New(time.Minute), Timeout: durationpb.New(10 * time.Second), Probers: 3, Quorum: 2, Datacenters: far}
				if i < failing {
					c.Datacenters = near
				}
				if _, err := s.store.CreateCheck(s.t.Context(), c); err != nil {
					s.t.Error(err)
				}
			}
		})
	}
	for i := range s.count {
		work <- i
	}
	close(work)
	group.Wait()
}

func stormCheck(i int) string { return fmt.Sprint("checks/c", i) }

func datacentersOf(prefix string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint("dc-", prefix, "-", i))
	}
	return list
}

// makeProbers enrols the probers.
func (s *storm) makeProbers() {
	s.t.Helper()
	s.near.add("near", stormNear, 3)
	if err := s.near.connect(); err != nil {
		s.t.Fatal(err)
	}
	s.near.come(time.Millisecond)
	// New probers come one after the other: each is written down first.
	s.call("Connect", 0, nil)
	var welcomed time.Duration
	s.call("Come", max(time.Second, time.Duration(s.count)*3*time.Millisecond), &welcomed)
	s.until("all probers are there", func() bool { return s.inSync() == s.count })
	s.t.Logf("%d new probers were enrolled and welcomed within %s", s.count, welcomed.Round(time.Millisecond))
}

// settle makes the checks and waits until everything is settled. They come after the probers: placed while few of these are there, all would be on the few, and be moved one by one.
func (s *storm) settle(failing int) {
	s.t.Helper()
	begin := time.Now()
	s.makeChecks(failing)
	s.until("all assignments are at their probers", func() bool {
		return s.near.state().Held+s.farState().Held == 3*s.count && s.inSync() == s.count
	})
	s.until("all checks are UP", func() bool { return s.up() == s.count })
	s.t.Logf("%d checks were made, placed and UP after %s", s.count, time.Since(begin).Round(time.Millisecond))
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
	far := s.farState()
	names := far.Lost[:min(10, len(far.Lost))]
	for _, p := range s.c.Probers() {
		if (!p.GetInSync() || p.GetState() != meshv1.Prober_ONLINE) && len(names) < 20 {
			names = append(names, fmt.Sprintf("%s is %s, in sync %t, with %d checks", p.GetName(), p.GetState(), p.GetInSync(), p.GetAssignments()))
		}
	}
	return fmt.Sprintf("%d assignments held, %d probers in sync, %d sessions, %d checks UP: %s", far.Held+s.near.state().Held, s.inSync(), s.c.Server().Sessions, s.up(), strings.Join(names, "; "))
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
		first := s.near.probers[slices.IndexFunc(s.near.probers, func(p *stormProber) bool { return p.runs(name) })]
		s.near.down.Store(name, true)
		begin := time.Now()
		first.vote(name, "")
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
		s.near.mu.Lock()
		o.asked = s.near.asked[name].Sub(begin)
		s.near.mu.Unlock()
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
