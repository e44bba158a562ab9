package link

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// moveJitter spreads the first attempts of the probers of a server that has died. A server attaches a prober in well below a millisecond: 50 ms let a
	// thousand come without a queue that would be felt.
	moveJitter = 50 * time.Millisecond
	// quickMoves is how many sessions in a row may end young before the next attempt has to wait although there is another server to go to.
	quickMoves = 2
	// settledAfter is how long a session must have lived for its end to be no reason to wait, however often it happens: servers that are restarted one after the
	// other end every session within seconds, and each time the next server is there. It bounds the attempts to about one a second.
	settledAfter = time.Second
	// lingerMin is how long a session stays that was replaced by another, so that what its server has just sent is still taken in.
	lingerMin = 200 * time.Millisecond
	// lingerMax is how long it stays for runs that its server has asked for. A check's timeout is 10 s unless somebody set another.
	lingerMax = 10 * time.Second
)

var errMoved = errors.New("the prober has a session with another server")

// attempt is a session, from the first try on.
type attempt struct {
	s         *session
	address   string
	preferred bool          // a Redirect named the address
	ended     chan struct{} // closed at the end; err and lived are valid then
	err       error
	lived     time.Duration // since Welcome; 0 when none came
}

// Run keeps a session until ctx ends; then it sends what is live, says Goodbye, and returns nil within 2 s.
func (l *Link) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { l.keeper.run(ctx) })
	r := &retries{link: l}
	for ctx.Err() == nil {
		a := l.follow(ctx, &group, r.next(ctx, &group))
		if ctx.Err() != nil {
			return nil
		}
		if pause := r.pause(a); pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
	return nil
}

// begin starts a session over a connection, which is closed when the session has ended; nil makes one to the address.
func (l *Link) begin(ctx context.Context, group *sync.WaitGroup, address string, preferred bool, conn *grpc.ClientConn) *attempt {
	a := &attempt{s: newSession(l, address), address: address, preferred: preferred, ended: make(chan struct{})}
	l.beginning(a.s)
	group.Go(func() {
		defer close(a.ended)
		defer l.forget(a.s)
		if conn == nil {
			if conn, a.err = l.dial(address); a.err != nil {
				return
			}
		}
		defer conn.Close()
		a.err = a.s.run(ctx, meshv1.NewSessionServiceClient(conn))
		if !a.s.began.IsZero() {
			a.lived = time.Since(a.s.began)
		}
	})
	return a
}

// follow stays with a session until there is none left, and returns the last one. Meanwhile it takes the prober home when the keeper says so: first it attaches
// there, then it leaves.
func (l *Link) follow(ctx context.Context, group *sync.WaitGroup, a *attempt) *attempt {
	for {
		select {
		case <-a.ended:
			return a
		case c := <-l.keeper.moves:
			select {
			case <-a.s.welcomed:
			default: // not attached, and so not away from home
				c.close()
				continue
			}
			l.log.Info("the home server is healthy; the prober attaches there before it leaves the other", "server", c.Server, "address", c.Address)
			home := l.begin(ctx, group, c.Address, false, c.conn)
			select {
			case <-home.s.welcomed:
				group.Go(a.linger)
				a = home
			case <-home.ended:
				l.log.Warn("the home server did not take the prober; it stays where it is", "server", c.Server, "address", c.Address, "err", home.err)
			case <-a.ended: // the home is being asked already
				a = home
			}
		}
	}
}

// linger ends a session that another has replaced, once its server has the runs that it asked for.
func (a *attempt) linger() {
	for begin := time.Now(); time.Since(begin) < lingerMax; {
		select {
		case <-a.ended:
			return
		case <-time.After(lingerMin):
		}
		if a.s.asked.empty(time.Now()) {
			break
		}
	}
	a.s.end(errMoved)
	<-a.ended
}

// retries says where to try next and when. Used by one goroutine.
type retries struct {
	link     *Link
	failures int    // in a row; a session that lived for 10 s is none, and a round of addresses at which nobody answered is one
	silent   int    // addresses in a row at which nobody answered, since the last pause
	said     string // what was logged last
}

// next begins the next attempt: where a Redirect sent the prober, else over the warm connection, else at the next address.
func (r *retries) next(ctx context.Context, group *sync.WaitGroup) *attempt {
	l := r.link
	if !l.book.hasPreferred() {
		if c := l.keeper.take(""); c != nil {
			return l.begin(ctx, group, c.Address, false, c.conn)
		}
	}
	address, preferred := l.book.next()
	if c := l.keeper.take(address); c != nil {
		return l.begin(ctx, group, address, preferred, c.conn)
	}
	return l.begin(ctx, group, address, preferred, nil)
}

// pause takes the end of an attempt in and says how long to wait before the next.
func (r *retries) pause(a *attempt) time.Duration {
	l := r.link
	var moved *redirected
	if errors.As(a.err, &moved) {
		l.log.Info("server asked the prober to attach elsewhere", "address", a.address, "addresses", moved.addresses, "reason", moved.reason)
		l.count(func(s *Stats) { s.Redirected++ })
		l.keeper.stay()
		l.book.prefer(moved.addresses)
		l.book.leave(a.address)
		r.failures, r.said = min(r.failures+1, redirectFailures), ""
		if a.lived >= livedFor {
			r.failures = 0
		}
		return r.after(a, a.lived >= livedFor || l.book.hasPreferred())
	}
	began := !a.s.began.IsZero()
	if r.silent++; began || answered(a.err) {
		r.silent = 0
	}
	if r.silent == 0 || r.silent >= l.book.size() {
		r.failures++
	}
	if a.lived >= livedFor {
		r.failures, r.said = 1, ""
	}
	if a.preferred { // a server that lives sent the prober here, and can be asked again
		r.failures = min(r.failures, redirectFailures)
	}
	if began {
		l.log.Warn("session ended; the prober goes on and looks for a server", "address", a.address, "lived", a.lived, "err", a.err)
		l.count(func(s *Stats) { s.Lost++ })
		l.book.leave(a.address)
		r.said = ""
		return r.after(a, (r.failures <= quickMoves || a.lived >= settledAfter) && (l.book.hasPreferred() || l.keeper.warmServer() != "" || l.book.size() > 1))
	}
	if r.said != a.err.Error() {
		l.log.Warn("no session; the prober goes on without and tries again", "address", a.address, "err", a.err)
	} else {
		l.log.Debug("no session", "address", a.address, "err", a.err)
	}
	r.said = a.err.Error()
	if r.silent >= l.book.size() {
		r.silent = 0
		return r.after(a, false)
	}
	return r.after(a, r.silent > 0 || a.preferred && l.book.hasPreferred())
}

// answered tells whether a server said why there is no session. Else nobody is spared by a pause before the next address is tried.
func answered(err error) bool {
	if errors.Is(err, errAttach) {
		return false
	}
	f, ok := fault.From(err)
	return !ok || f.Code != codes.Unavailable || f.Reason != meshv1.ErrorReason_ERROR_REASON_UNSPECIFIED || f.RetryAfter > 0
}

// after is the pause: a few milliseconds when there is another server to try at once, else by backoff, and not before a server that refused wants to be asked again.
func (r *retries) after(a *attempt, atOnce bool) time.Duration {
	chance := r.link.rand.Float64()
	if atOnce {
		return time.Duration(chance * float64(moveJitter))
	}
	pause := backoff(r.failures, chance)
	if f, ok := fault.From(a.err); ok {
		// The wait asked for is the least; all that were refused together would come back together without the rest.
		if least := min(f.RetryAfter, backoffMax); pause < least {
			pause = least + time.Duration(chance*float64(least))
		}
	}
	return pause
}
