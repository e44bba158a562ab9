package link

import (
	"context"
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

	home      *connection // run's goroutine only, as the next three
	homeDue   time.Time
	betterDue time.Time
	heldUntil time.Time

	mu   sync.Mutex // guards everything below
	warm *connection
	hold bool // a Redirect was followed
}

func newKeeper(l *Link, r *rand.Rand) *keeper {
	return &keeper{link: l, wake: make(chan struct{}, 1), moves: make(chan *connection, 1), rand: r}
}

// run keeps until ctx ends.
func (k *keeper) run(ctx context.Context) {
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			k.close()
			return
		case <-ticker.C:
		case <-k.wake:
		}
		current := k.link.Stats().Server
		if current == "" {
			continue // what is warm is about to be taken
		}
		ranked := k.link.book.ranked()
		k.tend(ctx, ranked, current)
		k.watch(ctx, ranked, current)
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
		if next := k.connect(ctx, p); next != nil {
			k.replace(c, next)
			k.link.log.Info("standby server chosen", "server", p.Server, "address", p.Address, "datacenter", p.Datacenter)
			return
		}
	}
	if len(list) > tries && at < 0 { // those further down, too, when the first do not answer
		for _, i := range k.rand.Perm(len(list) - tries)[:1] {
			if next := k.connect(ctx, list[tries+i]); next != nil {
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

// watch looks after the home while the session is elsewhere, and says so when it has been healthy for long enough.
func (k *keeper) watch(ctx context.Context, ranked []place, current string) {
	now := time.Now()
	k.mu.Lock()
	if k.hold {
		k.hold, k.heldUntil = false, now.Add(redirectHolds)
	}
	k.mu.Unlock()
	if len(ranked) == 0 || ranked[0].Server == current || now.Before(k.heldUntil) {
		k.home.close()
		k.home = nil
		k.discard()
		return
	}
	if k.home != nil && (k.home.place != ranked[0] || !serving(ctx, k.home.conn)) {
		k.home.close()
		k.home = nil
		return
	}
	if k.home == nil {
		if k.home = k.connect(ctx, ranked[0]); k.home != nil {
			k.homeDue = time.Now().Add(homeAfter + time.Duration(k.rand.Float64()*float64(homeAfter)))
		}
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

// connect makes a connection to a server that is serving; nil when it is not.
func (k *keeper) connect(ctx context.Context, p place) *connection {
	conn, err := k.link.dial(p.Address)
	if err != nil {
		return nil
	}
	if !serving(ctx, conn) {
		conn.Close()
		return nil
	}
	return &connection{place: p, conn: conn}
}

// serving asks the standard health service.
func serving(ctx context.Context, conn *grpc.ClientConn) bool {
	ctx, cancel := context.WithTimeout(ctx, checkMax)
	defer cancel()
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	return err == nil && answer.GetStatus() == healthv1.HealthCheckResponse_SERVING
}
