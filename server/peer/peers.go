package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/spool"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/history"
)

// Protocol is the version of PeerService that this package speaks.
const Protocol = 1

// RememberFor is how long a server that is gone is remembered: its address, how far it is with this server's journal, and so what the journal keeps for it.
const RememberFor = 24 * time.Hour

// Config says which server this is, and how much it keeps for the others.
type Config struct {
	// Server is the bare name of this server, for example "a".
	Server string
	// BootID is the number of this process.
	BootID string
	// Datacenter is where it runs.
	Datacenter string
	// Dir is the directory of the journal and of what is remembered of the others. It is made if need be; no other process may use it.
	Dir string
	// JournalBytes is how much disk the journal may take; at least 1 MiB, default 1 GiB (some five million results without evidence). When it is full, the oldest
	// entries are dropped, counted and logged.
	JournalBytes int64
	// CatchUp is how many entries a second a follower that was away is sent above what comes in. Default 4000: an hour of a hundred results a second is caught up
	// with in a minute and a half, and costs the follower less than a tenth of a core meanwhile.
	CatchUp int
	// ServerName is the name that the other servers' certificates are valid for, when that is not the host of their addresses.
	ServerName string
}

// History is what the peers need of the history. Append returns when the entries are in its log; it may block, and it may be repeated.
type History interface {
	Append(ctx context.Context, entries []history.Entry) error
}

// Deps are the parts that the peers work with.
type Deps struct {
	Log   *slog.Logger
	Meter metric.Meter
	// Dial makes a client of the server at an address, without connecting. It is called anew for each attempt, and the peers close what it gives.
	Dial func(address string) (*grpc.ClientConn, error)
	// History is this server's own.
	History History
	// Fill adds to each beat what it says of the server. The functions are called one after the other, each 200 ms, and must not block.
	Fill []func(*peerv1.Beat)
}

// Peers is this server's part in the streams between servers. Make it with New, run it once. Its methods may be called concurrently, and before Run.
type Peers struct {
	peerv1.UnimplementedPeerServiceServer
	cfg     Config
	deps    Deps
	name    string // resource name
	log     *slog.Logger
	m       *metrics
	journal *journal
	memory  *memory
	urge    chan struct{} // a beat is wanted at once
	review  chan struct{} // whom to follow may have changed

	fresh   time.Time     // when the journal was begun
	running chan struct{} // closed when the two below are set
	mesh    Mesh
	stop    context.Context // ends streams of followers

	// mu guards everything below.
	mu       sync.Mutex
	others   map[string]*other // all that are remembered, by resource name
	feeds    map[*feed]struct{}
	surveyed bool // the store's list has been read
	beat     *peerv1.Beat
	ticked   time.Time // when the clock of this process was last seen going
	changed  chan struct{}
	// complaint is the refusal of a follower that was logged last, and complained is when.
	complaint  string
	complained time.Time
}

// New opens the journal and reads what is remembered of the other servers. The error says that the directory cannot be used; files that are corrupt are no error.
func New(cfg Config, deps Deps) (*Peers, error) {
	if cfg.JournalBytes == 0 {
		cfg.JournalBytes = 1 << 30
	}
	if cfg.CatchUp == 0 {
		cfg.CatchUp = 4000
	}
	if cfg.JournalBytes < spool.LimitMin {
		return nil, fmt.Errorf("journal: a limit of %d bytes is below the minimum of %d", cfg.JournalBytes, spool.LimitMin)
	}
	p := &Peers{
		cfg: cfg, deps: deps, name: spec.Name(spec.Servers, cfg.Server), log: deps.Log, urge: make(chan struct{}, 1), review: make(chan struct{}, 1),
		running: make(chan struct{}), others: map[string]*other{}, feeds: map[*feed]struct{}{}, changed: make(chan struct{}),
	}
	var err error
	if p.journal, err = openJournal(cfg, deps.Log); err != nil {
		return nil, err
	}
	if p.memory, err = openMemory(cfg.Dir, deps.Log); err != nil {
		return nil, err
	}
	p.fresh = p.journal.begun(time.Now())
	p.recall(time.Now())
	p.m, err = newMetrics(deps.Meter, p)
	return p, err
}

// Register puts the service into a gRPC server.
func (p *Peers) Register(r grpc.ServiceRegistrar) { peerv1.RegisterPeerServiceServer(r, p) }

// Run follows the others and serves those that follow until ctx ends; then it ends all streams, writes down what it remembers and returns nil. It returns an error
// when the journal could not be written at the end.
func (p *Peers) Run(ctx context.Context, mesh Mesh) error {
	defer p.m.unregister()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mesh, p.stop = mesh, ctx
	close(p.running)
	p.mu.Lock()
	p.ticked = time.Now()
	p.mu.Unlock()

	var work, keep sync.WaitGroup
	keeping, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	defer stopKeeping()
	keep.Go(func() { p.patiently(keeping, func() { p.journal.run(keeping) }) })
	work.Go(func() { p.pulse(ctx) })
	work.Go(func() { p.patiently(ctx, func() { p.remember(ctx) }) })
	p.survey(ctx, &work)
	cancel()
	work.Wait()
	err := p.finish()
	stopKeeping()
	keep.Wait()
	return err
}

// finish writes everything down. A disk that hangs is not waited for.
func (p *Peers) finish() error {
	done := make(chan error, 1)
	go func() {
		p.memory.save(p.memories())
		done <- p.journal.close()
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errors.New("the journal cannot be closed: its disk hangs")
	}
}

// Presence tells the followers that a prober attached, changed or went. It belongs to the peers afterwards. It does not block.
func (p *Peers) Presence(x *peerv1.Presence) {
	p.relay(item{presence: x})
}

// Votes tells the followers of results that may be votes. They must not be changed afterwards. It does not block.
func (p *Peers) Votes(results []*meshv1.Result) {
	if len(results) > 0 {
		p.relay(item{votes: &votes{results: results}})
	}
}

func (p *Peers) relay(i item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for f := range p.feeds {
		f.state(i)
	}
}

// Append puts results that this server's own probers brought into its history, and then into the journal for the other servers. It returns when both have them; then
// the probers may forget them. An error means that all must be appended again.
func (p *Peers) Append(ctx context.Context, entries []history.Entry) error {
	if err := p.deps.History.Append(ctx, entries); err != nil {
		return err
	}
	if p.lone() {
		return nil
	}
	if !p.journal.put(entries) {
		return fault.New(codes.Unavailable, meshv1.ErrorReason_SHUTTING_DOWN, "", "this server is stopping; hand the results to another").Retry(time.Second)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for f := range p.feeds {
		f.fresh(len(entries))
	}
	return nil
}

// Ask sends a run to the server (its resource name) that holds the prober (its bare name). False: no stream to it is open, or its queue is full. When the stream breaks before the run
// was sent, Mesh.PeerRefusal says so.
func (p *Peers) Ask(server, prober string, run *meshv1.RunNow) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.others[server]
	if o == nil || o.asks == nil {
		return false
	}
	select {
	case o.asks <- &peerv1.Run{Prober: prober, Run: onItsClock(run, o.skew.offset())}:
		return true
	default:
		p.m.dropped("run", 1)
		return false
	}
}

// Refuse tells the server that asked for a run that the prober (its bare name) will not do it. Nothing happens when none asked, or when it follows no more. It does not
// block.
func (p *Peers) Refuse(prober, runID, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for f := range p.feeds {
		if f.asked(asked{prober, runID}) {
			f.refuse(&peerv1.Refusal{Prober: prober, RunId: runID, Reason: reason})
		}
	}
}

// Beat sends a beat to every follower at once, because what it says has changed. Calls within 20 ms are one beat.
func (p *Peers) Beat() { signal(p.urge) }

// Views is what this server makes of the others, sorted by name.
func (p *Peers) Views() []View {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.awakeLocked(now)
	return p.viewsLocked()
}

// Watch is Views, and a channel that is closed when they change.
func (p *Peers) Watch() ([]View, <-chan struct{}) {
	changed := p.Changed()
	return p.Views(), changed
}

// Changed gives a channel that is closed at the next change of the views: a beat, a server that is missed, refuses connections, comes back, is new or gone. Take it before
// Views, and nothing is overlooked.
func (p *Peers) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *Peers) changedLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// signal wakes whoever waits on c, a channel with room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ending is why a stream ended: the cause of its context when there is one, else what the stream said.
func ending(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

func broken(format string, args ...any) error {
	return fault.New(codes.InvalidArgument, meshv1.ErrorReason_SESSION_BROKEN, "", "the stream between the servers is broken: %s", fmt.Sprintf(format, args...))
}
