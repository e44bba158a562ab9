package link

import (
	"context"
	"crypto/tls"
	"errors"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spool"
	"github.com/probemesh/probemesh/prober/assignments"
	"github.com/probemesh/probemesh/prober/clock"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Agent is what the link serves: the prober. Its methods are called concurrently.
type Agent interface {
	// Apply applies an update and says what is run afterwards. It may take long; updates come one after the other.
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
	// Book is the file in which the addresses of the last Welcome are kept.
	Book string
	// TLS for the connection to servers; nil: none.
	TLS *tls.Config
	// DialOptions are added last.
	DialOptions []grpc.DialOption
}

// Link keeps a session. Safe for concurrent use.
type Link struct {
	cfg   Config
	agent Agent
	clock *clock.Clock
	spool *spool.Spool
	log   *slog.Logger
	book  *book
	rand  *rand.Rand // used by Run's goroutine only

	mu      sync.Mutex // guards everything below
	current *session   // nil: none, not even one that is beginning
	stats   Stats
}

// Stats says how the link does.
type Stats struct {
	// Server is the one with which there is a session, empty without.
	Server string
	// Sessions that began, since the start.
	Sessions int64
	// Queued results by priority: runs, changed, routine.
	Queued [3]int
	// Deferred results found their queue full and go as backlog.
	Deferred int64
	// Lost SLOW results had no session or found their queue full.
	Lost int64
}

// New returns a link; Run starts it.
func New(cfg Config, agent Agent, c *clock.Clock, s *spool.Spool, log *slog.Logger) *Link {
	h := fnv.New64a()
	h.Write([]byte(cfg.Prober + cfg.Boot))
	return &Link{cfg: cfg, agent: agent, clock: c, spool: s, log: log, book: openBook(cfg.Book, cfg.Servers, log), rand: rand.New(rand.NewPCG(h.Sum64(), 0))}
}

// Stats returns how the link does.
func (l *Link) Stats() Stats {
	l.mu.Lock()
	st, s := l.stats, l.current
	l.mu.Unlock()
	if s != nil {
		st.Queued = s.out.depth()
	}
	return st
}

// Send sends a LIVE result, which must not be changed afterwards. It never blocks. Without a session, or with a full queue, the result goes later as
// BACKLOG, from the spool; a SLOW one, which has no number, is dropped and counted.
func (l *Link) Send(r *meshv1.Result, p Priority) {
	l.mu.Lock()
	s := l.current
	l.mu.Unlock()
	if s != nil && s.out.push(r, p) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.GetSequence() == 0:
		l.stats.Lost++
	case s != nil:
		l.stats.Deferred++
		s.extend(r.GetSequence())
	}
}

// Refuse says that a run cannot be done. Without a session nobody waits for it.
func (l *Link) Refuse(runID, reason string) {
	l.mu.Lock()
	s := l.current
	l.mu.Unlock()
	if s != nil {
		s.out.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_RunRefusal{RunRefusal: &meshv1.RunRefusal{RunId: runID, Reason: reason}}})
	}
}

// Run keeps a session until ctx ends; then it sends what is live, says Goodbye, and returns nil within 2 s.
func (l *Link) Run(ctx context.Context) error {
	failures, said := 0, ""
	for ctx.Err() == nil {
		address, preferred := l.book.next()
		lived, err := l.attach(ctx, address)
		var moved *redirected
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &moved):
			l.log.Info("server asked the prober to attach elsewhere", "address", address, "addresses", moved.addresses, "reason", moved.reason)
			l.book.prefer(moved.addresses)
			failures, said = min(failures+1, redirectFailures), ""
			if lived >= livedFor {
				failures = 0
				continue
			}
		case lived >= livedFor:
			failures, said = 1, err.Error()
			l.log.Warn("session ended; the prober goes on and looks for a server", "address", address, "err", err)
		default:
			failures++
			if preferred { // a server that lives sent the prober here, and can be asked again
				failures = min(failures, redirectFailures)
			}
			if failures == 1 || said != err.Error() {
				l.log.Warn("no session; the prober goes on without and tries again", "address", address, "err", err)
			} else {
				l.log.Debug("no session", "address", address, "err", err)
			}
			said = err.Error()
		}
		if preferred && len(l.book.preferred) > 0 {
			continue
		}
		pause := backoff(failures, l.rand.Float64())
		if f, ok := fault.From(err); ok {
			pause = max(pause, min(f.RetryAfter, backoffMax))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// attach has one session, and returns how long it lived after Welcome, and why it ended.
func (l *Link) attach(ctx context.Context, address string) (time.Duration, error) {
	creds := insecure.NewCredentials()
	if l.cfg.TLS != nil {
		creds = credentials.NewTLS(l.cfg.TLS)
	}
	options := append([]grpc.DialOption{grpc.WithTransportCredentials(creds), grpc.WithUserAgent("probemesh-prober/" + l.cfg.Build)}, l.cfg.DialOptions...)
	// The dialer resolves the name anew for each attempt; gRPC's own resolver would have to be told to.
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	s := newSession(l, address)
	l.setCurrent(s, "")
	err = s.run(ctx, meshv1.NewSessionServiceClient(conn))
	l.setCurrent(nil, "")
	var lived time.Duration
	if !s.began.IsZero() {
		lived = time.Since(s.began)
	}
	return lived, err
}

func (l *Link) setCurrent(s *session, server string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current, l.stats.Server = s, server
	if server != "" {
		l.stats.Sessions++
	}
}

// redirected is why a session ended to which Redirect came.
type redirected struct {
	addresses []string
	reason    string
}

func (r *redirected) Error() string { return "redirected: " + r.reason }
