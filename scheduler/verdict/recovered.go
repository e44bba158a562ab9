package verdict

import (
	"math/bits"
	"time"
)

// Recovered tells whether the votes are as strong evidence that the check answers as was asked for to call it down: Quorum datacenters in each of which
// a prober has answered in two probes in a row or more, the last of them at least steady after the first, and fewer than Quorum that still fail. Where Quorum
// datacenters have failed again after answering, the target may be failing by chance: then each of these must have answered so.
func Recovered(p Policy, votes []Vote, now time.Time, steady time.Duration) bool {
	p.Quorum = max(p.Quorum, 1)
	t := Fold(p, votes, now)
	if t.Failing >= p.Quorum || Steady(p, votes, now, steady) < p.Quorum {
		return false
	}
	relapsed, over := 0, true
	for todo := t.FreshVotes; todo != 0; {
		same, _ := place(votes, todo)
		todo &^= same
		again, answers := false, false
		for ; same != 0; same &= same - 1 {
			v := &votes[bits.TrailingZeros64(same)]
			again = again || v.Trial == Trusted && v.Relapses > 0
			answers = answers || steadyVote(p, v, now, steady)
		}
		if again {
			relapsed, over = relapsed+1, over && answers
		}
	}
	return over || relapsed < p.Quorum
}

// Steady counts the datacenters in which a prober has answered in two probes in a row or more, spanning at least the duration.
func Steady(p Policy, votes []Vote, now time.Time, span time.Duration) int {
	n, counts := 0, Fold(p, votes, now).FreshVotes
	for i := range votes {
		if counts&(1<<i) != 0 && steadyVote(p, &votes[i], now, span) && !seenBefore(votes[:i], counts, &votes[i], p, now, span) {
			n++
		}
	}
	return n
}

// Limping counts the datacenters in which every fresh vote that counts in full is degraded, or was until two probes ago, or until less than the span before its newest probe. With fewer
// of them than the quorum, and nobody who sees it fail, a period of being degraded is over.
func Limping(p Policy, votes []Vote, now time.Time, span time.Duration) int {
	n := 0
	todo := Fold(p, votes, now).FreshVotes
	for i := range votes {
		if votes[i].Trial != Trusted {
			todo &^= 1 << i
		}
	}
	for todo != 0 {
		same, _ := place(votes, todo)
		todo &^= same
		all := true
		for ; same != 0; same &= same - 1 {
			all = all && limps(&votes[bits.TrailingZeros64(same)], span)
		}
		if all {
			n++
		}
	}
	return n
}

func limps(v *Vote, span time.Duration) bool {
	recently := v.LevelSince.After(v.Since) && (v.Level < 2 || v.Start.Sub(v.LevelSince) < span)
	return v.Outcome == OK && (v.Degraded || recently)
}

func steadyVote(p Policy, v *Vote, now time.Time, span time.Duration) bool {
	return p.IsFresh(v, now) && v.Outcome == OK && v.Streak >= 2 && v.Start.Sub(v.Since) >= span
}

func seenBefore(earlier []Vote, counts uint64, v *Vote, p Policy, now time.Time, span time.Duration) bool {
	for i := range earlier {
		if counts&(1<<i) != 0 && earlier[i].Datacenter == v.Datacenter && steadyVote(p, &earlier[i], now, span) {
			return true
		}
	}
	return false
}
