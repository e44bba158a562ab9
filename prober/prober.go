package prober

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"

	"github.com/probemesh/probemesh/internal/spool"
	"github.com/probemesh/probemesh/internal/version"
	"github.com/probemesh/probemesh/prober/assignments"
	"github.com/probemesh/probemesh/prober/canary"
	"github.com/probemesh/probemesh/prober/clock"
	"github.com/probemesh/probemesh/prober/link"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
	"github.com/probemesh/probemesh/prober/timetable"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// grace is how long probes that run may go on when the prober stops.
const grace = 2 * time.Second

// Deps are what a prober needs besides plain values. The zero value is a prober that runs every kind of check, and keeps silent.
type Deps struct {
	// Compile makes a runner of a check; the error is a [probe.Refusal] when this prober cannot run it. Default: every kind that this build has
	// and Capabilities allow.
	Compile func(*meshv1.Check) (probe.Runner, error)
	// Capabilities are what this prober can do, as Hello states it: kinds of check, `ipv4`, `ipv6`. Default: what this machine can.
	Capabilities []string
	// Log takes what the prober has to say; default: nowhere.
	Log *slog.Logger
	// Meter makes the instruments; default: none.
	Meter metric.Meter
	// Tracer makes the spans of probes that are to be traced; default: none.
	Tracer trace.Tracer
	// DialCanary opens a TCP connection to a canary, as [net.Dialer.DialContext] does. Nil: the prober has no canaries.
	DialCanary func(ctx context.Context, network, address string) (net.Conn, error)
	// Machine is what the program sees of its machine, as Hello states it; see [machine.Facts]. Nil: nothing.
	Machine map[string]string
	// DialOptions are added to each connection to a server.
	DialOptions []grpc.DialOption
}

// Prober is the agent. Status may be called at any time, by anybody.
type Prober struct {
	cfg     Config
	deps    Deps
	tls     *tls.Config
	metrics *metrics
	agent   atomic.Pointer[agent] // while Run runs
}

// New checks the configuration, listing every fault, and reads the TLS files. It starts nothing and opens nothing.
func New(cfg Config, deps Deps) (*Prober, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Meter == nil {
		deps.Meter = metricnoop.Meter{}
	}
	if deps.Tracer == nil {
		deps.Tracer = tracenoop.Tracer{}
	}
	cfg = cfg.withDefaults()
	if deps.Capabilities == nil {
		deps.Capabilities = kinds.Capabilities()
	}
	if deps.Compile == nil {
		fence, err := probe.NewFence(cfg.AllowNetworks, cfg.DenyNetworks, cfg.UnixSockets)
		if err != nil {
			return nil, fmt.Errorf("prober: %w", err)
		}
		env := probe.Env{UserAgent: "probemesh/" + cfg.Build, Capabilities: deps.Capabilities, Shared: probe.NewShared(), Fence: fence}
		deps.Compile = func(c *meshv1.Check) (probe.Runner, error) { return kinds.Compile(c, env) }
	}
	p := &Prober{cfg: cfg, deps: deps}
	var err error
	if p.tls, err = cfg.tls(); err != nil {
		return nil, fmt.Errorf("prober: %w", err)
	}
	if p.metrics, err = newMetrics(deps.Meter); err != nil {
		return nil, fmt.Errorf("prober: %w", err)
	}
	return p, nil
}

// Status is a prober at a glance.
type Status struct {
	// Server with which there is a session, `servers/{server}`; empty without one.
	Server string
	// Assignments in the timetable, and Refused ones.
	Assignments, Refused int
	// Spooled results wait for an acknowledgement; Dropped ones are lost.
	Spooled, Dropped int64
	// ClockOffset is the prober's clock minus the mesh's.
	ClockOffset time.Duration
}

// Status returns the present status; zero while Run does not run.
func (p *Prober) Status() Status {
	a := p.agent.Load()
	if a == nil {
		return Status{}
	}
	s := a.spool.Stats()
	a.mu.RLock()
	defer a.mu.RUnlock()
	return Status{Server: a.link.Stats().Server, Assignments: len(a.jobs), Refused: len(a.refusals), Spooled: s.Held, Dropped: s.Dropped,
		ClockOffset: a.clock.Offset()}
}

// Run probes until ctx ends; then it starts no more probes, gives those that run 2 s, sends what is live, says Goodbye, flushes what is on disk, and
// returns nil, within 5 s. It returns an error at once when the data directory cannot be used or is in use by another process. Nothing that a server or a
// target does ends it. It is called once at a time.
func (p *Prober) Run(ctx context.Context) error {
	if err := os.MkdirAll(p.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("prober: %w; choose a directory that can be written with --data", err)
	}
	held, err := lock(p.cfg.Data)
	if err != nil {
		return fmt.Errorf("prober: %w", err)
	}
	defer held.Close()
	a, err := p.open(ctx)
	if err != nil {
		return fmt.Errorf("prober: %w", err)
	}
	registration, err := a.observe(p.deps.Meter)
	if err != nil {
		return fmt.Errorf("prober: %w", err)
	}
	defer registration.Unregister()
	p.agent.Store(a)
	defer p.agent.Store(nil)
	p.deps.Log.Info("prober started", "prober", p.cfg.Name, "datacenter", p.cfg.Datacenter, "build", p.cfg.Build)
	err = a.live(ctx)
	p.deps.Log.Info("prober stopped", "prober", p.cfg.Name)
	return err
}

// open opens what is on disk and joins the parts.
func (p *Prober) open(ctx context.Context) (*agent, error) {
	boot := make([]byte, 16)
	rand.Read(boot)
	bootID := hex.EncodeToString(boot)
	log := p.deps.Log
	results, err := spool.Open(spool.Config{Dir: filepath.Join(p.cfg.Data, "spool"), Limit: p.cfg.SpoolBytes, Boot: bootID}, log)
	if err != nil {
		return nil, err
	}
	store, err := assignments.Open(filepath.Join(p.cfg.Data, "assignments"), log)
	if err != nil {
		return nil, err
	}
	a := &agent{compile: p.deps.Compile, clock: clock.New(), aliases: probe.NewAliases(), spool: results, held: store, metrics: p.metrics, tracer: p.deps.Tracer, log: log,
		runs: newRuns(context.WithoutCancel(ctx)), jobs: map[string]*job{}, refusals: map[string]*meshv1.AssignmentRefusal{}}
	a.timetable = timetable.New(a.clock, p.cfg.InFlight, a.probe)
	a.link = link.New(link.Config{
		Prober: p.cfg.Name, Boot: bootID, Build: p.cfg.Build, Datacenter: p.cfg.Datacenter, Labels: p.cfg.Labels, Capabilities: p.deps.Capabilities,
		Machine: p.deps.Machine, Canaries: a.canaryStates,
		Protocol: version.Protocol, Servers: p.cfg.Servers, Book: filepath.Join(p.cfg.Data, "servers.json"), TLS: p.tls, DialOptions: p.deps.DialOptions,
	}, a, a.clock, results, log)
	if p.deps.DialCanary != nil {
		a.canaries = canary.New(canary.Config{Named: p.cfg.Canaries, Servers: a.link.Places, Dial: p.deps.DialCanary}, log)
	}
	a.restore()
	return a, nil
}

// live runs the parts until ctx ends, and ends them in order: what makes results, what sends them, what keeps them.
func (a *agent) live(ctx context.Context) error {
	base := context.WithoutCancel(ctx)
	sending, stopSending := context.WithCancel(base)
	keeping, stopKeeping := context.WithCancel(base)
	defer stopSending()
	defer stopKeeping()
	var makers, senders, keepers sync.WaitGroup
	keepers.Go(func() { a.spool.Run(keeping) })
	keepers.Go(func() { a.held.Run(keeping) })
	senders.Go(func() { a.link.Run(sending) })
	makers.Go(func() { a.timetable.Run(ctx, grace) })
	if a.canaries != nil {
		makers.Go(func() { _ = a.canaries.Run(ctx) })
	}
	makers.Go(func() {
		<-ctx.Done()
		a.runs.stop(grace)
	})
	makers.Wait()
	stopSending()
	senders.Wait()
	a.retireAll()
	stopKeeping()
	keepers.Wait()
	return a.spool.Close()
}
