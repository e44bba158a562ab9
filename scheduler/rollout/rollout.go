// Package rollout decides how far a build of the prober is trusted: from its first probe in the shadow, by way of a few canaries, to the day on which its votes count like
// any other's, or to the moment at which it is halted.
//
// # Stages
//
//	stage    becomes  when
//	-------  -------  ----------------------------------------------------------------------------------------
//	SHADOW   HALTED   it disagrees with the settled builds
//	SHADOW   CANARY   it has been in the shadow for Policy.ShadowTime, with Policy.ShadowComparisons comparisons
//	CANARY   HALTED   it disagrees with the settled builds
//	CANARY   SETTLED  it has been a canary for Policy.CanaryTime, with Policy.CanaryComparisons comparisons
//	SHADOW,  SETTLED  nobody is left who runs a settled build, and has not been for [Config.Alone]; nobody can say then whether it is right, and a mesh that
//	CANARY            believes nobody is of no use
//
// A halted build stays halted until an operator approves it; so does one that waits while [Policy.Manual] is set. The rest is [Decide].
//
// # Disagreement
//
// A comparison is one vote of the build held against probers of settled builds on the same check, since its probe began; what makes one is the caller's to see. [Trial]
// counts them, and halts the build by either of two rules:
//
//  1. Rate: Page's cumulative sum of the log-likelihood ratio between a build that disagrees in a share [Config.Sick] of its comparisons and one that does so in a share
//     [Config.Sound], over [Config.Threshold]. With the defaults five disagreements in a row are enough, eight where one comparison in 20 is one. A build that
//     disagrees in 5 of 1,000 is halted wrongly once in 60,000 comparisons or more (e^Threshold), one that does so in 1 of 1,000 practically never.
//  2. Persistence: on [Config.Firm] hosts a check with [Config.InARow] disagreements in succession, by one prober, without an agreement between. This finds a build that is
//     wrong about few checks of many, each time, however rare such checks are. One such host alone keeps the build from its next stage until somebody has looked.
//
// Of one host at most [Config.PerSubject] disagreements count within [Config.Memory], since a host may have its own reason, and the first rule does not halt before as many as
// [Config.Subjects] hosts have been disagreed on. Where the probers of the build watch fewer hosts, all of them are enough for either. So a build that is wrong about a twentieth of
// what it probes, or more, or about three hosts of however many, is halted by the ninth disagreement that counts at the latest, and by the fifth if nothing speaks for
// it meanwhile. One that is wrong about less than a fiftieth, on many hosts, is halted when it has been wrong three times in succession on two of them.
//
// Everything here is a pure function of its arguments and of the calls before. It imports the standard library only.
package rollout

import (
	"fmt"
	"time"
)

// Stage is how far a build is trusted. The zero value is one that nobody has written down.
type Stage uint8

// The stages.
const (
	None Stage = iota
	Shadow
	Canary
	Settled
	Halted
)

// String is the stage as people read it.
func (s Stage) String() string {
	return [...]string{"NONE", "SHADOW", "CANARY", "SETTLED", "HALTED"}[s]
}

// Policy is how builds are tried; operators set it. The zero value means the defaults.
type Policy struct {
	// ShadowTime and CanaryTime are how long a build stays in the stage at least. Defaults 10 min and 20 min. Negative: no time at all.
	ShadowTime, CanaryTime time.Duration
	// ShadowComparisons and CanaryComparisons are how many comparisons it needs there. Default 100 each.
	ShadowComparisons, CanaryComparisons int64
	// CanaryPercent is how many of all probers take part as canaries, 1 to 50. Default 20.
	CanaryPercent int
	// Manual: nothing goes on to the next stage by itself.
	Manual bool
}

// WithDefaults is the policy with its defaults filled in.
func (p Policy) WithDefaults() Policy {
	if p.ShadowTime == 0 {
		p.ShadowTime = 10 * time.Minute
	}
	if p.CanaryTime == 0 {
		p.CanaryTime = 20 * time.Minute
	}
	if p.ShadowComparisons == 0 {
		p.ShadowComparisons = 100
	}
	if p.CanaryComparisons == 0 {
		p.CanaryComparisons = 100
	}
	if p.CanaryPercent == 0 {
		p.CanaryPercent = 20
	}
	return p
}

// Canaries is how many of a build's probers take part, of so many in all: the share of the policy, rounded down, and one at least.
func (p Policy) Canaries(probers int) int { return max(1, probers*p.WithDefaults().CanaryPercent/100) }

// Facts are what Decide goes by.
type Facts struct {
	// Stage is where the build is, Since since when.
	Stage Stage
	Since time.Time
	// Probers is how many run it.
	Probers int
	// Comparisons and Halt are what its Trial says.
	Comparisons int64
	Halt        string
	// Doubt is what somebody should look at before it goes on; empty when there is nothing. See Trial.Doubt.
	Doubt string
	// Alone is how long nobody has run a settled build; negative when somebody does. Next: of several builds this is the one that is to be settled then.
	Alone time.Duration
	Next  bool
}

// Decision is what Decide makes of them.
type Decision struct {
	// Stage is where the build should be.
	Stage Stage
	// Reason says why, when it is another one than before.
	Reason string
	// Waits says what it waits for, when it stays.
	Waits string
}

// Decide is the transition table of a build.
func Decide(now time.Time, cfg Config, p Policy, f Facts) Decision {
	cfg, p = cfg.withDefaults(), p.WithDefaults()
	if f.Stage != Shadow && f.Stage != Canary {
		return Decision{Stage: f.Stage}
	}
	if f.Halt != "" {
		return Decision{Stage: Halted, Reason: f.Halt}
	}
	if f.Probers == 0 {
		return Decision{Stage: f.Stage, Waits: "no prober runs it"}
	}
	if f.Alone >= 0 && f.Next {
		if f.Alone >= cfg.Alone {
			return Decision{Stage: Settled, Reason: fmt.Sprintf("no prober has run a settled build for %s, so there is nothing left to compare it with", cfg.Alone)}
		}
		return Decision{Stage: f.Stage, Waits: fmt.Sprintf("no prober runs a settled build any more; it is settled in %s unless one comes back", (cfg.Alone - f.Alone).Round(time.Second))}
	}
	next, least, need := Canary, p.ShadowTime, p.ShadowComparisons
	if f.Stage == Canary {
		next, least, need = Settled, p.CanaryTime, p.CanaryComparisons
	}
	switch left, missing := least-now.Sub(f.Since), need-f.Comparisons; {
	case f.Doubt != "":
		return Decision{Stage: f.Stage, Waits: "an operator must approve it: " + f.Doubt}
	case p.Manual:
		return Decision{Stage: f.Stage, Waits: "an operator must approve it: the policy leaves that to people"}
	case left > 0 && missing > 0:
		return Decision{Stage: f.Stage, Waits: fmt.Sprintf("%s and %d comparisons more", left.Round(time.Second), missing)}
	case left > 0:
		return Decision{Stage: f.Stage, Waits: left.Round(time.Second).String() + " more"}
	case missing > 0:
		return Decision{Stage: f.Stage, Waits: fmt.Sprintf("%d comparisons more", missing)}
	}
	return Decision{Stage: next, Reason: fmt.Sprintf("it agreed with the settled builds in %d comparisons within %s", f.Comparisons, now.Sub(f.Since).Round(time.Second))}
}
