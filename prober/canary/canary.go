package canary

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// The timing that the package doc explains.
const (
	Every        = 5 * time.Second
	RoundMax     = 1500 * time.Millisecond
	attempts     = 3
	attemptEvery = 400 * time.Millisecond
	slack        = 250 * time.Millisecond
)

// NamedMax is how many canaries an operator may name.
const NamedMax = 8

// The families, as capabilities name them.
const (
	IPv4 = "ipv4"
	IPv6 = "ipv6"
)

// Config says what the canaries are.
type Config struct {
	// Named are the operator's, `host:port`; at most NamedMax.
	Named []string
	// Servers gives the addresses of servers, `host:port`, best first. It is called once a round and must not block. Nil: none.
	Servers func() []string
	// Dial opens a connection. Required.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Lookup resolves a host name. Default: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Own tells whether an address is this machine's. Default: loopback addresses and those of its interfaces.
	Own func(netip.Addr) bool
}

// State is how the canaries of one family do.
type State struct {
	// Family is IPv4 or IPv6.
	Family string
	// Failing: none answered in the newest round, and they may be believed.
	Failing bool
	// Since is when Failing turned last, on this machine's clock.
	Since time.Time
	// Targets is how many there are, Answering how many answered in the newest round.
	Targets, Answering int
	// Error is the last one of a canary that did not answer in the newest round.
	Error string
	// Excused counts the failures over the family that were the prober's own.
	Excused int64
}

// Canary keeps canaries. All methods are safe for concurrent use; those of a nil Canary say that there is none.
type Canary struct {
	cfg Config
	log *slog.Logger

	mu       sync.Mutex // guards everything below
	base     context.Context
	rounds   sync.WaitGroup
	families map[string]*family
	running  *round
	resolved map[string]resolution
}

// family is what is known over one address family.
type family struct {
	targets []*target
	state   State
	dead    time.Time // when the newest round ended in which nobody answered
	heard   time.Time // when something that was probed answered, and its address
	from    netip.Addr
	told    time.Time // when the round began that state is of
}

// target is one canary at one address.
type target struct {
	name    string
	address netip.AddrPort
	named   bool
	ever    bool      // it has answered since the start
	last    time.Time // when it answered last
}

// New makes canaries. [Canary.Run] starts them.
func New(cfg Config, log *slog.Logger) *Canary {
	if cfg.Lookup == nil {
		cfg.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.Own == nil {
		cfg.Own = ownAddress
	}
	return &Canary{cfg: cfg, log: log, families: map[string]*family{IPv4: {state: State{Family: IPv4}}, IPv6: {state: State{Family: IPv6}}}, resolved: map[string]resolution{}}
}

// Run asks the canaries every 5 s until ctx ends; then it waits for what runs, and returns nil.
func (c *Canary) Run(ctx context.Context) error {
	c.mu.Lock()
	c.base = ctx
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.base = nil
		c.mu.Unlock()
		c.rounds.Wait()
	}()
	ticker := time.NewTicker(Every)
	defer ticker.Stop()
	for {
		c.refresh(ctx)
		c.round(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// round is one time of asking everybody.
type round struct {
	began time.Time
	done  chan struct{}

	// What follows is guarded by the mu of the Canary.
	answered map[*target]bool
	news     chan struct{} // closed, and made anew, at each answer
	err      map[string]string
}

// round gives the newest round, if it runs and began at the time or later, or begins one; nil when Run does not run. So at most one begins every 250 ms.
func (c *Canary) round(since time.Time) *round {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil && !c.running.began.Before(since) {
		return c.running
	}
	if c.base == nil || c.base.Err() != nil {
		return nil
	}
	r := &round{began: time.Now(), done: make(chan struct{}), answered: map[*target]bool{}, news: make(chan struct{}), err: map[string]string{}}
	c.running = r
	ctx, cancel := context.WithTimeout(c.base, RoundMax)
	var asked sync.WaitGroup
	for name, f := range c.families {
		for _, t := range f.targets {
			asked.Go(func() { c.ask(ctx, r, name, t) })
		}
	}
	c.rounds.Go(func() {
		asked.Wait()
		cancel()
		c.finish(r)
	})
	return r
}

// ask tries a target until it answers or the round is over.
func (c *Canary) ask(ctx context.Context, r *round, family string, t *target) {
	ctx, cancel := context.WithCancel(ctx)
	var tries sync.WaitGroup
	defer func() {
		cancel()
		tries.Wait()
	}()
	failed := make(chan error, attempts)
	answered := make(chan struct{}, attempts)
	for i := range attempts {
		tries.Go(func() {
			wait := time.NewTimer(time.Duration(i) * attemptEvery)
			defer wait.Stop()
			select {
			case <-ctx.Done():
				return
			case <-wait.C:
			}
			conn, err := c.cfg.Dial(ctx, "tcp", t.address.String())
			if err == nil {
				_ = conn.Close()
			}
			if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
				answered <- struct{}{}
				return
			}
			failed <- err
		})
	}
	err := errors.New("no answer within " + RoundMax.String())
	for range attempts {
		select {
		case <-answered:
			c.mu.Lock()
			defer c.mu.Unlock()
			t.ever, t.last, r.answered[t] = true, time.Now(), true
			close(r.news)
			r.news = make(chan struct{})
			return
		case e := <-failed:
			if ctx.Err() == nil {
				err = e
			}
			continue
		case <-ctx.Done():
		}
		break
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.err[family] = t.name + ": " + err.Error()
}

// finish takes a round in.
func (c *Canary) finish(r *round) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(r.done)
	if c.running == r {
		c.running = nil
	}
	if c.base == nil || c.base.Err() != nil {
		return // it was cut off
	}
	now := time.Now()
	for _, f := range c.families {
		answering, believed := 0, false
		for _, t := range f.targets {
			if r.answered[t] {
				answering++
			}
			believed = believed || t.ever || t.named
		}
		failing := believed && answering == 0
		if failing {
			f.dead = now
		}
		if r.began.Before(f.told) {
			continue // a newer one has ended before it
		}
		f.told = r.began
		if f.state.Since.IsZero() || f.state.Failing != failing {
			if f.state.Failing != failing {
				c.tell(f, failing, r)
			}
			f.state.Failing, f.state.Since = failing, now
		}
		f.state.Targets, f.state.Answering, f.state.Error = len(f.targets), answering, r.err[f.state.Family]
	}
}

func (c *Canary) tell(f *family, failing bool, r *round) {
	if failing {
		c.log.Warn("no canary answers; failures over this address family are reported as errors of this prober", "family", f.state.Family, "canaries", len(f.targets),
			"err", r.err[f.state.Family])
		return
	}
	c.log.Info("a canary answers again", "family", f.state.Family, "after", time.Since(f.state.Since).Round(time.Millisecond))
}

// States gives how the canaries do, for each family that has any; IPv4 first.
func (c *Canary) States() []State {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []State
	for _, name := range []string{IPv4, IPv6} {
		if f := c.families[name]; len(f.targets) > 0 && !f.state.Since.IsZero() {
			list = append(list, f.state)
		}
	}
	return list
}
