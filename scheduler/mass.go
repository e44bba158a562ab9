package scheduler

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/grouping"
	"github.com/probemesh/probemesh/scheduler/incident"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

const (
	// holdFor is how long openings are held at most, for those that turn at the same time to be explained together.
	holdFor = 2 * time.Second
	// burstFor is how long ago checks may have begun to fail to be counted as failing together: some time out, and others refuse.
	burstFor = 5 * time.Second
	// lookAgain is how soon a held opening is looked at again that waits for its siblings alone.
	lookAgain = 50 * time.Millisecond
	// toldRate is how many checks of a burst that nothing explains one receiver is told of by themselves, a second, and toldBurst how many at once; the rest are told of together.
	toldRate, toldBurst = 50.0 / 60, 50
)

// mass is what the mind keeps of checks that turn at once.
type mass struct {
	// recent are the checks that began to fail lately, and when.
	recent map[*check]time.Time
	// crowded is when as many as make a group were last seen to have begun to fail.
	crowded time.Time
	// byShare are the checks with each host, label, canonical name and issuer; hosts is how many hosts those are.
	byShare rings
	hosts   int
	// sounded is what checks share of which others were asked lately.
	sounded map[grouping.Value]sounding
	// soundedShared are the checks that were asked last because they share a CNAME or an issuer with those that turned, and when.
	soundedShared sharedSounding
	// held are checks whose incident is due and waits until the time for what the others do; true: it need not any more. The time is zero when all that are held have been explained.
	held  map[*check]bool
	until time.Time
	// at is when what is due for a member of a group is done, together with what is due for the others.
	at map[*check]time.Time
	// told are the budgets of receivers for bursts that nothing explains.
	told map[string]*bucket
	// groups and blames are by key, byName by the name of the incident.
	groups  map[string]*group
	byName  map[string]*group
	blames  map[string]*blame
	orphans map[*check]bool // members of a group that is not known to be open
}

func newMass() mass {
	m := mass{byShare: rings{}}
	m.forget()
	m.reset()
	return m
}

// forget drops what only a leader needs.
func (m *mass) forget() {
	m.soundedShared, m.crowded = sharedSounding{}, time.Time{}
	m.recent, m.sounded, m.held, m.at, m.told = map[*check]time.Time{}, map[grouping.Value]sounding{}, map[*check]bool{}, map[*check]time.Time{}, map[string]*bucket{}
}

// forgetMass drops what only a leader needs, and what one has wished for and not seen done.
func (s *State) forgetMass() {
	s.mass.forget()
	for k, g := range s.mass.groups {
		if g.effectUntil, g.closing = (time.Time{}), false; g.incident == nil {
			delete(s.mass.groups, k)
		}
	}
	for k, b := range s.mass.blames {
		if b.effectUntil = (time.Time{}); b.incident == nil {
			delete(s.mass.blames, k)
		}
	}
}

// reset drops what came from the store.
func (m *mass) reset() {
	m.groups, m.byName, m.blames, m.orphans = map[string]*group{}, map[string]*group{}, map[string]*blame{}, map[*check]bool{}
}

// dropCheck forgets a check that is no more.
func (m *mass) dropCheck(c *check) {
	m.setHost(c, "")
	m.setLabels(c, nil)
	m.setProviders(c, nil)
	delete(m.recent, c)
	delete(m.held, c)
	delete(m.at, c)
	delete(m.orphans, c)
	m.uncover(c)
}

// uncover says that no blame keeps an incident of the check, which nobody looks at any more: it must not keep the blame alive.
func (m *mass) uncover(c *check) {
	for _, b := range m.blames {
		delete(b.covered, c)
	}
}

// setHost notes which host a check watches; empty: none any more.
func (m *mass) setHost(c *check, host string) {
	if a, err := netip.ParseAddr(host); host == "localhost" || err == nil && a.IsLoopback() {
		host = c.host // with its port: that is what there is of the kind on the machine of a prober
	}
	if c.hostname == host {
		return
	}
	if c.hostname != "" {
		m.byShare.drop(hostValue(c.hostname), c)
		if m.byShare[hostValue(c.hostname)] == nil {
			m.hosts--
		}
	}
	if c.hostname = host; host != "" {
		if m.byShare[hostValue(host)] == nil {
			m.hosts++
		}
		m.byShare.put(hostValue(host), c)
	}
}

// turnedBefore takes what fails already, as a new leader begins to decide, for failing since now: whatever was due meanwhile is due at once.
func (s *State) turnedBefore(now time.Time) {
	for _, c := range s.checks {
		if c.tally.FailVotes != 0 && c.incident == nil {
			s.mass.recent[c] = now
		}
	}
}

// many tells whether as many checks began to fail lately, and still do, as make a group.
func (s *State) many(now time.Time) bool {
	n := 0
	for c, at := range s.mass.recent {
		switch {
		case now.Sub(at) > burstFor || c.gone || c.tally.FailVotes == 0 && c.incident == nil:
			delete(s.mass.recent, c)
		case c.tally.FailVotes != 0:
			n++
		}
		if n >= s.cfg.Crowd {
			return true
		}
	}
	return false
}

// hold tells whether an incident that is due is not to be opened now, or not by itself: others turn at the same time and it waits for what explains them; a group is open
// for what it has; only probers that are blamed see it fail.
func (s *State) hold(c *check, now time.Time, d incident.Decision) bool {
	if !s.mayAct(c.effectUntil, now) || !s.warm || s.store.unsettled || c.incident != nil {
		return false
	}
	if s.blameOf(c, now) != nil {
		delete(s.mass.held, c)
		return true
	}
	if g := s.groupOf(c, now); g != nil {
		delete(s.mass.held, c)
		s.enter(g, c, now, d.Verdict)
		return true
	}
	alone, held := s.mass.held[c]
	switch {
	case alone:
		delete(s.mass.held, c)
		return false
	case held && !now.Before(s.mass.until):
		s.schedule(c, now) // they are explained in this very call of Apply, before it is looked at
		return true
	case s.many(now):
		s.soundShared(now)
		s.holdUntil(c, now, holdFor)
		return true
	case s.sounding(c, now):
		s.holdUntil(c, now, lookAgain)
		return true
	case s.soundedDown(c, now):
		s.holdUntil(c, now, holdFor)
		return true
	}
	delete(s.mass.held, c)
	return false
}

func (s *State) holdUntil(c *check, now time.Time, look time.Duration) {
	if len(s.mass.held) == 0 || s.mass.until.IsZero() {
		s.mass.until = now.Add(holdFor)
	}
	s.mass.held[c] = false
	at := s.mass.until
	if again := now.Add(look); again.Before(at) {
		at = again
	}
	s.schedule(c, at)
}

// explainHeld explains what was held, when its time has come.
func (s *State) explainHeld(now time.Time) {
	if len(s.mass.held) == 0 || s.mass.until.IsZero() || now.Before(s.mass.until) {
		return
	}
	if !s.mayAct(time.Time{}, now) || s.storeLost() || s.store.unsettled {
		clear(s.mass.held) // what is due is decided anew when somebody can write it down
		return
	}
	s.mass.until = time.Time{} // what is held from here on is explained another time, not in this call of Apply
	var held []*check
	for c, alone := range s.mass.held {
		switch {
		case c.gone || c.spec.GetPaused() || c.incident != nil:
			delete(s.mass.held, c)
		case !alone:
			held = append(held, c)
		}
	}
	slices.SortFunc(held, func(a, b *check) int { return strings.Compare(a.name, b.name) })
	var causes []grouping.Cause
	if len(held) >= grouping.Min {
		causes, _ = grouping.Explain(s.burst(now, held))
	}
	for _, cause := range causes {
		var members []*check
		for _, n := range cause.Checks {
			members = append(members, s.checks[n])
			delete(s.mass.held, s.checks[n])
		}
		if cause.Side == grouping.Probers {
			s.blame(now, cause, members)
		} else {
			s.openGroup(now, cause, members)
		}
		for _, c := range members {
			s.schedule(c, now)
		}
	}
	held = slices.DeleteFunc(held, func(c *check) bool { _, still := s.mass.held[c]; return !still })
	s.tellOneByOne(now, held)
}

// tellOneByOne lets checks that nothing explains open by themselves, as far as the receivers' budgets reach, and the rest together.
func (s *State) tellOneByOne(now time.Time, held []*check) {
	var rest []*check
	for _, c := range held {
		if s.mayTell(now, c) {
			s.mass.held[c] = true
		} else {
			rest = append(rest, c)
		}
		s.schedule(c, now)
	}
	if len(rest) < grouping.Min {
		for _, c := range rest {
			s.mass.held[c] = true
		}
		return
	}
	for _, c := range rest {
		delete(s.mass.held, c)
	}
	s.openGroup(now, grouping.Cause{}, rest)
}

// mayTell takes from the budgets of all the receivers of a check; from none when one of them is empty.
func (s *State) mayTell(now time.Time, c *check) bool {
	paid := c.spec.GetReceivers()
	for i, r := range paid {
		if !bucketIn(s.mass.told, r).take(now, toldRate, toldBurst) {
			for _, p := range paid[:i] {
				s.mass.told[p].giveBack()
			}
			return false
		}
	}
	return true
}

// burst is what is known of the checks that are held, and of what else was seen since they began to fail.
func (s *State) burst(now time.Time, held []*check) grouping.Burst {
	began := make([]time.Time, len(held))
	for i, c := range held {
		began[i] = c.failureStart(now)
	}
	slices.SortFunc(began, time.Time.Compare)
	onset := began[len(began)/5] // one that failed earlier, for itself, must not set it
	b := grouping.Burst{Crowd: s.cfg.Crowd, Extents: map[grouping.Value]grouping.Extent{}, Probers: map[string]grouping.Prober{}}
	for name, p := range s.roster.probers {
		if p.enrolled == nil || p.aside != "" || p.enrolled.GetDrained() {
			continue
		}
		x := grouping.Prober{}
		for d, v := range p.domains {
			x.Domains = append(x.Domains, grouping.Value{Dimension: d, Value: v})
		}
		b.Probers[name] = x
	}
	turned := make(map[*check]bool, len(held))
	for _, c := range held {
		turned[c] = true
		x := grouping.Check{Name: c.name, Subject: c.hostname, Has: c.values(c.failsByTLS())}
		for i := range c.votes {
			switch v := &c.votes[i]; {
			case c.tally.FailVotes&(1<<i) != 0:
				x.Failed = append(x.Failed, v.Prober)
			case v.Outcome == verdict.OK && !v.Aside && !v.Start.Before(onset):
				x.Answered = append(x.Answered, v.Prober)
			}
		}
		b.Checks = append(b.Checks, x)
	}
	candidates := grouping.Candidates(b.Checks)
	b.Cleared = s.cleared(now)
	for _, c := range s.checks {
		if c.gone || c.spec.GetPaused() {
			continue
		}
		answers := s.sawSince(c, onset, b.Probers) && !turned[c]
		for _, v := range c.values(true) {
			if !candidates[v] {
				continue
			}
			e := b.Extents[v]
			e.All++
			if answers {
				e.Answering++
			}
			b.Extents[v] = e
		}
	}
	return b
}

// sawSince counts for each prober what it saw of the check since then, and tells whether the check was seen to answer, and not to fail.
func (s *State) sawSince(c *check, onset time.Time, probers map[string]grouping.Prober) bool {
	answered, failed := false, false
	for i := range c.votes {
		v := &c.votes[i]
		if v.Start.Before(onset) || v.Aside || v.Outcome != verdict.OK && v.Outcome != verdict.Fail {
			continue
		}
		p := probers[v.Prober]
		if v.Outcome == verdict.OK {
			p.Answered, answered = p.Answered+1, true
		} else {
			p.Failed, failed = p.Failed+1, true
		}
		probers[v.Prober] = p
	}
	return answered && !failed
}

// sideOf is the side of a cause as the API has it.
func sideOf(c grouping.Cause) meshv1.SharedCause_Side {
	switch c.Side {
	case grouping.Targets:
		return meshv1.SharedCause_TARGETS
	case grouping.Probers:
		return meshv1.SharedCause_PROBERS
	}
	return meshv1.SharedCause_NOTHING
}
