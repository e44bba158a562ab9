package controller

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// Peers are the other servers, as the controller sees them: it tells them what its own sessions bring, and asks those that hold a prober for runs. No method blocks,
// and none calls the controller before it returns: they are called with its mutex held, so that what is told has the order in which [Controller.Local] changes. So the
// callee must not hold a lock that they need while it calls the controller. A new follower is best enrolled first and given [Controller.Local] then.
// *peer.Peers is one.
type Peers interface {
	// Presence tells that a session of this server began, changed or ended. The message is the callee's.
	Presence(*peerv1.Presence)
	// Votes passes on what may be votes of this server's probers. Neither the slice nor the results may be changed.
	Votes([]*meshv1.Result)
	// Ask sends a run to the server, by its resource name, that holds the prober, by its bare name; false when that server is not heard, or its queue is full. What
	// comes of it arrives as a vote, or at [Controller.PeerRefusal].
	Ask(server, prober string, run *meshv1.RunNow) bool
	// Refuse passes on that a prober of this server will not do a run. It goes to the server that asked for the run; nothing happens if none did.
	Refuse(prober, runID, reason string)
}

// Servers are all servers of the mesh as the store has them, this one included, sorted by name, and a channel that is closed when they change. The records must not be
// changed.
func (c *Controller) Servers() ([]*statev1.ServerRecord, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*statev1.ServerRecord, 0, len(c.servers))
	for _, name := range slices.Sorted(maps.Keys(c.servers)) {
		list = append(list, c.servers[name])
	}
	return list, c.changed
}

// Local is what a server that begins to follow this one needs: the presence of each session, and the newest result of each of its probers and checks.
func (c *Controller) Local() ([]*peerv1.Presence, []*meshv1.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var presences []*peerv1.Presence
	var results []*meshv1.Result
	for _, name := range slices.Sorted(maps.Keys(c.sessions)) {
		if h := c.heldLocked(name); h != nil {
			presences = append(presences, h.message(name))
			results = append(results, c.mind.Newest(name)...)
		}
	}
	return presences, results
}

// PeerPresences takes what another server says of its sessions; with snapshot set they are all that it has.
func (c *Controller) PeerPresences(server string, snapshot bool, presences []*peerv1.Presence) {
	if server == c.name() {
		return
	}
	for _, p := range presences {
		SortRefusals(p.GetRefusals()) // an older server does not
	}
	c.mu.Lock()
	var events []scheduler.Event
	if snapshot {
		said := make(map[string]bool, len(presences))
		for _, p := range presences {
			said[p.GetProber()] = true
		}
		for _, prober := range c.presences.at(server) {
			if !said[prober] {
				events = append(events, c.dropLocked(prober, server, "", false, false)...)
			}
		}
	}
	var rivals []rivalry
	for _, p := range presences {
		switch name := p.GetProber(); {
		case name == "":
		case p.GetGone():
			events = append(events, c.dropLocked(name, server, p.GetBootId(), p.GetLeaving(), false)...)
		default:
			h := held{server: server, boot: p.GetBootId(), since: p.GetSince().AsTime(), said: p}
			events = append(events, c.putLocked(name, h)...)
			if r, found := c.rivalLocked(name, &h); found {
				rivals = append(rivals, r)
			}
		}
	}
	if snapshot {
		c.presences.heard[server] = true
		events = append(events, c.missingLocked()...)
	}
	notes := c.applyLocked(events)
	c.mu.Unlock()
	c.tell(notes)
	c.settle(rivals)
}

// PeerVotes takes results that may be votes from another server; each names its prober.
func (c *Controller) PeerVotes(_ string, results []*meshv1.Result) {
	events := make([]scheduler.Event, 0, len(results))
	for _, r := range results {
		events = append(events, scheduler.Cast{Prober: spec.ID(r.GetProber()), Result: r})
	}
	c.count(results, events, false)
}

// PeerSilent says that a server has not been heard for three seconds, or is gone: its sessions do not count any more.
func (c *Controller) PeerSilent(server string) {
	c.mu.Lock()
	delete(c.presences.heard, server)
	var events []scheduler.Event
	for _, prober := range c.presences.at(server) {
		events = append(events, c.dropLocked(prober, server, "", false, true)...)
	}
	notes := c.applyLocked(events)
	c.mu.Unlock()
	c.tell(notes)
}

// PeerRefusal says that a run that was sent with Peers.Ask will not be done.
func (c *Controller) PeerRefusal(prober, runID, reason string) { c.refused(prober, runID, reason) }

// RunHere sends a run to a prober that has a session at this server; false when it has none, or its queue is full.
func (c *Controller) RunHere(prober string, run *meshv1.RunNow) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[prober]
	return s != nil && s.RunNow(run)
}

// name is this server's resource name.
func (c *Controller) name() string { return spec.Name(spec.Servers, c.cfg.Server) }

// heldLocked is this server's own session of a prober; nil when it has none.
func (c *Controller) heldLocked(prober string) *held {
	for _, h := range c.presences.of(prober) {
		if h.session != nil {
			return &h
		}
	}
	return nil
}

func (c *Controller) putLocked(prober string, h held) []scheduler.Event {
	events, ended := c.presences.put(prober, h)
	if ended != nil {
		c.abandonLocked(prober, ended, sessionEnded)
	}
	return events
}

func (c *Controller) dropLocked(prober, server, boot string, leaving, unheard bool) []scheduler.Event {
	events, ended := c.presences.drop(prober, server, boot, leaving, unheard)
	switch {
	case ended != nil && unheard:
		c.abandonLocked(prober, ended, server+", which held its session, is not heard any more")
	case ended != nil:
		c.abandonLocked(prober, ended, sessionEnded)
	}
	return events
}

// missingLocked tells the mind of the probers that nobody has, once every server has said which ones it has. Until then nobody knows.
func (c *Controller) missingLocked() []scheduler.Event {
	for name := range c.servers {
		if name != c.name() && !c.presences.heard[name] {
			return nil
		}
	}
	var events []scheduler.Event
	for _, prober := range slices.Sorted(maps.Keys(c.enrolments)) {
		if len(c.presences.of(prober)) == 0 {
			events = append(events, scheduler.ProberOffline{Name: prober})
		}
	}
	return events
}

// presenceEvery is how often the facts of sessions are looked at; restEvery how often those that change with every ping are told.
const (
	presenceEvery = time.Second
	restEvery     = 5 * time.Second
)

// tellPresence tells the peers of what changes in sessions, until ctx ends: what matters within a second, the rest every five.
func (c *Controller) tellPresence(ctx context.Context) {
	t := time.NewTicker(presenceEvery)
	defer t.Stop()
	type told struct {
		session Session
		facts   SessionFacts
		at      time.Time
	}
	known := map[string]told{}
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return
		case now = <-t.C:
		}
		c.mu.Lock()
		for name := range known {
			if c.sessions[name] == nil {
				delete(known, name)
			}
		}
		for name, s := range c.sessions {
			f := s.Facts()
			k := known[name]
			matters := k.session != s || k.facts.InSync != f.InSync || k.facts.Revision != f.Revision || k.facts.Dropped != f.Dropped || len(k.facts.Refusals) != len(f.Refusals) ||
				failingCanaries(k.facts.Canaries) != failingCanaries(f.Canaries)
			if !matters && now.Sub(k.at) < restEvery {
				continue
			}
			known[name] = told{s, f, now}
			if h := c.heldLocked(name); h != nil {
				c.deps.Peers.Presence(h.message(name))
			}
		}
		c.mu.Unlock()
	}
}

// failingCanaries names the families whose canaries fail.
func failingCanaries(list []*meshv1.CanaryState) (families string) {
	for _, s := range list {
		if s.GetFailing() {
			families += s.GetFamily() + " "
		}
	}
	return families
}

// Hears is how many probers have a session at a server that this one hears, itself included.
func (c *Controller) Hears() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.presences.probers)
}

// FillBeat fills in what the controller knows of this server: who leads, its sessions, what it hears, its revision, and whether etcd keeps its writes waiting.
func (c *Controller) FillBeat(b *peerv1.Beat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.Leader, b.Term = c.leader.GetServer(), c.leader.GetTerm()
	b.Leading = c.reign != nil && c.reign.ctx.Err() == nil
	b.Sessions, b.Hears, b.Revision = int32(len(c.sessions)), int32(len(c.presences.probers)), c.revision
	if age := c.waits.oldest(time.Now()); b.Leading && age > 0 {
		b.Uncommitted = durationpb.New(age)
	}
}
