package controller

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// presences are the sessions of all probers at all servers, as far as they are heard. A prober has none, one, or two while it moves: its old server misses it only after
// three seconds. It is online while any server has a session of it; the newest one counts where one has to be named.
type presences struct {
	probers map[string]*presence
	// heard are the other servers whose sessions are all known.
	heard map[string]bool
}

// presence is what is known of one prober's sessions. It exists while there is one.
type presence struct {
	// held has the newest session last.
	held []held
	// left is the process that said goodbye to one server while another still held it; empty when none did.
	left string
}

// held is a session, as its server tells of it.
type held struct {
	server string // resource name
	boot   string
	since  time.Time // by the server's wall clock, which others compare
	// session is set for a session of this server, said for those of others.
	session Session
	hello   *meshv1.Hello // with session
	said    *peerv1.Presence
}

func newPresences() presences {
	return presences{probers: map[string]*presence{}, heard: map[string]bool{}}
}

// put takes a session that began or changed, in place of what its server had. ended is what that was, if it was another session, else nil.
func (p *presences) put(prober string, h held) (events []scheduler.Event, ended *held) {
	x := p.probers[prober]
	if x == nil {
		x = &presence{}
		p.probers[prober] = x
	}
	before := ""
	if old := x.newest(); old != nil {
		before = old.server // by value: the slice that it is in changes below
	}
	if i := x.at(h.server); i >= 0 {
		if old := x.held[i]; old.boot != h.boot || old.session != h.session || !old.since.Equal(h.since) {
			ended = &old
		}
		x.held = slices.Delete(x.held, i, i+1)
	}
	i := len(x.held)
	for i > 0 && h.since.Before(x.held[i-1].since) {
		i--
	}
	x.held = slices.Insert(x.held, i, h)
	if x.left != "" && h.boot != x.left {
		x.left = ""
	}
	if now := x.newest(); before != now.server {
		events = append(events, scheduler.ProberOnline{Name: prober, Server: now.server, Since: now.since})
	}
	return events, ended
}

// drop takes the end of a server's session. boot may be empty: whichever it is. leaving: the prober said goodbye; unheard: the server is not heard any more. It
// gives the session that ended, nil when there was none.
func (p *presences) drop(prober, server, boot string, leaving, unheard bool) (events []scheduler.Event, ended *held) {
	x := p.probers[prober]
	if x == nil {
		return nil, nil
	}
	i := x.at(server)
	if i < 0 || (boot != "" && x.held[i].boot != boot) {
		return nil, nil // it comes late: the next session is known already
	}
	gone := x.held[i]
	before := x.newest().server
	x.held = slices.Delete(x.held, i, i+1)
	if len(x.held) == 0 {
		delete(p.probers, prober)
		return []scheduler.Event{scheduler.ProberOffline{Name: prober, Leaving: leaving || x.left == gone.boot, Unheard: unheard}}, &gone
	}
	if leaving {
		x.left = gone.boot
	}
	if now := x.newest(); now.server != before {
		return []scheduler.Event{scheduler.ProberOnline{Name: prober, Server: now.server, Since: now.since}}, &gone
	}
	return nil, &gone
}

// of gives the sessions of a prober, the newest last. The slice is valid until the next change.
func (p *presences) of(prober string) []held {
	if x := p.probers[prober]; x != nil {
		return x.held
	}
	return nil
}

// newest gives the newest session of a prober; nil when it has none.
func (p *presences) newest(prober string) *held {
	if x := p.probers[prober]; x != nil {
		return x.newest()
	}
	return nil
}

// at are the probers that a server has sessions of, sorted.
func (p *presences) at(server string) []string {
	var names []string
	for name, x := range p.probers {
		if x.at(server) >= 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (x *presence) at(server string) int {
	return slices.IndexFunc(x.held, func(h held) bool { return h.server == server })
}

func (x *presence) newest() *held {
	if len(x.held) == 0 {
		return nil
	}
	return &x.held[len(x.held)-1]
}

// yields tells which of two sessions of different processes ends: the one that began later, and of equals that of the server whose name sorts later. Both servers
// decide alike, each by what both have said.
func (h *held) yields(to *held) bool {
	if c := h.since.Compare(to.since); c != 0 {
		return c > 0
	}
	return h.server > to.server
}

// message is what this server tells of a session of its own.
func (h *held) message(prober string) *peerv1.Presence {
	f := h.session.Facts()
	p := &peerv1.Presence{
		Prober: prober, BootId: h.boot, Since: timestamppb.New(h.since), ClockOffset: durationpb.New(f.ClockOffset), RoundTripTime: durationpb.New(f.RoundTrip),
		Spooled: f.Spooled, Dropped: f.Dropped, Refusals: f.Refusals, Revision: f.Revision, InSync: f.InSync,
		Canaries: f.Canaries,
	}
	if f.Mistimed != 0 {
		p.Mistimed = durationpb.New(f.Mistimed)
	}
	return p
}

// facts are the newest that is known of the prober at that session.
func (h *held) facts() SessionFacts {
	if h.session != nil {
		return h.session.Facts()
	}
	s := h.said
	return SessionFacts{
		ClockOffset: s.GetClockOffset().AsDuration(), RoundTrip: s.GetRoundTripTime().AsDuration(), Spooled: s.GetSpooled(), Dropped: s.GetDropped(),
		Refusals: s.GetRefusals(), Revision: s.GetRevision(), InSync: s.GetInSync(), Since: h.since,
		Canaries: s.GetCanaries(), Mistimed: s.GetMistimed().AsDuration(),
	}
}
