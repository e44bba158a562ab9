// Package incident decides when an incident of a check is opened, made worse and closed.
//
// It stands between the tally of the votes, which may change with every vote, and what people are told. [Decide] turns a tally, with what is open already,
// into the verdict that is shown and a [Wish]. While others are being asked about a bad vote, nothing is opened and nothing is closed. Closing needs evidence as strong as opening did, in two successive rounds; UNKNOWN neither opens nor closes.
// A check that fails intermittently keeps the incident that is open: each answer would close it, and the next failure open another.
// [Damping] makes a check that flaps stay up longer before its incident is closed, so that a flapping target is one incident and not fifty.
// Everything here is a pure function of its arguments.
package incident

import (
	"math"
	"time"

	"github.com/probemesh/probemesh/scheduler/verdict"
)

// Wish is what should happen to the incident of a check.
type Wish uint8

// The wishes.
const (
	Nothing Wish = iota
	Open
	Escalate
	Resolve
)

// String is the wish as people read it.
func (w Wish) String() string { return [...]string{"nothing", "open", "escalate", "resolve"}[w] }

// Facts are what Decide goes by.
type Facts struct {
	// Tally is the count of the votes.
	Tally verdict.Tally
	// Open is the severity of the open incident, verdict.Down or verdict.Degraded; verdict.Unknown when none is open.
	Open verdict.Verdict
	// Recovered: as strong evidence as opened it says that it answers again; see verdict.Recovered.
	Recovered bool
	// Confirming: other probers are being asked and have not all answered.
	Confirming bool
	// Waiting: a quorum fails, in one probe each, and answers of others that were asked at the same time are still to come, as they must within a moment.
	Waiting bool
	// Shown is the verdict shown so far.
	Shown verdict.Verdict
	// OnDegraded: the check asks for an incident when it is DEGRADED.
	OnDegraded bool
}

// Decision is what Decide makes of them.
type Decision struct {
	// Verdict is what is to be shown.
	Verdict verdict.Verdict
	// Recovering: DOWN is shown although votes say otherwise, until they have said so for long enough.
	Recovering bool
	// Held: the verdict of before is shown until those who were asked have answered.
	Held bool
	// Wish is what should happen to the incident.
	Wish Wish
}

// Decide is the transition table of a check:
//
//	open      tally     evidence        shown       wish
//	--------  --------  --------------  ----------  ------------------
//	none      DOWN      waiting         as before   nothing
//	none      DOWN                      DOWN        open
//	none      DEGRADED  confirming      as before   nothing
//	none      DEGRADED                  DEGRADED    open, if OnDegraded
//	none      INTERMIT. confirming      DEGRADED    nothing
//	none      UP                        UP          nothing
//	DEGRADED  DOWN                      DOWN        escalate
//	DEGRADED  DEGRADED                  DEGRADED    nothing
//	DEGRADED  UP        recovered       UP          resolve
//	DEGRADED  UP        not recovered   DEGRADED    nothing
//	DOWN      DOWN                      DOWN        nothing
//	DOWN      DEGRADED  confirming      DOWN        nothing
//	DOWN      INTERMIT. recovered       DEGRADED    nothing, and so on until the votes say DOWN or UP
//	DOWN      other     recovered       as tally    resolve, unless OnDegraded and DEGRADED
//	DOWN      other     not recovered   DOWN        nothing
//	any       UNKNOWN                   UNKNOWN     nothing
//
// INTERMIT. is DEGRADED for reason INTERMITTENT; it is otherwise like any DEGRADED.
func Decide(f Facts) Decision {
	tally := f.Tally.Verdict
	if tally == verdict.Unknown {
		return Decision{Verdict: verdict.Unknown}
	}
	switch f.Open {
	case verdict.Down:
		return whileDown(f)
	case verdict.Degraded:
		return whileDegraded(f)
	}
	switch {
	case tally == verdict.Down && f.Waiting && f.Shown != verdict.Down:
		return Decision{Verdict: f.Shown, Held: true}
	case tally == verdict.Down:
		return Decision{Verdict: verdict.Down, Wish: Open}
	case f.Tally.Reason == verdict.Intermittent && f.Confirming:
		// What was seen so often needs no confirmation; whether it is worse is being asked.
		return Decision{Verdict: verdict.Degraded}
	case tally == verdict.Degraded && f.Confirming && f.Shown != verdict.Down:
		return Decision{Verdict: f.Shown, Held: true}
	case tally == verdict.Degraded && f.OnDegraded:
		return Decision{Verdict: verdict.Degraded, Wish: Open}
	}
	return Decision{Verdict: tally}
}

func whileDown(f Facts) Decision {
	tally := f.Tally.Verdict
	switch {
	case tally == verdict.Down:
		return Decision{Verdict: verdict.Down}
	case f.Tally.Reason == verdict.Intermittent && (f.Recovered || f.Shown == verdict.Degraded):
		return Decision{Verdict: verdict.Degraded}
	case !f.Recovered, tally == verdict.Degraded && f.Confirming:
		return Decision{Verdict: verdict.Down, Recovering: true}
	case tally == verdict.Degraded && f.OnDegraded:
		return Decision{Verdict: verdict.Degraded}
	}
	return Decision{Verdict: tally, Wish: Resolve}
}

func whileDegraded(f Facts) Decision {
	switch {
	case f.Tally.Verdict == verdict.Down:
		return Decision{Verdict: verdict.Down, Wish: Escalate}
	case f.Tally.Verdict == verdict.Degraded:
		return Decision{Verdict: verdict.Degraded}
	case !f.Recovered:
		return Decision{Verdict: verdict.Degraded, Recovering: true}
	}
	return Decision{Verdict: f.Tally.Verdict, Wish: Resolve}
}

// Damping is the penalty of a check that flaps, in the shape of RFC 2439: each incident adds one, and it decays with a half-life. Unlike a route, a check is
// not suppressed: its incident stays open longer. The zero value is no penalty.
type Damping struct {
	penalty float64
	at      time.Time
}

const (
	// halfLife is RFC 2439's usual 15 minutes.
	halfLife = 15 * time.Minute
	// forgiven incidents cost nothing: a bad deploy opens one, and its repair another.
	forgiven = 2
	// ceiling bounds the hold: at most 18 intervals.
	ceiling = 20
)

// Add is the damping after one more incident was opened at now.
func (d Damping) Add(now time.Time) Damping {
	return Damping{penalty: math.Min(d.At(now)+1, ceiling), at: now}
}

// At is the penalty at now: 1 for each incident, decayed.
func (d Damping) At(now time.Time) float64 {
	if d.penalty == 0 {
		return 0
	}
	return d.penalty * math.Exp2(-float64(now.Sub(d.at))/float64(halfLife))
}

// Hold is how long a check must answer without a break before its incident is closed: nothing for the first two incidents in a while, then an interval for
// each further one. So the incident of a target that flaps faster than that stays open.
func (d Damping) Hold(interval time.Duration, now time.Time) time.Duration {
	over := d.At(now) - forgiven
	if over <= 0 {
		return 0
	}
	return time.Duration(over * float64(interval))
}
