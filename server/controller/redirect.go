package controller

import (
	"context"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
)

// Until servers relay votes to each other, probers attach where decisions are made. A prober is sent to a leader only if that one answers: while a leader has died
// and no other is elected yet, probers stay where they are, and the next leader may well be the server that they are attached to.

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
