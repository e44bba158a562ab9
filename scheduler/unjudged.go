package scheduler

import (
	"slices"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Unjudged gives the checks that have been UNKNOWN for longer than is usual, sorted: blind ones for want of votes, as the mesh's own incident counts them, and
// unsatisfiable ones, which ask for votes from more failure domains than there are. total is how many checks there are that are not paused.
func (s *State) Unjudged(now time.Time) (blind, unsatisfiable []string, total int) {
	for n, c := range s.unknown {
		switch {
		case c.gone || shownVerdict(c.shown) == meshv1.CheckStatus_PAUSED:
		case c.reason == meshv1.CheckStatus_TOO_FEW_DOMAINS:
			unsatisfiable = append(unsatisfiable, n)
		case now.Sub(c.since) >= max(s.cfg.MeshGrace, c.interval+c.timeout):
			blind = append(blind, n)
		}
	}
	for _, c := range s.checks {
		if !c.gone && shownVerdict(c.shown) != meshv1.CheckStatus_PAUSED {
			total++
		}
	}
	slices.Sort(blind)
	slices.Sort(unsatisfiable)
	return blind, unsatisfiable, total
}
