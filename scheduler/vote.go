package scheduler

import (
	"strings"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// cast counts a result as its prober's vote. It is the hot path: a vote that repeats the one before in a quiet check costs a lookup and a comparison.
func (s *State) cast(now time.Time, e Cast) {
	r := e.Result
	c := s.checks[r.GetCheck()]
	if c == nil || c.gone {
		s.Counters.UnknownCheck++
		s.early.keep(now, e)
		return
	}
	i := c.seatOf(e.Prober)
	if i < 0 {
		s.Counters.UnknownProber++
		s.early.keep(now, e)
		return
	}
	if r.GetCheckRevision() != c.workHash {
		s.Counters.OldRevision++
		s.early.keep(now, e)
		return
	}
	out := outcomeOf(r)
	v, x := &c.votes[i], &c.seats[i]
	if r.GetOutcome() == meshv1.Result_SLOW {
		s.slow(now, c, i, r)
		return
	}
	if out == verdict.None {
		s.Counters.OldResult++
		return
	}
	start := r.GetStartTime().AsTime()
	future := now.Add(verdict.FutureSlack)
	if start.After(future) {
		s.Counters.OldResult++
		return
	}
	answered := x.runID != "" && (x.first || !start.Before(x.asked) || c.confirms(e.Prober, r.GetRunId()))
	if answered {
		x.runID = ""
	}
	if v.Outcome != verdict.None && v.Start.After(future) {
		// The mesh's clock was set back since, and the probers followed it: all that comes would be older than this one until the clock is where it was.
		*v = blank(*v)
	}
	before := *v
	if before.Outcome != verdict.None && (!start.After(before.Start) || repeats(x.result, r)) {
		s.Counters.OldResult++
		if answered {
			s.evaluate(c, now)
		}
		return
	}
	*v = verdict.Cast(before, out, r.GetDegraded() != "", start)
	s.Counters.Votes++
	was, old := c.kept, x.result
	c.learn(old, r)
	x.result = r
	if v.Outcome == verdict.Fail {
		x.failed = r
	} else if v.Recent == 0 {
		x.failed = nil
	}
	if (was == nil) != (c.kept == nil) || !sameProviders(old, r) {
		s.mass.setProviders(c, c.provided(true))
	}
	c.updated = now
	quiet := before.Recent == 0 && !answered && before.Outcome == v.Outcome && !before.Degraded && !v.Degraded && c.policy.IsFresh(&before, now) && c.incident == nil && len(c.outages) == 0 && c.roundAt.IsZero()
	if quiet && (c.shown == verdict.Up || c.tally.Verdict == c.shown) && v.Outcome != verdict.Fail && !c.doubtful && c.tally.Failing+c.tally.Mixed == 0 {
		s.agree(c, i)
		return
	}
	s.compare(now, c, i)
	// Others are asked first: while they are, one bad vote is not shown and opens nothing.
	switch turned := before.Outcome != v.Outcome || !c.policy.IsFresh(&before, now); {
	case v.Aside, v.Trial == verdict.Shadow, !c.policy.IsFresh(v, now):
		// What it says opens nothing, so nobody is asked about it: else each result of a prober that stamps old times would be asked about anew.
	case v.Outcome == verdict.Fail && turned:
		s.confirm(now, c, i)
		s.turned(now, c)
	case v.Outcome == verdict.OK && turned && c.isOpen():
		s.confirmRecovery(now, c)
	}
	s.evaluate(c, now)
}

// repeats tells whether a result is one that has been counted: what comes through a server whose clock differs may come with another start time the second time, and must
// not count as a second probe.
func repeats(counted, r *meshv1.Result) bool {
	n := r.GetSequence()
	return n != 0 && n == counted.GetSequence() && r.GetStartTime().AsTime().Sub(counted.GetStartTime().AsTime()) < repeatSlack
}

// repeatSlack is more than the error with which servers know each other's clocks, and less than the time in which a prober is started anew and begins to count at 1.
const repeatSlack = 500 * time.Millisecond

// confirms tells whether the run is a confirmation of this check by the prober, whichever server asked for it.
func (c *check) confirms(prober, run string) bool {
	rest, ok := strings.CutPrefix(run, c.name)
	if !ok {
		return false
	}
	rest, ok = strings.CutPrefix(rest, "@"+prober)
	return ok && strings.HasPrefix(rest, ".")
}

func (c *check) seatOf(prober string) int {
	for i := range c.votes {
		if c.votes[i].Prober == prober {
			return i
		}
	}
	return -1
}

func outcomeOf(r *meshv1.Result) verdict.Outcome {
	switch r.GetOutcome() {
	case meshv1.Result_OK:
		return verdict.OK
	case meshv1.Result_FAIL:
		return verdict.Fail
	case meshv1.Result_ERROR:
		return verdict.Fault
	}
	return verdict.None
}
