// Package verdict decides, from the newest vote of each prober, what is true of one check.
//
// [Fold] counts failure domains, never probers: all votes of one datacenter count once. A verdict of down needs [Policy.Quorum] datacenters
// that see the check fail and none of whose probers sees it answer; with fewer datacenters heard than the quorum the verdict is [Unknown],
// never [Up]. A vote older than [Policy.Fresh] does not count. No verdict of down rests on a single probe: with a quorum of one, the same
// prober must have failed twice in a row.
//
// When all datacenters see it fail, one failing probe of each is enough. When some have seen it answer since the first of them failed, the evidence is mixed: probes that fail now and then, for a reason
// that several probers share, look just so. Then a quorum of datacenters must have failed twice in a row ([Disputed] until then). Chance has to come twice: if a shared
// resolver loses three probes in ten, three datacenters fail together once in 37 times, and twice in a row once in 1,372. A target that is down for everybody is not
// called down later for it.
//
// Everything here is a pure function of its arguments: equal votes and equal now give an equal tally, whatever the order of the votes.
package verdict

import (
	"math/bits"
	"time"
)

// Outcome is what a vote says. The zero value is no vote at all.
type Outcome uint8

// The outcomes. Fault is the prober's own error: it is a sign of life, but no vote.
const (
	None Outcome = iota
	OK
	Fail
	Fault
)

// String is the outcome as people read it.
func (o Outcome) String() string { return [...]string{"none", "ok", "fail", "error"}[o] }

// Verdict is the decision about a check. Paused is for the caller to use: Fold never returns it.
type Verdict uint8

// The verdicts.
const (
	Unknown Verdict = iota
	Up
	Degraded
	Down
	Paused
)

// String is the verdict as people read it.
func (v Verdict) String() string {
	return [...]string{"UNKNOWN", "UP", "DEGRADED", "DOWN", "PAUSED"}[v]
}

// Reason is why the verdict is what it is.
type Reason uint8

// The reasons that Fold gives.
const (
	NoVotes      Reason = iota // nobody has voted yet
	QuorumUp                   // a quorum of domains sees it answer
	QuorumDown                 // a quorum of domains sees it fail
	MinorityDown               // fewer domains than the quorum see it fail
	StaleVotes                 // votes there were, but too few are fresh
	ProberErrors               // every fresh sign of life is the probers' own error
	NotDistinct                // a quorum sees it fail, but all of it shares one value of a dimension that must differ
	SingleProbe                // a quorum of one sees it fail, in one probe so far
	Disputed                   // a quorum sees it fail and others see it answer, and those that see it fail have not done so twice in a row
)

// String is the reason in the words of the API.
func (r Reason) String() string {
	return [...]string{"NO_VOTES", "QUORUM_UP", "QUORUM_DOWN", "MINORITY_DOWN", "STALE_VOTES", "PROBER_ERRORS", "NOT_DISTINCT", "CONFIRMING", "DISPUTED"}[r]
}

// Vote is a prober's newest result for the check.
type Vote struct {
	// Prober is its bare name, for example "fra-1".
	Prober string
	// Datacenter is where it runs: the domain in which votes are counted.
	Datacenter string
	// Domains are its other failure domains. Fold only reads it.
	Domains map[string]string
	// Outcome is what the newest probe said.
	Outcome Outcome
	// Start is when the newest probe began, on the mesh's clock.
	Start time.Time
	// Since is when the first probe of the present streak began.
	Since time.Time
	// Streak counts the probes in a row with this outcome, from 1.
	Streak int
	// Drained: an operator took the prober out of service; its vote does not count.
	Drained bool
	// Aside: the prober, or a failure domain that it is in, disagrees with all others across unrelated checks; its vote does not count.
	Aside bool
}

// MaxVotes is how many votes Fold takes at most: probers of a check (50) and those it is moving away from.
const MaxVotes = 64

// Policy is how votes of one check are counted.
type Policy struct {
	// Quorum is how many datacenters must agree. At least 1; less is taken as 1.
	Quorum int
	// Fresh is how long a vote counts after its probe began: interval + timeout + 2 s. One that began more than FutureSlack from now does not count.
	Fresh time.Duration
	// Distinct are dimensions in which failing votes must show two values where the fresh votes have two.
	Distinct []string
}

// Tally is the count and what it amounts to.
type Tally struct {
	// Verdict and Reason are the decision.
	Verdict Verdict
	Reason  Reason
	// Fresh, OK, Failing and Mixed count datacenters: those with a fresh vote, those where every fresh vote is OK, those where every fresh
	// vote is FAIL, and those that disagree within. A mixed one counts as neither for a quorum of failure, and as answering for one of recovery.
	Fresh, OK, Failing, Mixed int
	// Firm counts those of Failing in which a prober has failed in two probes in a row or more.
	Firm int
	// FailVotes marks the fresh failing votes, by index into the votes given.
	FailVotes uint64
	// FreshVotes marks the fresh votes that count.
	FreshVotes uint64
	// Undistinct is the dimension that lacks a second value, with reason NotDistinct.
	Undistinct string
}

// FutureSlack is how far ahead of now a probe may have begun and still be a vote: more than the error of the probers' clock correction. What began later
// was timed by a clock that has been set back since; its age is not known, and it would count for as long as the clock went back.
const FutureSlack = 5 * time.Second

// IsFresh tells whether the vote counts at now.
func (p Policy) IsFresh(v *Vote, now time.Time) bool {
	age := now.Sub(v.Start)
	return v.Outcome != None && !v.Drained && !v.Aside && age < p.Fresh && age >= -FutureSlack
}

// Fold counts the votes. It panics with more than MaxVotes: the caller has introduced a bug. It does not allocate.
func Fold(p Policy, votes []Vote, now time.Time) Tally {
	if len(votes) > MaxVotes {
		panic("verdict: more votes than a check can have")
	}
	p.Quorum = max(p.Quorum, 1)
	var t Tally
	var faults, cast, probes int
	for i := range votes {
		v := &votes[i]
		if v.Outcome != None {
			cast++
		}
		if !p.IsFresh(v, now) {
			continue
		}
		switch v.Outcome {
		case Fault:
			faults++
			continue
		case Fail:
			t.FailVotes |= 1 << i
		}
		t.FreshVotes |= 1 << i
	}
	// Each datacenter is counted at its first vote; the marks of its other votes are cleared from the work list.
	for todo := t.FreshVotes; todo != 0; {
		i := bits.TrailingZeros64(todo)
		same := uint64(1) << i
		for rest := todo &^ same; rest != 0; rest &= rest - 1 {
			if j := bits.TrailingZeros64(rest); votes[j].Datacenter == votes[i].Datacenter {
				same |= 1 << j
			}
		}
		todo &^= same
		t.Fresh++
		switch same & t.FailVotes {
		case same:
			t.Failing++
			longest := 0
			for m := same; m != 0; m &= m - 1 {
				streak := votes[bits.TrailingZeros64(m)].Streak
				longest, probes = max(longest, streak), probes+streak
			}
			if longest >= 2 {
				t.Firm++
			}
		case 0:
			t.OK++
		default:
			t.Mixed++
		}
	}
	t.Verdict, t.Reason = decide(p, &t, votes, probes, cast, faults)
	return t
}

func decide(p Policy, t *Tally, votes []Vote, probes, cast, faults int) (Verdict, Reason) {
	switch {
	case t.Failing >= p.Quorum:
		if probes < 2 {
			return Degraded, SingleProbe
		}
		// A quorum of one asks for no independence at all, so nothing can lack it.
		if t.Undistinct = undistinct(p.Distinct, t, votes); t.Undistinct != "" && p.Quorum > 1 {
			return Degraded, NotDistinct
		}
		if t.Firm < p.Quorum && disputed(t, votes) {
			return Degraded, Disputed
		}
		return Down, QuorumDown
	case t.Fresh < p.Quorum:
		switch {
		case cast == 0:
			return Unknown, NoVotes
		case t.Fresh == 0 && faults > 0:
			return Unknown, ProberErrors
		}
		return Unknown, StaleVotes
	case t.Failing+t.Mixed > 0:
		return Degraded, MinorityDown
	}
	return Up, QuorumUp
}

// disputed tells whether somebody saw it answer after the first of the failing votes saw it fail. An answer of before is no contradiction: it was up then.
func disputed(t *Tally, votes []Vote) bool {
	var first time.Time
	for m := t.FailVotes; m != 0; m &= m - 1 {
		if v := &votes[bits.TrailingZeros64(m)]; first.IsZero() || v.Since.Before(first) {
			first = v.Since
		}
	}
	for m := t.FreshVotes &^ t.FailVotes; m != 0; m &= m - 1 {
		if votes[bits.TrailingZeros64(m)].Start.After(first) {
			return true
		}
	}
	return false
}

// undistinct gives the first dimension in which all failing votes are the same although the fresh votes as a whole are not.
func undistinct(dimensions []string, t *Tally, votes []Vote) string {
	for _, d := range dimensions {
		if values(d, t.FailVotes, votes) < 2 && values(d, t.FreshVotes, votes) >= 2 {
			return d
		}
	}
	return ""
}

// values counts the different values (0, 1 or 2 for "more") of a dimension among the marked votes. A vote without the label has none.
func values(dimension string, marks uint64, votes []Vote) int {
	first, n := "", 0
	for ; marks != 0; marks &= marks - 1 {
		x, ok := votes[bits.TrailingZeros64(marks)].Domains[dimension]
		switch {
		case !ok:
		case n == 0:
			first, n = x, 1
		case x != first:
			return 2
		}
	}
	return n
}

// Recovered tells whether the votes are as strong evidence that the check answers as was asked for to call it down: Quorum datacenters in each of which
// a prober has answered in two probes in a row or more, the last of them at least steady after the first, and fewer than Quorum that still fail.
func Recovered(p Policy, votes []Vote, now time.Time, steady time.Duration) bool {
	p.Quorum = max(p.Quorum, 1)
	t := Fold(p, votes, now)
	return t.Failing < p.Quorum && Steady(p, votes, now, steady) >= p.Quorum
}

// Steady counts the datacenters in which a prober has answered in two probes in a row or more, spanning at least the duration.
func Steady(p Policy, votes []Vote, now time.Time, span time.Duration) int {
	n := 0
	for i := range votes {
		if steadyVote(p, &votes[i], now, span) && !seenBefore(votes[:i], &votes[i], p, now, span) {
			n++
		}
	}
	return n
}

func steadyVote(p Policy, v *Vote, now time.Time, span time.Duration) bool {
	return p.IsFresh(v, now) && v.Outcome == OK && v.Streak >= 2 && v.Start.Sub(v.Since) >= span
}

func seenBefore(earlier []Vote, v *Vote, p Policy, now time.Time, span time.Duration) bool {
	for i := range earlier {
		if earlier[i].Datacenter == v.Datacenter && steadyVote(p, &earlier[i], now, span) {
			return true
		}
	}
	return false
}

// Cast is the vote that results when a prober that had voted old votes again: streaks grow while the outcome stays. A result that began before
// the present vote changes nothing. The caller forgets a present vote from the future first: see FutureSlack.
func Cast(old Vote, outcome Outcome, start time.Time) Vote {
	if old.Outcome != None && !start.After(old.Start) {
		return old
	}
	if outcome == old.Outcome {
		old.Streak++
	} else {
		old.Streak, old.Since = 1, start
	}
	old.Outcome, old.Start = outcome, start
	return old
}
