package controller

import "github.com/probemesh/probemesh/scheduler"

// Apply gives events to the mind that come neither from the store nor from sessions: how etcd is, and what other servers know of outages. It must not be called
// from Deps.Glass.
func (c *Controller) Apply(events ...scheduler.Event) { c.apply(events...) }

// Term is the newest term of which the store has told, also when nobody leads now; 0 for none.
func (c *Controller) Term() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term
}

// Undecided is how many checks have a verdict that nobody can write down.
func (c *Controller) Undecided() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mind.CountUndecided()
}
