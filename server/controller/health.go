package controller

import "time"

// Unjudged gives the checks that have been UNKNOWN for longer than is usual, sorted: those that lack votes, and those that ask for votes from more failure domains
// than there are; total is how many checks are not paused.
func (c *Controller) Unjudged() (blind, unsatisfiable []string, total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mind.Unjudged(time.Now())
}
