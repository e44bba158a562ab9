package controller

import (
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// Records are what the servers that are alive publish of themselves, by name, as the store has them; the caller's own copies.
func (c *Controller) Records() []*statev1.ServerRecord {
	list, _ := c.Servers()
	for i, r := range list {
		list[i] = proto.CloneOf(r)
	}
	return list
}

// Unjudged gives the checks that have been UNKNOWN for longer than is usual, and why.
func (c *Controller) Unjudged() scheduler.Unjudged {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mind.Unjudged(time.Now())
}
