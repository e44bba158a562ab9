package scheduler

import (
	"math/bits"
	"net/netip"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/scheduler/credibility"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// doubt is a vote that waits to be held against the others': they have to say something that is not older.
type doubt struct {
	at     time.Time // when its probe began; zero when none waits
	failed bool
}

// agree notes an answer in a check that everybody sees answer. It is on the hot path.
func (s *State) agree(c *check, i int) {
	if c.votes[i].Outcome != verdict.OK || c.tally.Failing+c.tally.Mixed > 0 || c.tally.Verdict != verdict.Up {
		return
	}
	others := c.tally.OK - c.tally.Filled
	if c.votes[i].Trial != verdict.Trusted {
		if others >= 1 {
			s.buildAgrees(c, i)
		}
		return
	}
	// Two other datacenters at least.
	if !c.votes[i].Aside {
		others--
	}
	if others >= 2 {
		s.book.Agree(c.votes[i].Prober)
	}
}

// compare holds votes against each other after that of seat i: a vote is compared with what the probers of other datacenters have seen since its probe began. Two
// datacenters at least must have said something, and two thirds of them the same. It is a dissent only if two of them said so before it, too: otherwise the target
// has changed meanwhile, and nobody was wrong. Each vote is compared once; one that nobody else has anything to say about is forgotten when it is stale.
func (s *State) compare(now time.Time, c *check, i int) {
	v := &c.votes[i]
	if d := &c.seats[i].doubt; v.Outcome == verdict.OK || v.Outcome == verdict.Fail {
		// One that waits already is not replaced: a failure that a repetition at once has not met again is a failure still.
		// What it saw before this server heard it again says nothing of it: it may have been cut off, and from there everything fails.
		if !s.roster.get(v.Prober).back.After(v.Start) && (d.at.IsZero() || now.Sub(d.at) > c.policy.Fresh) {
			*d = doubt{at: v.Start, failed: v.Outcome == verdict.Fail}
		}
	}
	c.doubtful = false
	for j := range c.seats {
		d := &c.seats[j].doubt
		if d.at.IsZero() {
			continue
		}
		if now.Sub(d.at) > c.policy.Fresh {
			*d = doubt{}
			continue
		}
		trial := c.votes[j].Trial != verdict.Trusted
		if c.shared(now, j) {
			// The others say the same, whether their probes began before or after. If they say something else next, the target has changed in between, and nobody was wrong.
			if trial {
				s.buildAgrees(c, j)
			} else {
				s.book.Agree(c.votes[j].Prober)
			}
			*d = doubt{}
			continue
		}
		if trial {
			c.doubtful = !s.compareBuild(now, c, j) || c.doubtful
			continue
		}
		fail, ok := c.othersSince(j, d.at)
		switch {
		case fail+ok < 2 || 2*fail > ok && 2*ok > fail:
			c.doubtful = true
		case d.failed == (fail > ok):
			s.book.Agree(c.votes[j].Prober)
			*d = doubt{}
		case c.roughElsewhere(now, j):
			*d = doubt{} // nobody else sees it the same twice: whom it fails for is chance
		case !s.heardOthers(c, j, d.at):
			*d = doubt{} // this server was cut off then, and what its own prober saw with it
		case !c.saidBefore(j, d.at, d.failed):
			*d = doubt{} // the others changed their mind since: so did the target
		default:
			kind, _ := spec.KindOf(c.eff.GetUri())
			if s.book.Dissent(now, credibility.Dissent{Prober: c.votes[j].Prober, Check: c.name, Subject: s.subject(c), Kind: string(kind), Failed: d.failed}) {
				s.Counters.Dissents++
			}
			*d = doubt{}
		}
	}
}

// fewHosts are fewer than dissent must have been seen on: see Subjects in [credibility.Config].
const fewHosts = 3

// subject is what the check has in common with related ones, of which a single one may treat a prober differently for a reason of its own: the name that its host is an alias of, else the one
// address that its host has, else the host. A mesh may watch nothing but the ports of a machine or two, written as their addresses: there each port counts by itself, or nobody were ever compared.
func (s *State) subject(c *check) string {
	if _, err := netip.ParseAddr(hostnameOf(c.host)); err == nil && s.mass.hosts < fewHosts {
		return c.host
	}
	if names := c.byAgreement(c.canonicalNames()); len(names) > 0 {
		return names[0]
	}
	if list := c.addresses(); len(list) == 1 {
		return list[0].String()
	}
	return c.host
}

// heardOthers tells whether this server has heard probers of two other datacenters than that of seat j ever since the time.
func (s *State) heardOthers(c *check, j int, at time.Time) bool {
	return c.elsewhere(j, func(v *verdict.Vote) bool {
		p := s.roster.get(v.Prober)
		return p.online && !p.back.After(at)
	})
}

// saidBefore tells whether the probers of two datacenters other than that of seat j had seen the check answer (or fail, if ok is false) in a probe that began at the
// time or earlier, and have seen nothing else since. A result that has not changed is up to a second on its way, one that has changed is not: of a target that has
// just gone down, the last answer that one prober had may come after the first failures of all others.
func (c *check) saidBefore(j int, at time.Time, ok bool) bool {
	said := verdict.Fail
	if ok {
		said = verdict.OK
	}
	return c.elsewhere(j, func(v *verdict.Vote) bool {
		return v.Outcome == said && !v.Aside && !v.Drained && v.Trial == verdict.Trusted && !v.Since.After(at) && !v.Start.Before(at)
	})
}

// elsewhere tells whether two datacenters other than that of seat j have a prober of the check that will do.
func (c *check) elsewhere(j int, will func(*verdict.Vote) bool) bool {
	own, first := c.votes[j].Datacenter, ""
	for k := range c.votes {
		v := &c.votes[k]
		if v.Datacenter == own || v.Datacenter == first || !will(v) {
			continue
		}
		if first != "" {
			return true
		}
		first = v.Datacenter
	}
	return false
}

// roughElsewhere tells whether all whose votes count in datacenters other than that of seat j have seen it answer and fail again.
func (c *check) roughElsewhere(now time.Time, j int) bool {
	others := false
	for k := range c.votes {
		v := &c.votes[k]
		if v.Datacenter == c.votes[j].Datacenter || v.Trial != verdict.Trusted || !c.policy.IsFresh(v, now) {
			continue
		}
		if others = true; v.Relapses == 0 {
			return false
		}
	}
	return others
}

// shared tells whether the others' fresh votes say, by the same majority, what the vote of seat j says that waits.
func (c *check) shared(now time.Time, j int) bool {
	fail, ok := c.othersSince(j, now.Add(-c.policy.Fresh))
	if c.seats[j].doubt.failed {
		return fail >= 2 && fail >= 2*ok
	}
	return ok >= 2 && ok >= 2*fail
}

// othersSince counts the datacenters other than that of seat j whose probers have seen the check fail, and answer, in probes that began at the time or later. A datacenter of
// two minds counts as neither, and probers that are set aside or run a build on trial do not count.
func (c *check) othersSince(j int, at time.Time) (fail, ok int) {
	var seen, failed, answered uint64
	for k := range c.votes {
		v := &c.votes[k]
		if v.Datacenter == c.votes[j].Datacenter || v.Aside || v.Drained || v.Trial != verdict.Trusted || v.Start.Before(at) {
			continue
		}
		// The first vote of a datacenter stands for it.
		first := k
		for m := seen; m != 0; m &= m - 1 {
			if b := bits.TrailingZeros64(m); c.votes[b].Datacenter == v.Datacenter {
				first = b
			}
		}
		switch v.Outcome {
		case verdict.Fail:
			seen, failed = seen|1<<first, failed|1<<first
		case verdict.OK:
			seen, answered = seen|1<<first, answered|1<<first
		}
	}
	return bits.OnesCount64(failed &^ answered), bits.OnesCount64(answered &^ failed)
}
