package peer

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Results have the time of the server that holds their prober, and a vote counts for its interval, its timeout and two seconds. A server whose clock is an hour off
// would count nobody's votes but those of its own probers, and no other server would count those: so each server takes votes of another one on its own clock.

const (
	// clockSlack is how far two clocks may be apart without any correction: votes have twice as much, and the correction is not exact.
	clockSlack = time.Second
	// clockWindow is how many beats the difference is taken from. A beat that was held up on its way shows less than there is, never more; one of the last eight, which
	// are a second and a half, was not.
	clockWindow = 8
)

// skew is how far another server's clock is ahead of this one's, as its newest beats tell. The zero value knows nothing.
type skew struct {
	samples [clockWindow]time.Duration
	n       int
	apart   bool // more than clockSlack, and not less than half of it since
}

// note takes a beat in: when it was made by the other clock, and when it came by this one. It tells whether the clocks have come apart or together by that.
func (s *skew) note(made, came time.Time) (turned bool) {
	// Wall clocks are compared: a monotonic reading says nothing of what this server takes for the time.
	s.samples[s.n%clockWindow] = made.Round(0).Sub(came.Round(0))
	s.n++
	before, limit := s.apart, clockSlack
	if before {
		limit /= 2
	}
	s.apart = s.most().Abs() > limit
	return s.apart != before
}

func (s *skew) most() time.Duration { return slices.Max(s.samples[:min(s.n, clockWindow)]) }

// offset is what the other clock shows more than this one; 0 while that is within clockSlack.
func (s *skew) offset() time.Duration {
	if !s.apart {
		return 0
	}
	return s.most()
}

// ahead is how far a server's clock is ahead of this one's.
func (p *Peers) ahead(o *other) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return o.skew.offset()
}

// onThisClock gives results of a server whose clock is so far ahead the time that this server's clock had.
func onThisClock(results []*meshv1.Result, ahead time.Duration) {
	if ahead == 0 {
		return
	}
	for _, r := range results {
		if r.GetStartTime() != nil {
			r.StartTime = timestamppb.New(r.GetStartTime().AsTime().Add(-ahead))
		}
	}
}

// onItsClock gives a run for a prober of a server whose clock is so far ahead the deadline that its clock will show. The run itself is not changed.
func onItsClock(run *meshv1.RunNow, ahead time.Duration) *meshv1.RunNow {
	if ahead == 0 || run.GetDeadline() == nil {
		return run
	}
	run = proto.CloneOf(run)
	run.Deadline = timestamppb.New(run.GetDeadline().AsTime().Add(ahead))
	return run
}
