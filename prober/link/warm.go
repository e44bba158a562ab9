package link

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	// checkEvery is how often the warm connection and an absent home are asked for their health. With 10,000 probers it is 2,000 small calls a second over all servers.
	checkEvery = 5 * time.Second
	// checkMax is how long a server may take to answer; one that takes longer would be a bad choice.
	checkMax = 2 * time.Second
	// betterEvery is how often it is looked whether a server answers again that is a better standby than the present one.
	betterEvery = time.Minute
	// tries bounds how many standbys are tried in one round, so that a round ends also when many servers do not answer.
	tries = 3
	// homeAfter is how long a home must have been healthy before the prober goes back; up to as long again is added by chance, so that the probers of a server that
	// has come back do not all return at once.
	homeAfter = 30 * time.Second
	// freshFor is how long after the first Welcome of a run the home is gone to at once when it is another server: nothing has been lost yet, and a prober that was started
	// with the address of some server should not stay there because it was named first. It is long enough for the servers of a mesh that starts as a whole to appear.
	freshFor = homeAfter
	// freshJitter spreads those moves.
	freshJitter = time.Second
	// redirectHolds is how long the prober stays where a Redirect sent it: the server that sent it had a reason.
	redirectHolds = 10 * time.Minute
)

// connection is one to a server that answered that it is serving.
type connection struct {
	place
	conn *grpc.ClientConn
}

func (c *connection) close() {
	if c != nil {
		c.conn.Close()
	}
}

// keeper keeps a connection warm beside the session, and watches for the home to come back while the session is elsewhere. Safe for concurrent use; run is called
// once.
type keeper struct {
	link  *Link
	wake  chan struct{}
	moves chan *connection // home is healthy again; the receiver owns the connection
	rand  *rand.Rand       // run's goroutine only

	home      *connection // run's goroutine only, as all down to missed
	homeDue   time.Time
	betterDue time.Time
	heldUntil time.Time
	first     time.Time // when the first session was seen
	missed    missed

	mu   sync.Mutex // guards everything below
	warm *connection
	hold bool // a Redirect was followed
	// fault says why the home does not answer, once that has been said.
	fault string
}

func newKeeper(l *Link, r *rand.Rand) *keeper {
	return &keeper{link: l, wake: make(chan struct{}, 1), moves: make(chan *connection, 1), rand: r}
}

// run keeps until ctx ends.
func (k *keeper) run(ctx context.Context) {
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	soon := time.NewTimer(checkEvery) // when the home is gone to, if that is before the next tick
	defer soon.Stop()
	for {
		select {
		case <-ctx.Done():
			k.close()
			return
		case <-ticker.C:
		case <-soon.C:
		case <-k.wake:
		}
		st := k.link.Stats()
		if st.Server == "" {
			continue // what is warm is about to be taken
		}
		if k.first.IsZero() {
			k.first = time.Now()
		}
		ranked := k.link.book.ranked()
		fresh := st.Lost == 0 && st.Redirected == 0 && time.Since(k.first) < freshFor
		if fresh { // the way home is short, and what is warm depends on where the session is
			k.watch(ctx, ranked, st.Server, fresh)
		}
		k.tend(ctx, ranked, st.Server)
		if !fresh {
			k.watch(ctx, ranked, st.Server, fresh)
		}
		if left := time.Until(k.homeDue); k.home != nil && left > 0 {
			soon.Reset(left)
		}
	}
}

func (k *keeper) close() {
	k.take("").close()
	k.home.close()
	k.discard()
}

// discard closes a connection to the home that nobody has come for.
func (k *keeper) discard() {
	select {
	case c := <-k.moves:
		c.close()
	default:
	}
}

// nudge makes run look at once: there is a session, or other servers.
func (k *keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// stay keeps the prober from going home for a while: a server has sent it away from there.
func (k *keeper) stay() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hold = true
}

// warmServer is the server to which a connection is warm, empty when to none.
func (k *keeper) warmServer() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.warm == nil {
		return ""
	}
	return k.warm.Server
}

// take gives the warm connection away, nil when there is none that is ready; with an address, only when it is to that.
func (k *keeper) take(address string) *connection {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.warm
	if c == nil || address != "" && c.Address != address {
		return nil
	}
	k.warm = nil
	if c.conn.GetState() != connectivity.Ready {
		c.close()
		return nil
	}
	return c
}

// tend checks the warm connection, and finds another when it is not good any more.
func (k *keeper) tend(ctx context.Context, ranked []place, current string) {
	list := standbys(ranked, current)
	k.mu.Lock()
	c := k.warm
	k.mu.Unlock()
	at := -1
	if c != nil {
		at = slices.Index(list, c.place)
		if at < 0 || !serving(ctx, c.conn) {
			k.replace(c, nil)
			k.link.log.Info("the standby server does not answer or is gone; another is looked for", "server", c.Server, "address", c.Address)
			at = -1
		}
	}
	now := time.Now()
	if at == 0 || at > 0 && now.Before(k.betterDue) {
		return
	}
	k.betterDue = now.Add(betterEvery)
	if at > 0 {
		list = list[:at]
	}
	for _, p := range list[:min(len(list), tries)] {
		if next, err := k.connect(ctx, p); err == nil {
			k.replace(c, next)
			k.link.log.Info("standby server chosen", "server", p.Server, "address", p.Address, "datacenter", p.Datacenter)
			return
		}
	}
	if len(list) > tries && at < 0 { // those further down, too, when the first do not answer
		for _, i := range k.rand.Perm(len(list) - tries)[:1] {
			if next, err := k.connect(ctx, list[tries+i]); err == nil {
				k.replace(c, next)
			}
		}
	}
}

// replace puts a connection into the place of another, unless that was taken meanwhile and nothing is gained.
func (k *keeper) replace(old, next *connection) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.warm == old && old != nil {
		old.close()
		k.warm = nil
	}
	if next == nil {
		return
	}
	k.warm.close()
	k.warm = next
}

// watch looks after the home while the session is elsewhere, and says so when it has been healthy for long enough; fresh: when it is healthy.
func (k *keeper) watch(ctx context.Context, ranked []place, current string, fresh bool) {
	now := time.Now()
	k.mu.Lock()
	if k.hold {
		k.hold, k.heldUntil = false, now.Add(redirectHolds)
	}
	k.mu.Unlock()
	if len(ranked) == 0 || ranked[0].Server == current || now.Before(k.heldUntil) {
		k.home.close()
		k.home = nil
		k.answered()
		k.discard()
		return
	}
	if k.home != nil && (k.home.place != ranked[0] || !serving(ctx, k.home.conn)) {
		k.home.close()
		k.home = nil
		return
	}
	if k.home == nil {
		var err error
		if k.home, err = k.connect(ctx, ranked[0]); err != nil {
			k.miss(ranked[0], current, err)
			return
		}
		k.answered()
		wait := homeAfter
		if fresh {
			wait = 0
		}
		k.homeDue = time.Now().Add(wait + time.Duration(k.rand.Float64()*float64(max(wait, freshJitter))))
		return
	}
	if now.Before(k.homeDue) {
		return
	}
	select {
	case k.moves <- k.home:
		k.home = nil
	default:
	}
}

// missed is a home that does not answer although the mesh has it among its servers.
type missed struct {
	place
	since time.Time
}

// answered takes in that the home answers, or is where the prober is.
func (k *keeper) answered() {
	k.missed = missed{}
	k.setFault("")
}

func (k *keeper) setFault(s string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fault = s
}

// homeFault says why the home does not answer; empty when that is not worth telling.
func (k *keeper) homeFault() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fault
}

// miss takes in that the home did not answer. A server that has died leaves the list of servers within seconds; one that is on it for longer lives, and this prober cannot
// reach the address under which it is published.
func (k *keeper) miss(home place, current string, err error) {
	if k.missed.place != home {
		k.missed = missed{place: home, since: time.Now()}
		k.setFault("")
	}
	if time.Since(k.missed.since) < homeAfter {
		return
	}
	if k.homeFault() == "" {
		k.link.log.Warn("the home server of this prober is part of the mesh, but does not answer from here at the address that it publishes; the prober stays elsewhere",
			"server", home.Server, "address", home.Address, "attached_to", current, "err", err)
	}
	k.setFault(fmt.Sprintf("%s at %s: %v", home.Server, home.Address, err))
}

// connect makes a connection to a server that is serving; the error says why there is none.
func (k *keeper) connect(ctx context.Context, p place) (*connection, error) {
	conn, err := k.link.dial(p.Address)
	if err != nil {
		return nil, err
	}
	if err := health(ctx, conn); err != nil {
		conn.Close()
		return nil, err
	}
	return &connection{place: p, conn: conn}, nil
}

// serving tells whether a server says that it is serving.
func serving(ctx context.Context, conn *grpc.ClientConn) bool { return health(ctx, conn) == nil }

// health asks the standard health service; nil: it is serving.
func health(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, checkMax)
	defer cancel()
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if st := answer.GetStatus(); st != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("it answers, and says that it is %s", st)
	}
	return nil
}
