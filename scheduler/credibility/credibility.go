// Package credibility tells sick probers from sick targets. It compares each prober with the consensus of the others, over unrelated targets, and says which prober,
// or which failure domain that several of them share, should be set aside, and when one may come back.
//
// # What is observed
//
// An observation is one vote held against the others on the same check: an agreement, or a dissent when every fresh vote of at least two other datacenters says the
// opposite. What makes an observation is the caller's to see; a vote on which the others are not of one mind is none. A target may have its own reason to treat one
// prober differently, so dissent is counted by subject (what the target's host is an alias of, else its one address, else the host; where there are hardly any hosts,
// address and port): at most [Config.PerSubject] within [Config.Memory] of any one, and nothing is decided before dissent has been seen on [Config.Subjects] of
// them, over [Config.Lasting] at least: what goes wrong at one moment (a network that blinks, a server that was cut off) makes many observations that are one.
//
// # The test
//
// Page's cumulative sum (E. S. Page, Continuous Inspection Schemes, Biometrika 41, 1954) of the log-likelihood ratio between a sick prober, which dissents in a share
// [Config.Sick] of its observations, and a sound one, which does so in a share [Config.Sound]. The sum never falls below zero; over [Config.Threshold] the prober is
// sick. Sums are taken in batches, one a call of [Book.Judge], which makes them no larger. The mean number of observations between two false alarms of a prober that is
// sound is at least e^Threshold (G. Lorden, Procedures for Reacting to a Change in Distribution, Annals of Mathematical Statistics 42, 1971): with the defaults 485
// million at a dissent of 1 in 200, which is a year of a thousand checks a minute. A prober that always dissents is found after 7 observations, one that dissents in 15
// of 100 after about 55.
//
// The same sum is kept for every value of every domain dimension that at least two probers share and two others do not. What is set aside is the best explanation: of
// all probers and domains over the threshold, the one whose members' recent observations are likelier by the largest factor if they are sick and all others sound. So a
// domain is named when its members dissent together, and a prober when it does so alone. Of a member whose own sum is over the threshold, what was observed before the
// sum began to rise does not count.
//
// # Coming back
//
// What is set aside goes on being compared. It comes back when it has been away for [Config.Away] (twice that after each return within a day) and the same sum, with the
// signs changed, is over [Config.Return]: with the defaults 80 agreements without a dissent.
//
// # Limits
//
// At most [Config.MostProbers] of the probers (and always one) are set aside one by one, or all of one domain at a time, never more than half of the datacenters, and nothing besides what is
// set aside already that would leave half of the datacenters, or more, without all of their probers: when
// everything looks sick, nothing is set aside, and [Book.Suspects] says what would have been.
//
// Who finds a domain sick by other means asks [Book.Shared] which it is, and [Book.Limit] whether it may be set aside; it comes back by the same rule.
//
// Everything here is a pure function of the calls and their times. It imports the standard library only.
package credibility

import (
	"math"
	"time"
)

// Config are the constants of the test. The zero value means the defaults.
type Config struct {
	// Sound and Sick are shares of dissent, 0 to 1: what a sound prober has at most, and what a sick one has at least. Defaults 0.005 and 0.1: measured loss on the
	// paths of sound probers stays well below 1 in 200 after the repetition that confirmation brings; a prober that loses one packet in seven is of no use.
	Sound, Sick float64
	// Threshold is the natural logarithm of the least mean number of observations between false alarms. Default 20.
	Threshold float64
	// Return is the sum at which what was set aside is believed again. Default 8.
	Return float64
	// Lasting is how far apart the first and the last of the dissents must be. Default 15 s.
	Lasting time.Duration
	// Away is how long something is set aside at least. Default 5 min.
	Away time.Duration
	// Subjects is on how many subjects there must be dissent. Default 3. PerSubject is how many dissents on one subject count within Memory. Default 3.
	Subjects, PerSubject int
	// Memory is how long a dissent on a subject is remembered, and the half-life of the counts by which explanations are compared. Default 10 min.
	Memory time.Duration
	// MostProbers is the share of probers that may be set aside one by one. Default 0.1.
	MostProbers float64
}

func (c Config) withDefaults() Config {
	real := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	whole := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	span := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	real(&c.Sound, 0.005)
	real(&c.Sick, 0.1)
	real(&c.Threshold, 20)
	real(&c.Return, 8)
	real(&c.MostProbers, 0.1)
	whole(&c.Subjects, 3)
	whole(&c.PerSubject, 3)
	span(&c.Lasting, 15*time.Second)
	span(&c.Away, 5*time.Minute)
	span(&c.Memory, 10*time.Minute)
	return c
}

// weights are what one dissent adds to the sum, and one agreement takes from it.
func (c Config) weights() (dissent, agreement float64) {
	return math.Log(c.Sick / c.Sound), math.Log((1 - c.Sound) / (1 - c.Sick))
}

// Dissent is one vote against the consensus of the others.
type Dissent struct {
	// Prober is who cast it, by its bare name.
	Prober string
	// Check is the check, Subject what it has in common with related ones: what the target's host is an alias of, its address, or the host.
	Check, Subject string
	// Kind is the kind of check, for example "http".
	Kind string
	// Failed: the prober saw it fail while the others saw it answer; false: the other way round.
	Failed bool
}

// Domain is a failure domain, or a single prober with the dimension "prober".
type Domain struct{ Dimension, Value string }

// ProberDimension is the dimension of a domain that is one prober.
const ProberDimension = "prober"

// String is the domain as people write it.
func (d Domain) String() string { return d.Dimension + "=" + d.Value }

// Finding is what the test says of a domain.
type Finding struct {
	// Domain is what dissents.
	Domain Domain
	// Also are other domains with exactly the same probers, sorted: any of them explains it as well.
	Also []Domain
	// Probers are its members, sorted.
	Probers []string
	// Since is when the first of the dissents that are remembered was seen.
	Since time.Time
	// Dissents and Agreements are the recent observations of its members, in counts that halve every Config.Memory.
	Dissents, Agreements float64
	// Failed is the share of the remembered dissents in which the members saw a failure that nobody else saw.
	Failed float64
	// Checks are examples of checks on which it dissents, sorted, at most 10. Kinds are the kinds of checks with dissent, sorted.
	Checks, Kinds []string
	// Sum is the cumulative sum.
	Sum float64
	// Limited, of a suspect, is why it is not set aside; empty otherwise.
	Limited string
}

// Change is something to do.
type Change struct {
	// Finding is what was found. For a return only its Domain, Probers and Since (when it was set aside) are set.
	Finding Finding
	// Return: it may count again. Otherwise it is to be set aside.
	Return bool
}
