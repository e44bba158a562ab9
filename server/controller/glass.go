package controller

import (
	"cmp"
	"slices"
	"time"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// Apply gives events to the mind that come neither from the store nor from sessions: how etcd is, and what other servers know of outages. It must not be called
// from Deps.Glass.
func (c *Controller) Apply(events ...scheduler.Event) { c.apply(events...) }

// Term is the newest term of which the store has told, also when nobody leads now; 0 for none.
func (c *Controller) Term() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term
}

// Applied is the etcd revision up to which the store has told of everything; 0 before it has told of anything.
func (c *Controller) Applied() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision
}

// OpenAfter are the incidents of checks that are open and were changed after a revision of etcd, by check. They are the caller's.
func (c *Controller) OpenAfter(revision int64) []*peerv1.KnownIncident {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*peerv1.KnownIncident
	for _, k := range c.mind.OpenAfter(revision) {
		i := k.Incident
		list = append(list, &peerv1.KnownIncident{ModRevision: k.ModRevision, Incident: i.GetName(), Check: i.GetCheck(), Verdict: i.GetVerdict(), Reason: i.GetReason(),
			StartTime: i.GetStartTime(), OpenTime: i.GetOpenTime(), BreakGlassKey: i.GetBreakGlassKey(), Group: i.GetGroup()})
	}
	slices.SortFunc(list, func(a, b *peerv1.KnownIncident) int { return cmp.Compare(a.GetCheck(), b.GetCheck()) })
	return list
}

// ClosedAfter are the incidents of checks that have ended after a revision of etcd, of each check the last, by check. They are the caller's.
func (c *Controller) ClosedAfter(revision int64) []*peerv1.ClosedIncident {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*peerv1.ClosedIncident
	for _, e := range c.mind.ClosedAfter(revision) {
		list = append(list, &peerv1.ClosedIncident{ModRevision: e.ModRevision, Incident: e.Incident, Check: e.Check})
	}
	slices.SortFunc(list, func(a, b *peerv1.ClosedIncident) int { return cmp.Compare(a.GetCheck(), b.GetCheck()) })
	return list
}

const (
	// joinPause is when to ask again about an outage that was told without etcd and is not written down yet.
	joinPause = 100 * time.Millisecond
	// knowPause is when to ask again about an incident that this server's mind does not know yet; commonly its own watch of the store is a moment later than the asker's. If it is not,
	// the pause grows to an eighth of what it has taken so far: thousands may ask, under the mutex that votes wait for.
	knowPause = 2 * time.Millisecond
	// knowDoubt is how long that may take before the watch is doubted, knowPatience how long it is waited for at all: an alert must not wait for ever for a watch that is silent.
	knowDoubt, knowPatience = 500 * time.Millisecond, 5 * time.Second
)

// Joining tells how long nobody is to be told of the incident of a check, written at a revision of the store: people may have been told of it without etcd, and it is not taken in yet; or the mind
// does not know of it, and if etcd were lost now, would tell of it so. If 0, revision is that of the outbox which tells what people are still owed; 0 for any.
func (c *Controller) Joining(check string, written int64) (wait time.Duration, revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.revision < written {
		if c.unknown.IsZero() {
			c.unknown = now
		}
		waited := now.Sub(c.unknown)
		if waited >= knowDoubt {
			c.deps.Store.Doubt()
		}
		if waited < knowPatience {
			return min(max(knowPause, waited/8), knowPatience-waited), 0
		}
	}
	joining, revision := c.mind.Joining(check, now)
	if joining {
		return joinPause, 0
	}
	return 0, revision
}

// OutageKey is the key of the outage without etcd that an incident of a check, open as far as is known here, has taken in; else empty.
func (c *Controller) OutageKey(check, incident string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mind.OutageKey(check, incident)
}

// Undecided is how many checks have a verdict that nobody can write down.
func (c *Controller) Undecided() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mind.CountUndecided()
}
