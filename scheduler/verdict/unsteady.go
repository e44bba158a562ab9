package verdict

import (
	"math"
	"math/bits"
	"time"
)

const (
	// RelapseRun is how many answers there are at most between two failures for the second to be a relapse. One that comes later may be an outage of its own: an outage that is over
	// is followed by more answers than that. A target that loses three requests in ten answers no more often in between in five cases of six.
	RelapseRun = 5
	// UnsteadyFrom is how many relapses make a prober's view of the target unsteady: a service that is started and stumbles twice has none too many.
	UnsteadyFrom = 3
	// SteadyRun is how many answers in a row make it steady again, SteadyFor how long they must span at least. A target that loses three requests in ten gives ten in a row once in 115
	// probes; one that is probed each second could do so every two minutes, so it needs more.
	SteadyRun = 10
	SteadyFor = 15 * time.Second
)

// Unsteady tells whether the prober has seen the check fail, answer and fail again, over and over, and not answer steadily since.
func (v *Vote) Unsteady() bool { return v.Relapses >= UnsteadyFrom }

// Failed is how many of so many newest probes failed; the oldest of these is a failure. Both are 0 for a prober that is steady, and at most 32.
func (v *Vote) Failed() (failed, probes int) {
	return bits.OnesCount32(v.Recent), bits.Len32(v.Recent)
}

// remember takes over what a probe that began at start said, before it becomes the vote.
func (v *Vote) remember(outcome Outcome, start time.Time) {
	switch outcome {
	case Fail:
		if n := bits.TrailingZeros32(v.Recent); v.Recent == 0 {
			v.RoughSince = start
		} else if n > 0 && n <= RelapseRun && v.Relapses < math.MaxUint8 {
			v.Relapses++
		}
		v.Recent = v.Recent<<1 | 1
	case OK:
		v.Recent <<= 1
		long := v.Outcome == OK && start.Sub(v.Since) >= SteadyFor
		if v.Recent == 0 || bits.TrailingZeros32(v.Recent) >= SteadyRun && long {
			v.Recent, v.Relapses, v.RoughSince = 0, 0, time.Time{}
		}
	}
}

// unsteady tells whether all marked votes are.
func unsteady(votes []Vote, marks uint64) bool {
	for ; marks != 0; marks &= marks - 1 {
		if !votes[bits.TrailingZeros64(marks)].Unsteady() {
			return false
		}
	}
	return true
}

// intermittent tells whether it fails again and again in a quorum of datacenters that do not share what may be at fault for it.
func intermittent(p Policy, t *Tally, votes []Vote, full uint64) bool {
	return t.Unsteady >= p.Quorum && (p.Quorum == 1 || undistinct(p.Distinct, t.UnsteadyVotes, full, votes) == "")
}
