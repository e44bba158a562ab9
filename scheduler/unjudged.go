package scheduler

import (
	"slices"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Unjudged are the checks that have been UNKNOWN for longer than is usual. Names are resource names, sorted, each once.
type Unjudged struct {
	// Blind lack votes, as the mesh's own incident counts them.
	Blind []string
	// Silent and Aside are the probers that run checks of Blind and whose votes are missing there: they have no session, or are set aside. Who is both is silent.
	Silent, Aside []string
	// Forbidden cannot be judged even with every vote that may still come, because their probers may not connect to the target.
	Forbidden []string
	// ForbiddenBy is what a prober of the first of Forbidden says, a sentence with the prober's name; empty when there is none.
	ForbiddenBy string
	// Unsatisfiable ask for votes from more failure domains than there are.
	Unsatisfiable []string
	// Total is how many checks there are that are not paused.
	Total int
}

// Unjudged gives the checks that have been UNKNOWN for longer than is usual, and why.
func (s *State) Unjudged(now time.Time) Unjudged {
	var u Unjudged
	for n, c := range s.unknown {
		switch {
		case c.gone || shownVerdict(c.shown) == meshv1.CheckStatus_PAUSED:
		case c.reason == meshv1.CheckStatus_TOO_FEW_DOMAINS:
			u.Unsatisfiable = append(u.Unsatisfiable, n)
		case now.Sub(c.since) < max(s.cfg.MeshGrace, c.interval+c.timeout):
		case c.forbidden():
			u.Forbidden = append(u.Forbidden, n)
		default:
			u.Blind = append(u.Blind, n)
		}
	}
	for _, c := range s.checks {
		if !c.gone && shownVerdict(c.shown) != meshv1.CheckStatus_PAUSED {
			u.Total++
		}
	}
	slices.Sort(u.Blind)
	slices.Sort(u.Forbidden)
	slices.Sort(u.Unsatisfiable)
	u.Silent, u.Aside = s.missing(u.Blind)
	if len(u.Forbidden) > 0 {
		u.ForbiddenBy = s.checks[u.Forbidden[0]].refusal()
	}
	return u
}

// missing gives the probers that run some of these checks and have no session, or are set aside.
func (s *State) missing(checks []string) (silent, aside []string) {
	seen := map[string]bool{}
	for _, n := range checks {
		c := s.checks[n]
		for i := range c.votes {
			name := c.votes[i].Prober
			p := s.roster.probers[name]
			if c.seats[i].rank < 0 || seen[name] || p == nil || p.enrolled == nil || p.enrolled.GetDrained() {
				continue
			}
			seen[name] = true
			switch {
			case !p.online:
				silent = append(silent, spec.Name(spec.Probers, name))
			case p.aside != "":
				aside = append(aside, spec.Name(spec.Probers, name))
			}
		}
	}
	slices.Sort(silent)
	slices.Sort(aside)
	return silent, aside
}

// forbidden tells whether so many of the check's probers may not connect to its target that all the others together are no quorum: neither a session nor time
// mends that, only another target or other settings of the probers. Their votes may be old: a prober that is gone has not been given other settings either.
func (c *check) forbidden() bool {
	willing, refusing := map[string]bool{}, false
	for i := range c.votes {
		switch {
		case c.seats[i].rank < 0:
		case forbids(c.seats[i].result):
			refusing = true
		default:
			willing[c.votes[i].Datacenter] = true
		}
	}
	return refusing && len(willing) < c.policy.Quorum
}

// forbids tells whether the result says that its prober may not connect to the target.
func forbids(r *meshv1.Result) bool {
	return r.GetOutcome() == meshv1.Result_ERROR && r.GetErrorClass() == meshv1.Result_PROBER && strings.Contains(r.GetError(), spec.Forbidden)
}

// refusal is what the first prober that may not connect to the target says.
func (c *check) refusal() string {
	for i := range c.votes {
		if c.seats[i].rank >= 0 && forbids(c.seats[i].result) {
			return c.votes[i].Prober + ": " + strings.TrimSuffix(c.seats[i].result.GetError(), ".")
		}
	}
	return ""
}
