package election

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	"github.com/probemesh/probemesh/server/store"
)

// Why a reign ended: the cause of its context.
var (
	// ErrLeaseLost says that etcd does not know the lease any more.
	ErrLeaseLost = errors.New("the leader's lease is lost")
	// ErrNotRenewed says that the lease could not be renewed in time, by the leader's own clock.
	ErrNotRenewed = errors.New("the leader's lease could not be renewed in time")
	// ErrEvicted says that the leader's key is gone or another's.
	ErrEvicted = errors.New("the leader's key was taken away")
	// ErrResigned says that the leader was asked to resign.
	ErrResigned = errors.New("the leader resigned")
)

const (
	// resignTimeout bounds how long resigning may take; after that the lease expires by itself.
	resignTimeout = time.Second
	// holdOff is how long a server that resigned lets others go first.
	holdOff = time.Second
	// standTimeout bounds the first attempts to become the leader. It is short, since what is asked of an etcd leader that has just died is lost without a word, and must be
	// asked anew once another is elected. That is over after standSoon attempts: an etcd that has not answered by then is slow, and is given more time for each further one,
	// up to standMost. An attempt is two writes, one after the other.
	standTimeout = time.Second
	standSoon    = 3
	standMost    = 8 * time.Second
	// callTimeout bounds each call to etcd outside a reign.
	callTimeout = 3 * time.Second
)

// Config says who stands for election.
type Config struct {
	// Server is this server, "servers/a". Required.
	Server string
	// BootID tells this run of the server from its former ones. Required.
	BootID string
	// TTL is how long a silent leader keeps its key: whole seconds, 2s to 60s; default 5s. etcd raises it to one and a half of its own
	// election timeouts; what it granted counts. Failover without help takes up to TTL; below 5s a garbage collection or a slow disk of etcd can
	// cost a healthy leader its term.
	TTL time.Duration
	// MayStand is asked while nobody leads, with how long that has been so: at once, and again every 50ms while it says no. With false this server lets others
	// go first. It must not block. Default: always true.
	MayStand func(vacant time.Duration) bool
	// Log gets the beginning and the end of reigns. Default: none.
	Log *slog.Logger
	// Meter gets the metrics. Default: none.
	Meter metric.Meter
}

// Validate lists every fault.
func (c Config) Validate() error {
	var faults []error
	if c.Server == "" || c.BootID == "" {
		faults = append(faults, errors.New("election: server and boot id are required"))
	}
	if c.TTL != 0 && (c.TTL < 2*time.Second || c.TTL > time.Minute || c.TTL%time.Second != 0) {
		faults = append(faults, fmt.Errorf("election: lease time %s is not a whole number of seconds from 2s to 60s; use 5s unless failover must be faster", c.TTL))
	}
	return errors.Join(faults...)
}

// Reign is one server's time as the leader.
type Reign struct {
	// Term is its number, one more than that of the reign before.
	Term int64
	// Fence goes with every write of the leader.
	Fence store.Fence
	// Server is the leader, "servers/a".
	Server string
}

// Election is one server's part in the election. Its methods may be called concurrently; Run at most once.
type Election struct {
	client *clientv3.Client
	cfg    Config
	log    *slog.Logger
	m      *metrics
	// watches counts the watches that observe, which alone touches it, has opened.
	watches int

	// mu guards everything below.
	mu      sync.Mutex
	seen    sighting
	newest  int64                   // the highest term ever seen
	changed chan struct{}           // closed and replaced when seen changes
	term    int64                   // of the present reign, 0 while not leading
	reigns  context.Context         // of the present reign, nil while not leading
	end     context.CancelCauseFunc // ends the present reign
}

// New makes an election on the client, which stays the caller's to close. It panics when cfg does not validate: check user input before.
func New(client *clientv3.Client, cfg Config) *Election {
	if err := cfg.Validate(); err != nil {
		panic(err.Error())
	}
	if cfg.TTL == 0 {
		cfg.TTL = 5 * time.Second
	}
	if cfg.MayStand == nil {
		cfg.MayStand = func(time.Duration) bool { return true }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Meter == nil {
		cfg.Meter = noop.Meter{}
	}
	e := &Election{client: client, cfg: cfg, log: cfg.Log, changed: make(chan struct{})}
	e.m = newMetrics(cfg.Meter, e.leading)
	return e
}

// Run stands for election for ever. It calls lead with the context of each reign; when lead returns, the server resigns and, after a moment for
// the others, stands again. lead must return soon after its context has ended: until then this server cannot lead again. Run ends only with ctx, and
// has resigned by then, which takes at most a second.
func (e *Election) Run(ctx context.Context, lead func(context.Context, Reign) error) error {
	var observers sync.WaitGroup
	defer observers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	observers.Go(func() { e.observe(ctx) })

	pause := 50 * time.Millisecond
	failures := 0 // of attempts to stand, in a row
	for first := true; ; {
		if err := e.vacancy(ctx, first); err != nil {
			return err
		}
		r, until, lease, err := e.stand(ctx, standTime(failures))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			failures++
			e.log.WarnContext(ctx, "cannot stand for election, trying again", "err", err)
			if !sleep(ctx, pause) {
				return ctx.Err()
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause, first, failures = 50*time.Millisecond, false, 0
		if r == nil {
			// Another was faster. The watch may tell of that much later, or not at all: without a look and a pause, this server would stand again at once, and again.
			_, _ = e.look(ctx) // if it fails, the pause is all the better
			if !sleep(ctx, askAgain) {
				return ctx.Err()
			}
			continue
		}
		e.reign(ctx, *r, until, lease, lead)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e.letOthers(ctx, r.Term)
	}
}

// standTime is how long an attempt to become the leader may take after so many failures in a row.
func standTime(failures int) time.Duration {
	return min(standTimeout<<min(max(failures-standSoon+1, 0), 10), standMost)
}

// Leader is who leads as far as this server has seen, and whether anybody does. The record is the caller's own.
func (e *Election) Leader() (*statev1.LeaderRecord, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen.rec == nil {
		return nil, false
	}
	return proto.Clone(e.seen.rec).(*statev1.LeaderRecord), true
}

// Changes is what Leader gives, and a channel that is closed when another look is worthwhile.
func (e *Election) Changes() (*statev1.LeaderRecord, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen.rec == nil {
		return nil, e.changed
	}
	return proto.CloneOf(e.seen.rec), e.changed
}

// Leading is the term in which this server leads by its own clock; 0 when it does not. From the moment at which a reign is ended, for whatever reason, it is 0, also
// while the reign's last work comes to its end.
func (e *Election) Leading() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term == 0 || e.reigns.Err() != nil {
		return 0
	}
	return e.term
}

// Resign ends the present reign if it has this term, and tells whether it had. It does not wait.
func (e *Election) Resign(term int64) bool { return e.StepDown(term, ErrResigned) }

// StepDown is Resign with another reason, which becomes the cause of the reign's context. It should match ErrResigned.
func (e *Election) StepDown(term int64, why error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if term == 0 || e.term != term {
		return false
	}
	e.end(why)
	return true
}

// Evict takes the key away from the leader of a term, if that is the one this server sees, by compare-and-delete, and tells whether it did. It is
// safe at any time, since every effect of a leader is fenced: a wrong eviction costs an election. Limiting how often is the caller's.
func (e *Election) Evict(ctx context.Context, term int64) (bool, error) {
	e.mu.Lock()
	seen := e.seen
	e.mu.Unlock()
	if seen.rec.GetTerm() != term || seen.rec == nil {
		return false, nil
	}
	return e.deleteKey(ctx, seen.created)
}

// leading is the term of the present reign, 0 while another leads or nobody.
func (e *Election) leading() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.term
}

// deleteKey deletes the leader's key if it was created at this revision.
func (e *Election) deleteKey(ctx context.Context, created int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := e.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(store.LeaderKey), "=", created)).
		Then(clientv3.OpDelete(store.LeaderKey)).Commit()
	if err != nil {
		return false, fmt.Errorf("delete the leader's key: %w", err)
	}
	return r.Succeeded, nil
}

// letOthers waits until another reign is seen or the hold-off is over, so that resigning means handing over.
func (e *Election) letOthers(ctx context.Context, term int64) {
	t := time.NewTimer(holdOff)
	defer t.Stop()
	for {
		e.mu.Lock()
		newest, changed := e.newest, e.changed
		e.mu.Unlock()
		if newest > term {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-changed:
		}
	}
}

// sleep is false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
