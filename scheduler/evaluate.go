package scheduler

import (
	"container/heap"
	"math/bits"
	"sort"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/incident"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// effectTimeout is how long an effect may be under way before it is wished for again. A transaction takes milliseconds; one that was lost is repeated safely,
// because opening compares that nothing is open.
const effectTimeout = 5 * time.Second

// evaluate looks at one check: counts its votes, decides, wishes for what is due, and notes when to look again.
func (s *State) evaluate(c *check, now time.Time) {
	if c.gone || c.spec.GetPaused() {
		s.dropOutages(c, now)
		c.dropHearsay()
	}
	if c.gone {
		s.retire(c)
		if c.incident != nil {
			s.wishResolve(c, now, meshv1.CheckStatus_CHECK_DELETED)
			s.scheduleEffect(c, now)
		}
		return
	}
	if c.spec.GetPaused() {
		c.tally, c.roundAt = verdict.Tally{}, time.Time{}
		s.mass.uncover(c)
		s.show(c, now, verdict.Paused, meshv1.CheckStatus_CHECK_PAUSED)
		if c.incident != nil {
			s.wishResolve(c, now, meshv1.CheckStatus_CHECK_PAUSED)
			s.scheduleEffect(c, now)
		}
		return
	}
	s.dropLeavers(c, now)
	c.tally = verdict.Fold(c.policy, c.votes, now)
	s.repeatLost(now, c)
	s.excuse(c, now)
	if c.tally.Reason == verdict.Disputed && !c.confirming(now) {
		s.askAll(now, c, func(v *verdict.Vote) bool {
			return v.Outcome == verdict.Fail && v.Streak < 2 && c.policy.IsFresh(v, now)
		})
	}
	if c.tally.Verdict == verdict.Unknown && s.mayAsk() {
		// A prober that has only now been given the check would vote at its place in the timetable, up to an interval from here.
		s.askFirst(now, c)
	}
	f := incident.Facts{
		Tally: c.tally, Shown: c.shown, Confirming: c.confirming(now) && !c.repeated, Waiting: c.waiting(now), OnDegraded: c.spec.GetAlertOnDegraded(), Open: c.openNow(),
	}
	if f.Open != verdict.Unknown {
		f.Recovered = c.recovered(now, f.Open) && c.answeredSince(c.knownOpen(), now)
	}
	d := incident.Decide(f)
	s.show(c, now, d.Verdict, c.reasonFor(d))
	s.act(c, now, d)
	if d.Recovering && c.isOpen() {
		s.planRound(now, c)
	} else {
		c.roundAt = time.Time{}
	}
	s.schedule(c, c.nextLook(now))
}

// act wishes for what was decided. Without a store nobody can; what happened meanwhile is written down first when there is one again.
func (s *State) act(c *check, now time.Time, d incident.Decision) {
	switch {
	case s.storeLost():
		s.withoutStore(c, now, d)
		return
	case s.awaitStored(c, now):
		return
	case len(c.outages) > 0 && s.join(c, now, d):
		s.undecide(c, now, false)
		return
	}
	s.undecide(c, now, false)
	if d.Wish != incident.Open {
		delete(s.mass.held, c)
	}
	switch d.Wish {
	case incident.Open:
		if !s.hold(c, now, d) {
			s.wishOpen(c, now, d.Verdict, "")
		}
	case incident.Escalate:
		s.wishEscalate(c, now)
	case incident.Resolve:
		s.wishResolve(c, now, c.reason)
	}
}

// isOpen tells whether an incident is open, in the store or waiting for it.
func (c *check) isOpen() bool { return c.incident != nil || c.openNow() != verdict.Unknown }

// patience is how long a quorum that fails waits for what others say who were asked at the same time: longer than the answers of a target that refuses, or answers, take
// to differ; short beside a timeout.
const patience = time.Second

// waiting tells whether a quorum fails in one probe each while others, who might see it answer, have been asked and may answer any moment.
func (c *check) waiting(now time.Time) bool {
	if c.tally.Verdict != verdict.Down || c.tally.Firm >= c.policy.Quorum || c.incident != nil {
		c.quorumAt = time.Time{}
		return false
	}
	if c.quorumAt.IsZero() {
		c.quorumAt = now
	}
	if now.Sub(c.quorumAt) >= patience {
		return false
	}
	for i := range c.seats {
		if c.seats[i].pending(now) && c.tally.FailVotes&(1<<i) == 0 {
			return true
		}
	}
	return false
}

// recovered tells whether as strong evidence as opened the incident says that it is over.
func (c *check) recovered(now time.Time, severity verdict.Verdict) bool {
	steady := max(c.gap(), c.damping.Hold(c.interval, now))
	p := c.policy
	if severity == verdict.Degraded {
		// A DEGRADED incident is over when nobody sees it fail any more, nor a quorum degraded, for as long as a DOWN one needs.
		return c.tally.Failing+c.tally.Mixed == 0 && verdict.Steady(p, c.votes, now, steady) >= p.Quorum && verdict.Limping(p, c.votes, now, steady) < p.Quorum
	}
	return verdict.Recovered(p, c.votes, now, steady)
}

// knownOpen is when what is open was opened, as far as this server's clock can tell: it was not later than when it was heard of here.
func (c *check) knownOpen() time.Time {
	at, heard := c.incident.GetIncident().GetOpenTime().AsTime(), c.heardAt
	if o := c.newest(); o != nil {
		at, heard = o.Due, o.heardAt
	}
	if heard.Before(at) {
		return heard
	}
	return at
}

// answeredSince tells whether as many as decide, or all who say that the check answers, if they are fewer, have seen so in probes that began later. What a server last saw
// of a check may be of before the incident, of which others told it, or etcd did late: that is no recovery, however long it has been so.
func (c *check) answeredSince(at, now time.Time) bool {
	later, all := 0, 0
	for i := range c.votes {
		if v := &c.votes[i]; v.Outcome == verdict.OK && !v.Aside && c.policy.IsFresh(v, now) {
			if all++; v.Start.After(at) {
				later++
			}
		}
	}
	return later >= min(c.policy.Quorum, all)
}

// gap is the least time between the two rounds of a recovery: half an interval, at most 10 s.
func (c *check) gap() time.Duration { return min(c.interval/2, 10*time.Second) }

func openSeverity(i *meshv1.Incident) verdict.Verdict {
	switch i.GetVerdict() {
	case meshv1.CheckStatus_DOWN:
		return verdict.Down
	case meshv1.CheckStatus_DEGRADED:
		return verdict.Degraded
	}
	return verdict.Unknown
}

// dropLeavers removes the votes of probers the check has moved away from, once they are stale, or once a prober of the same datacenter that runs the check now has voted
// later: nobody can ask the leaver what it sees today, and what it saw yesterday must not contradict those who can be asked.
func (s *State) dropLeavers(c *check, now time.Time) {
	for i := len(c.seats) - 1; i >= 0 && c.seats[i].rank < 0; i-- {
		if !c.policy.IsFresh(&c.votes[i], now) || c.succeeded(i, now) {
			c.votes = append(c.votes[:i], c.votes[i+1:]...)
			c.seats = append(c.seats[:i], c.seats[i+1:]...)
		}
	}
}

// succeeded tells whether a prober that runs the check has voted after seat i, in the same datacenter.
func (c *check) succeeded(i int, now time.Time) bool {
	for j := range c.votes {
		v := &c.votes[j]
		if c.seats[j].rank >= 0 && v.Datacenter == c.votes[i].Datacenter && (v.Outcome == verdict.OK || v.Outcome == verdict.Fail) && v.Start.After(c.votes[i].Start) &&
			c.policy.IsFresh(v, now) {
			return true
		}
	}
	return false
}

func (c *check) reasonFor(d incident.Decision) meshv1.CheckStatus_Reason {
	switch {
	case d.Recovering:
		return meshv1.CheckStatus_RECOVERING
	case d.Held:
		return meshv1.CheckStatus_CONFIRMING
	}
	switch c.tally.Reason {
	case verdict.QuorumUp:
		return meshv1.CheckStatus_QUORUM_UP
	case verdict.QuorumDown:
		return meshv1.CheckStatus_QUORUM_DOWN
	case verdict.MinorityDown:
		return meshv1.CheckStatus_MINORITY_DOWN
	case verdict.Intermittent:
		return meshv1.CheckStatus_INTERMITTENT
	case verdict.QuorumDegraded:
		return meshv1.CheckStatus_QUORUM_DEGRADED
	case verdict.NotDistinct:
		return meshv1.CheckStatus_NOT_DISTINCT
	case verdict.SingleProbe:
		return meshv1.CheckStatus_CONFIRMING
	case verdict.Disputed:
		return meshv1.CheckStatus_DISPUTED
	case verdict.OnTrial:
		return meshv1.CheckStatus_BUILD_ON_TRIAL
	case verdict.ProberErrors:
		return meshv1.CheckStatus_PROBER_ERRORS
	}
	switch {
	case c.places() < c.policy.Quorum:
		return meshv1.CheckStatus_TOO_FEW_DOMAINS
	case c.tally.Reason == verdict.StaleVotes:
		return meshv1.CheckStatus_STALE_VOTES
	}
	return meshv1.CheckStatus_NO_VOTES
}

// places counts the datacenters whose probers run the check.
func (c *check) places() int {
	n := 0
	for i := range c.votes {
		if c.seats[i].rank < 0 {
			continue
		}
		first := true
		for j := range c.votes[:i] {
			first = first && (c.votes[j].Datacenter != c.votes[i].Datacenter || c.seats[j].rank < 0)
		}
		if first {
			n++
		}
	}
	return n
}

func (s *State) show(c *check, now time.Time, v verdict.Verdict, reason meshv1.CheckStatus_Reason) {
	if c.shown == v && c.reason == reason {
		return
	}
	before := c.shown
	if c.shown != v {
		c.since = now
		if v == verdict.Down && openSeverity(c.incident.GetIncident()) == verdict.Down {
			// A leader that takes over knows nothing at first; what the incident remembers went on all the time.
			c.since = c.incident.GetIncident().GetStartTime().AsTime()
		}
	}
	if v == verdict.Unknown {
		s.unknown[c.name] = c
	} else {
		delete(s.unknown, c.name)
	}
	turned := c.shown != v && v != verdict.Unknown
	c.shown, c.reason, c.updated = v, reason, now
	if turned {
		if c.turns++; c.turns == 1 {
			c.since = s.recollect(c, c.since)
		}
	}
	s.do(StatusChanged{Check: c.name, Before: shownVerdict(before), After: shownVerdict(v), Reason: reason})
}

// nextLook is when the verdict may change without any event: a vote goes stale, a run asked for is overdue, a recovery's second round is due, an effect is late.
func (c *check) nextLook(now time.Time) time.Time {
	next := now.Add(c.policy.Fresh)
	earlier := func(t time.Time) {
		t = now.Add(t.Sub(now)) // with now's monotonic reading, if it has one: setting the clock back must not put the look off
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	for m := c.tally.FreshVotes; m != 0; m &= m - 1 {
		earlier(c.votes[bits.TrailingZeros64(m)].Start.Add(c.policy.Fresh))
	}
	for i := range c.seats {
		if c.seats[i].runID != "" {
			earlier(c.seats[i].until)
		}
	}
	if c.isOpen() {
		earlier(c.roundAt)
	}
	if !c.quorumAt.IsZero() {
		earlier(c.quorumAt.Add(patience))
	}
	earlier(c.effectUntil)
	return next
}

// scheduleEffect has the check looked at again when the effect under way should be known.
func (s *State) scheduleEffect(c *check, now time.Time) {
	if c.effectUntil.After(now) {
		s.schedule(c, c.effectUntil)
	}
}

func (s *State) unschedule(c *check) {
	if c.index >= 0 {
		heap.Remove(&s.due, c.index)
	}
}

// failing are the datacenters with a fresh failing vote, sorted.
func (c *check) failing() []string { return c.placesOf(c.tally.FailVotes) }

// limping are the datacenters all of whose fresh votes are degraded, sorted.
func (c *check) limping() []string { return c.placesOf(c.tally.DegradedVotes) }

// unsteady are the datacenters that see it fail again and again, sorted, with how many of their newest probes failed, of how many, and what the first of the newest failures said. Nothing
// unless that is what the verdict rests on.
func (c *check) unsteady() (places []string, failed, probes int, said string) {
	if c.tally.Reason != verdict.Intermittent {
		return nil, 0, 0, ""
	}
	for m := c.tally.UnsteadyVotes; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		f, n := c.votes[i].Failed()
		failed, probes = failed+f, probes+n
		if said == "" {
			said = c.seats[i].failed.GetError()
		}
	}
	return c.placesOf(c.tally.UnsteadyVotes), failed, probes, said
}

// placesOf are the datacenters of the marked votes, sorted.
func (c *check) placesOf(votes uint64) []string {
	seen := map[string]bool{}
	for m := votes; m != 0; m &= m - 1 {
		seen[c.votes[bits.TrailingZeros64(m)].Datacenter] = true
	}
	list := make([]string, 0, len(seen))
	for d := range seen {
		list = append(list, d)
	}
	sort.Strings(list)
	return list
}

func shownVerdict(v verdict.Verdict) meshv1.CheckStatus_Verdict {
	switch v {
	case verdict.Up:
		return meshv1.CheckStatus_UP
	case verdict.Degraded:
		return meshv1.CheckStatus_DEGRADED
	case verdict.Down:
		return meshv1.CheckStatus_DOWN
	case verdict.Paused:
		return meshv1.CheckStatus_PAUSED
	}
	return meshv1.CheckStatus_UNKNOWN
}
