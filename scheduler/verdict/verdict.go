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
// Votes of a build on trial ([Vote.Trial]) never decide alone. Canaries count beside the others; votes from the shadow only while fewer datacenters than the quorum have a
// vote that counts in full. Either way only in datacenters from which nothing else is heard, all failures among them together as one datacenter, and only where a vote
// that counts in full has failed too: so a build on trial can complete a quorum, and can neither open anything nor degrade anything that all others see answer. Where
// it sees failures, nobody else does, and too few others are heard, the verdict is [Unknown] ([OnTrial]).
//
// An answer may be degraded ([Vote.Degraded]): good, but slow, or from some addresses only. It is an answer and nothing else wherever failures are counted, so it can neither make
// nor prevent a verdict of down. When a quorum of datacenters sees nothing but degraded answers, in two probes or more, the verdict is [Degraded] ([QuorumDegraded]). Builds on trial
// have no say in that.
//
// A prober whose target fails, answers and fails again, over and over, is unsteady ([Vote.Unsteady]). Where a quorum of datacenters has only such probers, the verdict is [Degraded]
// ([Intermittent]), whatever the newest probe of each says: every failure may have been followed by an answer at once, and yet every second visitor be turned away. It is no
// verdict of down, takes as many domains as one, and is over when they have answered [SteadyRun] times in a row.
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
	NoVotes        Reason = iota // nobody has voted yet
	QuorumUp                     // a quorum of domains sees it answer
	QuorumDown                   // a quorum of domains sees it fail
	MinorityDown                 // fewer domains than the quorum see it fail
	StaleVotes                   // votes there were, but too few are fresh
	ProberErrors                 // every fresh sign of life is the probers' own error
	NotDistinct                  // a quorum sees it fail, but all of it shares one value of a dimension that must differ
	SingleProbe                  // a quorum of one sees it fail, in one probe so far
	Disputed                     // a quorum sees it fail and others see it answer, and those that see it fail have not done so twice in a row
	OnTrial                      // too few domains are heard but for a build on trial, which alone sees it fail
	QuorumDegraded               // all domains see it answer, and in a quorum of them all answers are degraded
	Intermittent                 // fewer domains than the quorum, or none, see it fail now, and in a quorum of them it fails again and again
)

// String is the reason in the words of the API.
func (r Reason) String() string {
	return [...]string{"NO_VOTES", "QUORUM_UP", "QUORUM_DOWN", "MINORITY_DOWN", "STALE_VOTES", "PROBER_ERRORS", "NOT_DISTINCT", "CONFIRMING", "DISPUTED", "BUILD_ON_TRIAL", "QUORUM_DEGRADED", "INTERMITTENT"}[r]
}

// Trial is how far the build of a prober is trusted. The zero value is fully.
type Trial uint8

// The stages of a build on trial.
const (
	Trusted Trial = iota
	Canary
	Shadow
)

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
	// Degraded: the newest probe said OK, and that the target is degraded.
	Degraded bool
	// Level counts the probes in a row with this outcome and this Degraded, from 1; at most Streak. The first of them began at LevelSince.
	Level      int
	LevelSince time.Time
	// Recent are the newest probes that said OK or FAIL, the newest in the lowest bit, 1 for FAIL: at most 32, back to the first failure after the prober was last steady. 0: it is.
	Recent uint32
	// Relapses counts how often it has failed again within RelapseRun answers since then; at most 255. RoughSince is when the first of the failures began.
	Relapses   uint8
	RoughSince time.Time
	// Drained: an operator took the prober out of service; its vote does not count.
	Drained bool
	// Aside: the prober, or a failure domain that it is in, disagrees with all others across unrelated checks; its vote does not count.
	Aside bool
	// Trial: the prober runs a build on trial, whose votes of a check count together as one voice.
	Trial Trial
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
	// Degraded counts those of OK in which every fresh vote that counts in full is degraded; DegradedVotes marks these votes.
	Degraded      int
	DegradedVotes uint64
	// Unsteady counts the datacenters in which every fresh vote that counts in full is unsteady; UnsteadyVotes marks these votes.
	Unsteady      int
	UnsteadyVotes uint64
	// FailVotes marks the fresh failing votes, by index into the votes given.
	FailVotes uint64
	// FreshVotes marks the fresh votes that count.
	FreshVotes uint64
	// Filled counts those of Fresh that only a build on trial speaks for.
	Filled int
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
	var faults, cast, probes, limping int
	var canary, shadow uint64
	for i := range votes {
		v := &votes[i]
		if v.Outcome != None {
			cast++
		}
		if !p.IsFresh(v, now) {
			continue
		}
		switch {
		case v.Outcome == Fault:
			faults++
		case v.Trial == Canary:
			canary |= 1 << i
		case v.Trial == Shadow:
			shadow |= 1 << i
		default:
			t.FreshVotes |= 1 << i
		}
	}
	full := t.FreshVotes
	// Each datacenter is counted at its first vote; the marks of its other votes are cleared from the work list.
	for todo := full; todo != 0; {
		same, fail := place(votes, todo)
		todo &^= same
		t.Fresh++
		t.FailVotes |= fail
		if unsteady(votes, same) {
			t.Unsteady, t.UnsteadyVotes = t.Unsteady+1, t.UnsteadyVotes|same
		}
		switch fail {
		case same:
			t.Failing++
			longest, sum := streaks(votes, fail)
			probes += sum
			if longest >= 2 {
				t.Firm++
			}
		case 0:
			t.OK++
			if all, n := limp(votes, same); all {
				t.Degraded, t.DegradedVotes, limping = t.Degraded+1, t.DegradedVotes|same, limping+n
			}
		default:
			t.Mixed++
		}
	}
	if t.Fresh < p.Quorum {
		canary |= shadow
	}
	alone := false
	if canary != 0 {
		var n int
		n, alone = fill(&t, votes, canary)
		probes += n
	}
	t.Verdict, t.Reason = decide(p, &t, votes, full, probes, cast, faults)
	if t.Verdict == Up && t.Degraded >= p.Quorum && limping >= 2 {
		t.Verdict, t.Reason = Degraded, QuorumDegraded
	}
	if (t.Verdict == Up || t.Reason == MinorityDown || t.Reason == QuorumDegraded) && intermittent(p, &t, votes, full) {
		t.Verdict, t.Reason = Degraded, Intermittent
	}
	if alone && t.Verdict == Unknown {
		t.Reason = OnTrial
	}
	return t
}

// place gives the marked votes of the datacenter of the first of them, and which of those fail.
func place(votes []Vote, marks uint64) (same, fail uint64) {
	i := bits.TrailingZeros64(marks)
	for ; marks != 0; marks &= marks - 1 {
		if j := bits.TrailingZeros64(marks); votes[j].Datacenter == votes[i].Datacenter {
			same |= 1 << j
			if votes[j].Outcome == Fail {
				fail |= 1 << j
			}
		}
	}
	return same, fail
}

// limp tells whether all marked votes are degraded, and in how many probes in a row they have been in all.
func limp(votes []Vote, marks uint64) (all bool, probes int) {
	for ; marks != 0; marks &= marks - 1 {
		v := &votes[bits.TrailingZeros64(marks)]
		if !v.Degraded {
			return false, 0
		}
		probes += v.Level
	}
	return true, probes
}

// streaks gives the longest of the marked votes' streaks, and their sum.
func streaks(votes []Vote, marks uint64) (longest, sum int) {
	for ; marks != 0; marks &= marks - 1 {
		n := votes[bits.TrailingZeros64(marks)].Streak
		longest, sum = max(longest, n), sum+n
	}
	return longest, sum
}

// fill counts the marked votes of builds on trial, in datacenters that are not heard otherwise: answers each, failures as one, where others see it fail too. It gives the
// failing probes that count, and whether failures were left out because nobody else sees any.
func fill(t *Tally, votes []Vote, marks uint64) (probes int, alone bool) {
	var voice uint64
	for m := t.FreshVotes; m != 0; m &= m - 1 {
		d := votes[bits.TrailingZeros64(m)].Datacenter
		for rest := marks; rest != 0; rest &= rest - 1 {
			if j := bits.TrailingZeros64(rest); votes[j].Datacenter == d {
				marks &^= 1 << j
			}
		}
	}
	for marks != 0 {
		same, fail := place(votes, marks)
		marks &^= same
		if fail != 0 {
			voice |= fail
			continue
		}
		t.FreshVotes |= same
		t.Fresh, t.OK, t.Filled = t.Fresh+1, t.OK+1, t.Filled+1
	}
	switch {
	case voice == 0:
		return 0, false
	case t.Failing == 0:
		return 0, true
	}
	t.FreshVotes, t.FailVotes = t.FreshVotes|voice, t.FailVotes|voice
	t.Fresh, t.Failing, t.Filled = t.Fresh+1, t.Failing+1, t.Filled+1
	longest, probes := streaks(votes, voice)
	if longest >= 2 {
		t.Firm++
	}
	return probes, false
}

func decide(p Policy, t *Tally, votes []Vote, full uint64, probes, cast, faults int) (Verdict, Reason) {
	switch {
	case t.Failing >= p.Quorum:
		if probes < 2 {
			return Degraded, SingleProbe
		}
		// A quorum of one asks for no independence at all, so nothing can lack it.
		if t.Undistinct = undistinct(p.Distinct, t.FailVotes, full, votes); t.Undistinct != "" && p.Quorum > 1 {
			return Degraded, NotDistinct
		}
		if t.Firm < p.Quorum && disputed(t, full, votes) {
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

// disputed tells whether somebody whose vote counts in full saw it answer after the first of the failing votes saw it fail. An answer of before is no contradiction: it was up then.
func disputed(t *Tally, full uint64, votes []Vote) bool {
	var first time.Time
	for m := t.FailVotes; m != 0; m &= m - 1 {
		if v := &votes[bits.TrailingZeros64(m)]; first.IsZero() || v.Since.Before(first) {
			first = v.Since
		}
	}
	for m := full &^ t.FailVotes; m != 0; m &= m - 1 {
		if votes[bits.TrailingZeros64(m)].Start.After(first) {
			return true
		}
	}
	return false
}

// undistinct gives the first dimension in which all failing votes are the same although the fresh votes that count in full are not.
func undistinct(dimensions []string, fail, full uint64, votes []Vote) string {
	for _, d := range dimensions {
		if values(d, fail, votes) < 2 && values(d, full, votes) >= 2 {
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

// Cast is the vote that results when a prober that had voted old votes again: streaks grow while the outcome stays. degraded is of outcome OK only. A result that began before
// the present vote changes nothing. The caller forgets a present vote from the future first: see FutureSlack.
func Cast(old Vote, outcome Outcome, degraded bool, start time.Time) Vote {
	if old.Outcome != None && !start.After(old.Start) {
		return old
	}
	degraded = degraded && outcome == OK
	old.remember(outcome, start)
	same := outcome == old.Outcome
	if same && degraded == old.Degraded {
		old.Level++
	} else {
		old.Level, old.LevelSince = 1, start
	}
	if same {
		old.Streak++
	} else {
		old.Streak, old.Since = 1, start
	}
	old.Outcome, old.Degraded, old.Start = outcome, degraded, start
	return old
}
