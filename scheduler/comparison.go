package scheduler

import (
	"slices"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/credibility"
)

const (
	// maxInside and maxOutside bound the votes of one comparison that an incident keeps: enough to see who says what, in a few kilobytes for all checks together.
	maxInside, maxOutside = 3, 5
)

// comparisons are what the members of a finding say of its checks at now beside what all others say: those on which they differ now, or all of them when they differ on none, since
// what disagreed may have passed by the time that it was enough.
func (s *State) comparisons(now time.Time, f credibility.Finding) []*meshv1.Comparison {
	var all, differing []*meshv1.Comparison
	for _, name := range f.Checks {
		c := s.checks[name]
		if c == nil || c.gone {
			continue
		}
		x := &meshv1.Comparison{Check: c.name, Uri: c.spec.GetUri()}
		for _, v := range c.voteList(now, false) {
			switch inside := slices.Contains(f.Probers, v.GetProber()[len("probers/"):]); {
			case !v.GetFresh() || v.GetOutcome() != meshv1.Result_OK && v.GetOutcome() != meshv1.Result_FAIL:
			case inside && len(x.Inside) < maxInside:
				x.Inside = append(x.Inside, v)
			case !inside && len(x.Outside) < maxOutside:
				x.Outside = append(x.Outside, v)
			}
		}
		if len(x.Inside) == 0 || len(x.Outside) == 0 {
			continue
		}
		all = append(all, x)
		if differs(x) {
			differing = append(differing, x)
		}
	}
	if differing != nil {
		return differing
	}
	return all
}

// differs tells whether somebody inside says what nobody outside says.
func differs(x *meshv1.Comparison) bool {
	return slices.ContainsFunc(x.GetInside(), func(in *meshv1.Vote) bool {
		return !slices.ContainsFunc(x.GetOutside(), func(out *meshv1.Vote) bool { return out.GetOutcome() == in.GetOutcome() })
	})
}
