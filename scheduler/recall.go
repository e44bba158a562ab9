package scheduler

import (
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// Recollection is a verdict from before this server was started.
type Recollection struct {
	// Verdict is the verdict; UNKNOWN is not recalled.
	Verdict meshv1.CheckStatus_Verdict
	// Since is since when it held.
	Since time.Time
}

// recall takes over what is known from before. It may come before the check does, before its first verdict, and after it.
func (s *State) recall(now time.Time, e Recalled) {
	s.recalled = e.Verdicts
	for name := range e.Verdicts {
		if c := s.checks[name]; c != nil && c.turns == 1 {
			if since := s.recollect(c, c.since); !since.Equal(c.since) {
				c.since, c.updated = since, now
				s.do(StatusChanged{Check: c.name, Before: shownVerdict(c.shown), After: shownVerdict(c.shown), Reason: c.reason})
			}
		}
	}
}

// recollect is since when the first verdict of a check holds: since then, or longer if that is what is recalled. What is recalled is used once.
func (s *State) recollect(c *check, since time.Time) time.Time {
	r, known := s.recalled[c.name]
	if !known {
		return since
	}
	delete(s.recalled, c.name)
	if c.shown == verdict.Unknown || shownVerdict(c.shown) != r.Verdict || !r.Since.Before(since) {
		return since
	}
	return r.Since
}
