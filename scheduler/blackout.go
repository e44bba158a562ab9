package scheduler

import (
	"maps"
	"slices"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/scheduler/credibility"
	"github.com/probemesh/probemesh/scheduler/grouping"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// A blackout is that the probers of one failure domain see nearly everything fail from one moment on, and the others see the same answer. The sequential test of package credibility finds that as well, from very little, and takes a quarter
// of a minute at least; and where thousands of checks are on few hosts it may take much longer, since of each host only few dissents count. A blackout is so much at once that neither is needed. It is one when, of what began, or began to
// fail, in the last blackWindow, all of this holds:
//
//   - the probers that fail are those of one domain, or one prober: all of its probers that probed, and nobody else, not even by half. A prober fails when of what it saw since its own onset (when a fifth of what fails had begun to)
//     blackShare fails, [grouping.Min] checks at least;
//   - as many checks as make a crowd (Config.Crowd), of [grouping.Min] hosts at least, are contradicted: probers of two other datacenters, outside the domain, saw them answer in probes that began after these began to fail. One host that
//     refuses a datacenter, for however many checks, is the host's trouble, and its checks are DEGRADED;
//   - of what it saw fail, somebody else saw at most 1 - blackShare fail as well;
//   - its probers see fewer than [grouping.Min] hosts answer of those that others probe too: somebody who owns many hosts may refuse a region to all of them, and whoever still reaches the other hosts from there is well. What only
//     the domain itself probes, such as targets beside it, says nothing;
//   - what fails began to over blackFor at least: a network that blinks is no reason to do without it for minutes.
//
// Then the domain is set aside like any other, within the same limits, and comes back by the same rule.
const (
	blackWindow = 30 * time.Second
	blackFor    = 3 * time.Second
	blackShare  = 0.95
)

// seen is one vote of a prober: that it saw the check answer then, or fail since then.
type seen struct {
	c      *check
	i      int // its seat
	at     time.Time
	failed bool
}

// blackout looks for one, among the checks of a mesh many of which turned lately. Once a second.
func (s *State) blackout(now time.Time) (credibility.Finding, bool) {
	if s.many(now) {
		s.mass.crowded = now
	}
	if s.mass.crowded.IsZero() || now.Sub(s.mass.crowded) > blackWindow {
		return credibility.Finding{}, false
	}
	votes := s.seenSince(now.Add(-blackWindow))
	dark := map[string]time.Time{}
	for name, list := range votes {
		switch onset, share := onsetOf(list); {
		case share >= blackShare:
			dark[name] = onset
		case share >= 0.5:
			return credibility.Finding{}, false
		}
	}
	f, is := s.darkDomain(votes, dark)
	if !is {
		return f, false
	}
	return f, s.contradicted(&f, votes, dark)
}

func anyVote(*verdict.Vote) bool { return true }

// seenSince are the votes that count, by prober: what they saw answer, or begin to fail, at the time or later, on checks that probers of two other datacenters probe too.
func (s *State) seenSince(from time.Time) map[string][]seen {
	votes := map[string][]seen{}
	for _, c := range s.checks {
		if c.gone || c.spec.GetPaused() {
			continue
		}
		for i := range c.votes {
			v := &c.votes[i]
			x := seen{c, i, v.Start, v.Outcome == verdict.Fail}
			if x.failed {
				x.at = v.Since
			}
			if x.at.Before(from) || v.Aside || v.Drained || v.Trial != verdict.Trusted || v.Outcome != verdict.OK && v.Outcome != verdict.Fail || !c.elsewhere(i, anyVote) {
				continue
			}
			votes[v.Prober] = append(votes[v.Prober], x)
		}
	}
	return votes
}

// onsetOf tells since when a prober sees checks fail, and which share of what it has seen since then; 0 when these are few.
func onsetOf(list []seen) (onset time.Time, share float64) {
	var began []time.Time
	for _, x := range list {
		if x.failed {
			began = append(began, x.at)
		}
	}
	if len(began) < grouping.Min {
		return onset, 0
	}
	slices.SortFunc(began, time.Time.Compare)
	onset = began[len(began)/5] // what failed earlier, for itself, must not set it
	failed, all := 0, 0
	for _, x := range list {
		if !x.at.Before(onset) {
			if all++; x.failed {
				failed++
			}
		}
	}
	return onset, float64(failed) / float64(all)
}

// darkDomain is the domain of which all the probers that saw something see nearly everything fail, and nobody else does.
func (s *State) darkDomain(votes map[string][]seen, dark map[string]time.Time) (f credibility.Finding, is bool) {
	if len(dark) == 0 {
		return f, false
	}
	all := s.book.Shared(slices.Sorted(maps.Keys(dark)), func(name string) bool { return len(votes[name]) > 0 })
	if len(all) == 0 {
		return f, false
	}
	f.Domain, f.Also, f.Probers = all[0], all[1:], s.book.Members(all[0])
	return f, s.book.Limit(f) == ""
}

// contradicted tells whether the others see answer what the dark probers see fail, on enough checks and hosts and for long enough, and notes what was found.
func (s *State) contradicted(f *credibility.Finding, votes map[string][]seen, dark map[string]time.Time) bool {
	checks, hosts, kinds, answering := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	failed, shared, last := 0, 0, time.Time{}
	for name, onset := range dark {
		if f.Since.IsZero() || onset.Before(f.Since) {
			f.Since = onset
		}
		for _, x := range votes[name] {
			if x.at.Before(onset) || !s.heardAll(name, x) {
				continue
			}
			if !x.failed {
				f.Agreements++
				answering[x.c.hostname] = true
				continue
			}
			failed++
			switch fails, answers := x.outside(dark); {
			case fails > 0:
				shared++
			case answers >= 2:
				f.Dissents++
				kind, _ := spec.KindOf(x.c.eff.GetUri())
				checks[x.c.name], hosts[x.c.hostname], kinds[string(kind)] = true, true, true
				if x.at.After(last) {
					last = x.at
				}
			}
		}
	}
	f.Failed, f.Checks, f.Kinds = 1, slices.Sorted(maps.Keys(checks)), slices.Sorted(maps.Keys(kinds))
	enough := len(f.Checks) >= s.cfg.Crowd && len(hosts) >= grouping.Min && len(answering) < grouping.Min
	f.Checks = f.Checks[:min(len(f.Checks), 10)]
	return enough && float64(shared) <= (1-blackShare)*float64(failed) && last.Sub(f.Since) >= blackFor
}

// heardAll tells whether this server has heard the prober, and those of two other datacenters, ever since: who was cut off saw everything fail.
func (s *State) heardAll(name string, x seen) bool {
	p := s.roster.get(name)
	return p.online && !p.back.After(x.at) && s.heardOthers(x.c, x.i, x.at)
}

// outside counts the probers that are not dark and see the check fail, and the datacenters other than that of the vote from which they saw it answer in a probe that began since then.
func (x seen) outside(dark map[string]time.Time) (fails, answers int) {
	own, first := x.c.votes[x.i].Datacenter, ""
	for i := range x.c.votes {
		o := &x.c.votes[i]
		if _, is := dark[o.Prober]; is || o.Datacenter == own || o.Aside || o.Drained || o.Trial != verdict.Trusted {
			continue
		}
		switch {
		case o.Outcome == verdict.Fail && !o.Start.Before(x.at.Add(-blackWindow)):
			fails++
		case o.Outcome == verdict.OK && !o.Start.Before(x.at) && o.Datacenter != first:
			if answers++; first == "" {
				first = o.Datacenter
			}
		}
	}
	return fails, answers
}
