package controller

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
)

// Until servers relay votes to each other, probers attach where decisions are made. A prober is sent to a leader only if that one answers: while a leader has died
// and no other is elected yet, probers stay where they are, and the next leader may well be the server that they are attached to.
//
// A server that is cut off from etcd alone, such as by its own disk, does not hear who leads now, while its probers still reach it and would stay: then the leader
// would hear nobody. So a server that knows of no leader that answers asks its peers.

const (
	// redirectEvery is how often sessions that are not at the leader are looked at, besides whenever the leader changes.
	redirectEvery = 5 * time.Second
	// reachTimeout is how long the leader may take to answer.
	reachTimeout = 500 * time.Millisecond
)

// signal sets a channel of one element, if it is not set.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// redirect sends the probers of this server to the leader, when that is another server, until ctx ends.
func (c *Controller) redirect(ctx context.Context) {
	t := time.NewTicker(redirectEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-c.moved:
		}
		c.mu.Lock()
		n := len(c.sessions)
		c.mu.Unlock()
		if n == 0 {
			continue
		}
		to := c.Elsewhere()
		if len(to) == 0 {
			to = c.hearsay(ctx)
		}
		if len(to) == 0 {
			continue
		}
		c.mu.Lock()
		// Asking took time: this server may lead by now.
		for _, s := range c.sessions {
			if c.reign == nil {
				s.Redirect(to, "another server leads")
			}
		}
		c.mu.Unlock()
	}
}

// Elsewhere gives the address of the leader when that is another server that answers; empty when probers may stay. It may take half a second.
func (c *Controller) Elsewhere() []string {
	address, elsewhere := c.LeaderElsewhere()
	if c.deps.Peers != nil {
		return nil // every server hears all probers
	}
	if !elsewhere || address == "" {
		return nil
	}
	if c.deps.Reach != nil {
		ctx, cancel := context.WithTimeout(context.Background(), reachTimeout)
		defer cancel()
		if err := c.deps.Reach(ctx, address); err != nil {
			c.log.Debug("the leader does not answer; probers stay here", "server", spec.Name(spec.Servers, c.cfg.Server), "address", address, "err", err)
			return nil
		}
	}
	return []string{address}
}

// hearsay gives the address of a leader of whom only other servers know; empty when this server leads, or when none of them knows of a newer term than this one. It
// may take two seconds.
func (c *Controller) hearsay(ctx context.Context) []string {
	if c.deps.Ask == nil {
		return nil
	}
	own := spec.Name(spec.Servers, c.cfg.Server)
	c.mu.Lock()
	leading, known := c.reign != nil, c.leader.GetTerm()
	peers := map[string]bool{}
	for name, s := range c.servers {
		if a := s.GetGrpcAddress(); name != own && a != "" {
			peers[a] = true
		}
	}
	mine := c.servers[own].GetGrpcAddress()
	c.mu.Unlock()
	if leading {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 4*reachTimeout)
	defer cancel()
	for _, peer := range slices.Sorted(maps.Keys(peers)) {
		one, done := context.WithTimeout(ctx, reachTimeout)
		address, term, err := c.deps.Ask(one, peer)
		done()
		switch {
		case err != nil:
			c.log.Debug("a server does not say who leads", "address", peer, "err", err)
		case term > known && address != "" && address != mine:
			c.log.Warn("this server has not heard from etcd who leads, another server has; probers are sent there", "term", term, "address", address)
			return []string{address}
		}
	}
	return nil
}
