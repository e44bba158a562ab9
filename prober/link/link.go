package link

import (
	"crypto/tls"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/probemesh/probemesh/internal/spool"
	"github.com/probemesh/probemesh/prober/assignments"
	"github.com/probemesh/probemesh/prober/clock"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Agent is what the link serves: the prober. Its methods are called concurrently.
type Agent interface {
	// Apply applies an update and says what is run afterwards. It may take long; updates come one after the other, also when sessions overlap.
	Apply(*assignments.Update) *meshv1.AssignmentAck
	// Holding says what is run now.
	Holding() *meshv1.AssignmentAck
	// Inventory lists what is held, and its revision.
	Inventory() ([]*meshv1.InventoryItem, int64)
	// Newest returns the newest result of every assignment, on the mesh's clock.
	Newest() []*meshv1.Result
	// Run starts a probe that was asked for, or refuses it. It returns at once; the result comes by [Link.Send], the refusal by [Link.Refuse].
	Run(*meshv1.RunNow)
}

// Config says who the prober is and where servers are.
type Config struct {
	// Prober is its name, without `probers/`.
	Prober string
	// Boot is the number of this boot, 32 hex characters.
	Boot string
	// Build is the version of the program.
	Build string
	// Datacenter is where it runs, and Labels are its other failure domains.
	Datacenter string
	Labels     map[string]string
	// Capabilities are what it can do.
	Capabilities []string
	// Protocol is the version of the session protocol.
	Protocol int32
	// Servers are addresses, `host:port`; at least one.
	Servers []string
	// Book is the file in which the servers of the last Welcome are kept.
	Book string
	// TLS for the connection to servers; nil: none.
	TLS *tls.Config
	// Machine is what the program sees of its machine; see Hello.
	Machine map[string]string
	// Canaries tells how the prober's canaries do, for each Ping. It must not block. Nil: there are none.
	Canaries func() []*meshv1.CanaryState
	// DialOptions are added last.
	DialOptions []grpc.DialOption
}

// Link keeps a session. Safe for concurrent use.
type Link struct {
	cfg    Config
	agent  Agent
	clock  *clock.Clock
	spool  *spool.Spool
	log    *slog.Logger
	book   *book
	keeper *keeper
	rand   *rand.Rand // used by Run's goroutine only

	applying sync.Mutex // held while an update is applied: two sessions may have one

	mu      sync.Mutex // guards everything below
	current *session   // nil: none that has been welcomed
	next    *session   // one that is beginning
	old     *session   // one that was current and lingers
	lost    time.Time  // when the last session ended; zero while there is one
	stats   Stats
}

// Stats says how the link does.
type Stats struct {
	// Server is the one with which there is a session, empty without.
	Server string
	// Home is the server where the prober belongs, empty before the first Welcome.
	Home string
	// HomeFault says why the home does not answer although it is among the servers, once it has not for 30 s; else empty.
	HomeFault string
	// Standby is the server to which a connection is warm, empty when to none.
	Standby string
	// Sessions that began, since the start.
	Sessions int64
	// Lost sessions had begun and ended without the prober's doing; Redirected ones by a server's wish. Homecomings are moves to the home beside a session that lived.
	Lost, Redirected, Homecomings int64
	// Gap is how long the prober was without a session when it had lost one the last time.
	Gap time.Duration
	// Queued results by priority: runs, changed, routine.
	Queued [3]int
	// Deferred results found their queue full and go as backlog.
	Deferred int64
	// Missed SLOW results had no session or found their queue full.
	Missed int64
	// Trimmed results were too large for the server and lost their evidence.
	Trimmed int64
}

// New returns a link; Run starts it.
func New(cfg Config, agent Agent, c *clock.Clock, s *spool.Spool, log *slog.Logger) *Link {
	h := fnv.New64a()
	h.Write([]byte(cfg.Prober + cfg.Boot))
	l := &Link{cfg: cfg, agent: agent, clock: c, spool: s, log: log, book: openBook(cfg, log), rand: rand.New(rand.NewPCG(h.Sum64(), 0))}
	l.keeper = newKeeper(l, rand.New(rand.NewPCG(h.Sum64(), 1)))
	return l
}

// Stats returns how the link does.
func (l *Link) Stats() Stats {
	l.mu.Lock()
	st, s := l.stats, l.current
	l.mu.Unlock()
	if s != nil {
		st.Queued = s.out.depth()
	}
	if all := l.book.ranked(); len(all) > 0 {
		st.Home = all[0].Server
	}
	st.Standby, st.HomeFault = l.keeper.warmServer(), l.keeper.homeFault()
	return st
}

// SendRoutine sends a LIVE result that says nothing new, as [Link.Send] does with [Routine]. encoded is the result as it is encoded; it is copied, and r is not kept: nearly all results
// go this way, and each would else be encoded once more a second later, and live so long.
func (l *Link) SendRoutine(r *meshv1.Result, encoded []byte) {
	l.mu.Lock()
	s := l.current
	if s == nil {
		s = l.next
	}
	l.mu.Unlock()
	if s == nil || !s.out.add(encoded) {
		l.Send(r, Routine)
	}
}

// Send sends a LIVE result, which must not be changed afterwards. It never blocks. Without a session, or with a full queue, the result goes later as
// BACKLOG, from the spool; a SLOW one, which has no number, is dropped and counted. While sessions overlap, the result of a run that was asked for goes to all of
// them: one of the servers waits for it, and nobody is harmed by the second.
func (l *Link) Send(r *meshv1.Result, p Priority) {
	l.mu.Lock()
	s, others := l.current, []*session(nil)
	if s == nil {
		s = l.next
	} else if p == Run && l.next != nil {
		others = append(others, l.next)
	}
	if p == Run && l.old != nil {
		others = append(others, l.old)
	}
	l.mu.Unlock()
	for _, o := range others {
		o.out.push(r, p)
	}
	if s != nil && s.out.push(r, p) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.GetSequence() == 0:
		l.stats.Missed++
	case s != nil:
		l.stats.Deferred++
		s.extend(r.GetSequence())
	}
}

// Refuse says that a run cannot be done. Without a session nobody waits for it.
func (l *Link) Refuse(runID, reason string) {
	l.mu.Lock()
	to := []*session{l.current, l.old}
	l.mu.Unlock()
	for _, s := range to {
		if s != nil {
			s.out.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_RunRefusal{RunRefusal: &meshv1.RunRefusal{RunId: runID, Reason: reason}}})
		}
	}
}

// dial makes a connection, which begins to connect when it is first used.
func (l *Link) dial(address string) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if l.cfg.TLS != nil {
		creds = credentials.NewTLS(l.cfg.TLS)
	}
	options := append([]grpc.DialOption{grpc.WithTransportCredentials(creds), grpc.WithUserAgent("probemesh-prober/" + l.cfg.Build)}, l.cfg.DialOptions...)
	// The dialer resolves the name anew for each attempt; gRPC's own resolver would have to be told to.
	return grpc.NewClient("passthrough:///"+address, options...)
}

// beginning makes a session known that is about to say Hello.
func (l *Link) beginning(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.beside = l.current != nil
	l.next = s
}

// promote makes a session that was welcomed the current one. The one before, if there is one, lingers and takes nothing more but the results of runs.
func (l *Link) promote(s *session, server string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current != nil {
		l.old = l.current
		l.old.retired.Store(true)
		l.old.out.retire()
		l.stats.Homecomings++
	}
	if !l.lost.IsZero() {
		l.stats.Gap = time.Since(l.lost)
	}
	l.current, l.next, l.lost, l.stats.Server = s, nil, time.Time{}, server
	l.stats.Sessions++
}

// forget notes that a session has ended.
func (l *Link) forget(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s {
	case l.next:
		l.next = nil
	case l.old:
		l.old = nil
	case l.current:
		l.current, l.stats.Server, l.lost = nil, "", time.Now()
	}
}

func (l *Link) count(what func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	what(&l.stats)
}

// redirected is why a session ended to which Redirect came.
type redirected struct {
	addresses []string
	reason    string
}

func (r *redirected) Error() string { return "redirected: " + r.reason }
