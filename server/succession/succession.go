package succession

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/peer"
)

// Election is what the succession acts through: an [election.Election].
type Election interface {
	// Changes is the leader's key as it was last seen, and a channel that is closed when another look is worthwhile.
	Changes() (*statev1.LeaderRecord, <-chan struct{})
	// Leading is the term in which this server leads, by its own clock; 0 when it does not.
	Leading() int64
	// Evict takes leadership away from the leader of a term, and tells whether it did.
	Evict(ctx context.Context, term int64) (bool, error)
	// StepDown ends this server's reign if it has this term.
	StepDown(term int64, why error) bool
}

// Config says which server this is.
type Config struct {
	// Server is this server, "servers/a". Required.
	Server string
	// Unassisted leaves a dead leader to the end of its lease. Default false. What a leader does of itself does not depend on it.
	Unassisted bool
	// Dirs are the directories whose disk is watched: the data directory, and that of etcd where it may be another disk.
	Dirs []string
}

// Peers are the other servers as this one hears them.
type Peers interface {
	// Views is what this server makes of each.
	Views() []peer.View
	// Changed gives a channel that is closed when a view has changed: one heard again, missed, refused, or with another beat.
	Changed() <-chan struct{}
	// Beat has a beat sent at once, because what this server says of itself has changed.
	Beat()
}

// Deps are what it needs. Log and Meter are required, the functions may be nil.
type Deps struct {
	// Hears is how many probers this server hears, at itself or through others.
	Hears func() int
	// Uncommitted is how long the oldest write of its reign has been waiting for etcd.
	Uncommitted func() time.Duration
	// Read reads etcd linearizably.
	Read  func(ctx context.Context) error
	Log   *slog.Logger
	Meter metric.Meter
}

// Succession is one server's part. Its methods may be called concurrently; none of them blocks but Run.
type Succession struct {
	cfg   Config
	deps  Deps
	log   *slog.Logger
	m     *metrics
	disk  *disk
	poke  chan struct{} // something that has no channel of its own has changed
	tasks sync.WaitGroup

	mu       sync.Mutex // guards what follows
	elect    Election
	peers    Peers
	term     int64 // the reign that since is about
	since    time.Time
	memory   Memory
	done     []Eviction // carried out since the last judgement
	looked   time.Time  // when the last judgement was
	awoke    time.Time  // when this process was found to have stood still
	out      time.Time  // until when this server stays out of the election
	stopping time.Time
	read     time.Time // when the last good read began
	busy     bool      // an eviction or a read is under way
	resting  int64     // the term of which it was said that its eviction is held back
}

// New makes a succession; it does nothing before Run.
func New(cfg Config, deps Deps) (*Succession, error) {
	if deps.Hears == nil {
		deps.Hears = func() int { return 0 }
	}
	if deps.Uncommitted == nil {
		deps.Uncommitted = func() time.Duration { return 0 }
	}
	s := &Succession{cfg: cfg, deps: deps, log: deps.Log, disk: newDisk(cfg.Dirs), poke: make(chan struct{}, 1)}
	var err error
	s.m, err = newMetrics(deps.Meter, func() time.Duration {
		stall, _ := s.disk.stall(time.Now())
		return stall
	})
	return s, err
}

// MayStand is what the election asks when nobody leads.
func (s *Succession) MayStand(vacant time.Duration) bool {
	now := time.Now()
	f := s.facts(now)
	s.mu.Lock()
	out := s.out
	s.mu.Unlock()
	return MayStand(now, f, vacant, out)
}

// Stop says that this server stops: it does not stand any more, and its beats say so.
func (s *Succession) Stop() {
	s.mu.Lock()
	if s.stopping.IsZero() {
		s.stopping = time.Now()
	}
	s.mu.Unlock()
	s.others().Beat()
}

// Fill writes into a beat what the succession knows of this server: whether it leads, who does, and whether it can.
func (s *Succession) Fill(b *peerv1.Beat) {
	s.mu.Lock()
	elect, stopping := s.elect, s.stopping
	s.mu.Unlock()
	if elect != nil {
		rec, _ := elect.Changes()
		b.Leader, b.Term, b.Leading = rec.GetServer(), rec.GetTerm(), elect.Leading() != 0
	}
	if d := s.deps.Uncommitted(); d > 0 {
		b.Uncommitted = durationpb.New(d)
	}
	if stall, _ := s.disk.stall(time.Now()); stall > 0 {
		b.DiskStall = durationpb.New(stall)
	}
	if !stopping.IsZero() {
		b.StopTime = timestamppb.New(stopping)
	}
}

// DiskStall is how long a write of a small file to the disk has been taking; 0 below a second.
func (s *Succession) DiskStall() time.Duration {
	stall, _ := s.disk.stall(time.Now())
	return stall
}

// nobody are the peers of a server before Run.
type nobody struct{}

func (nobody) Views() []peer.View       { return nil }
func (nobody) Changed() <-chan struct{} { return nil }
func (nobody) Beat()                    {}

func (s *Succession) others() Peers {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers == nil {
		return nobody{}
	}
	return s.peers
}

// Run watches and acts until ctx ends, and returns nil. peers are a [peer.Peers]; nil for a server without others. A write that hangs in the disk cannot be waited for: its goroutine ends with it.
func (s *Succession) Run(ctx context.Context, elect Election, peers Peers) error {
	s.mu.Lock()
	s.elect, s.peers = elect, peers
	s.mu.Unlock()
	for _, dir := range s.disk.dirs {
		go s.disk.watch(ctx, dir, func() time.Duration {
			if elect.Leading() != 0 {
				return tryLeading
			}
			return tryIdle
		})
	}
	defer s.tasks.Wait()
	for {
		next, peers, leader := s.step(ctx, elect)
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		case <-peers:
		case <-leader:
		case <-s.poke:
		}
		t.Stop()
	}
}

// lookAgain is how often the facts that nobody tells of are looked at.
const lookAgain = 100 * time.Millisecond

// step judges once and acts. The channels are from before the look, so that no change is missed.
func (s *Succession) step(ctx context.Context, elect Election) (next time.Duration, peers, leader <-chan struct{}) {
	peers = s.others().Changed()
	_, leader = elect.Changes()
	now := time.Now()
	s.awake(now)
	f := s.facts(now)
	d := Judge(now, f)
	s.mu.Lock()
	d.Memory.Evictions = append(d.Memory.Evictions, s.done...)
	s.memory, s.done = d.Memory, nil
	s.mu.Unlock()
	switch d.Act {
	case Resign:
		s.resign(f, d)
	case Evict:
		s.evict(ctx, elect, f, d)
	case Read:
		s.readEtcd(ctx)
	case Rest:
		s.rest(f, d)
	}
	next = lookAgain
	if !d.Next.IsZero() {
		next = min(next, max(time.Until(d.Next), time.Millisecond))
	}
	return next, peers, leader
}

// stoodStill is how late a look may be before this process itself was away, rather than those that it did not hear meanwhile.
const stoodStill = lookAgain + 200*time.Millisecond

// awake notices that this process was stopped, or starved: then everybody seems to have been silent, and silence counts from now.
func (s *Succession) awake(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.looked.IsZero() && now.Sub(s.looked) > stoodStill {
		s.awoke = now
	}
	s.looked = now
}

// facts are gathered anew for each judgement.
func (s *Succession) facts(now time.Time) Facts {
	views := s.others().Views()
	stall, _ := s.disk.stall(now)
	f := Facts{Self: s.cfg.Server, Assisted: !s.cfg.Unassisted, Hears: s.deps.Hears(), Uncommitted: s.deps.Uncommitted(), DiskStall: stall}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Memory, f.Read, f.Stopping = s.memory, s.read, !s.stopping.IsZero()
	f.Peers = since(views, s.awoke)
	if s.elect == nil {
		return f
	}
	rec, _ := s.elect.Changes()
	f.Leader, f.Boot, f.Term, f.Leading = rec.GetServer(), rec.GetBootId(), rec.GetTerm(), s.elect.Leading()
	if f.Term != s.term {
		s.term, s.since = f.Term, now
	}
	f.Since = s.since
	return f
}

// since gives the views with silence counted from awoke at the earliest.
func since(views []peer.View, awoke time.Time) []peer.View {
	list := make([]peer.View, 0, len(views))
	for _, v := range views {
		if v.Heard.After(v.Since) && v.Heard.Before(awoke) {
			v.Heard = awoke
		} else if v.Since.Before(awoke) && !v.Heard.After(v.Since) {
			v.Since = awoke
		}
		list = append(list, v)
	}
	return list
}

// resign ends this server's own reign.
func (s *Succession) resign(f Facts, d Decision) {
	s.mu.Lock()
	elect := s.elect
	if d.Cause == Deaf {
		s.out = time.Now().Add(stayOut)
	}
	s.mu.Unlock()
	if !elect.StepDown(d.Term, fmt.Errorf("%w: %s", election.ErrResigned, sentence(d.Cause))) {
		return
	}
	s.others().Beat()
	s.m.resigned(d.Cause)
	_, dir := s.disk.stall(time.Now())
	s.log.Warn("this server gives up leadership", "cause", string(d.Cause), "why", sentence(d.Cause), "term", d.Term, "disk_stall", f.DiskStall.Round(time.Millisecond), "dir", dir,
		"uncommitted", f.Uncommitted.Round(time.Millisecond), "hears", f.Hears)
}

// attempt bounds one eviction or read: what is asked of an etcd leader that has just died is lost, and must be asked anew once another is elected.
const attempt = 400 * time.Millisecond

// evict takes leadership away, in a goroutine of its own.
func (s *Succession) evict(ctx context.Context, elect Election, f Facts, d Decision) {
	s.task(func() {
		ctx, cancel := context.WithTimeout(ctx, attempt)
		defer cancel()
		begun := time.Now()
		done, err := elect.Evict(ctx, d.Term)
		switch {
		case err != nil:
			s.m.evicted(d.Cause, "error")
			s.log.Debug("leader not evicted, trying again", "leader", f.Leader, "term", d.Term, "cause", string(d.Cause), "err", err)
			return
		case !done:
			s.m.evicted(d.Cause, "late")
			return
		}
		s.m.evicted(d.Cause, "evicted")
		s.log.Warn("leader evicted", "leader", f.Leader, "term", d.Term, "cause", string(d.Cause), "why", sentence(d.Cause), "silence", silenceOf(begun, f).Round(time.Millisecond),
			"took", time.Since(begun).Round(time.Millisecond))
		if d.Cause == Silent {
			s.mu.Lock()
			s.done = append(s.done, Eviction{Leader: f.Leader, Boot: f.Boot, Term: d.Term, At: time.Now()})
			s.mu.Unlock()
		}
	})
}

func (s *Succession) readEtcd(ctx context.Context) {
	if s.deps.Read == nil {
		return
	}
	s.task(func() {
		ctx, cancel := context.WithTimeout(ctx, attempt)
		defer cancel()
		begun := time.Now()
		if err := s.deps.Read(ctx); err != nil {
			s.log.Debug("etcd does not answer, so the silent leader is left to its lease", "err", err)
			return
		}
		s.mu.Lock()
		s.read, s.busy = begun, false
		s.mu.Unlock()
		select {
		case s.poke <- struct{}{}:
		default:
		}
	})
}

// rest says once a reign that an eviction is held back.
func (s *Succession) rest(f Facts, d Decision) {
	s.mu.Lock()
	told := s.resting == d.Term
	s.resting = d.Term
	s.mu.Unlock()
	if told {
		return
	}
	s.m.rests.Add(context.Background(), 1)
	s.log.Warn("a silent leader is left to its lease: this server has evicted one too recently; is a link between servers working one way only?",
		"leader", f.Leader, "term", d.Term, "until", d.Next.UTC().Format(time.RFC3339))
}

// task runs f unless another one is under way.
func (s *Succession) task(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return
	}
	s.busy = true
	s.tasks.Go(func() {
		f()
		s.mu.Lock()
		s.busy = false
		s.mu.Unlock()
	})
}

func silenceOf(now time.Time, f Facts) time.Duration {
	for _, v := range f.Peers {
		if v.Server == f.Leader {
			return v.Silence(now)
		}
	}
	return 0
}

// sentence is a cause for people.
func sentence(c Cause) string {
	switch c {
	case Gone:
		return "its process is gone: its address refuses connections"
	case Replaced:
		return "its process is gone: a newer one of the same server is heard"
	case Silent:
		return "it has not been heard"
	case Stalled:
		return "it says that its disk or its writes hang"
	case Disowned:
		return "it says that it does not lead any more, and its key is still there"
	case Withdrawn:
		return "it is stopping, and its key is still there"
	case DiskHangs:
		return "a write to its disk hangs"
	case Uncommitted:
		return "its writes wait for etcd"
	case Deaf:
		return "another server hears many more probers"
	}
	return string(c)
}
