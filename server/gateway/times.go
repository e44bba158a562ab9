package gateway

import (
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// mistimedFrom is how far a LIVE result's end may be from now before its times count as wrong. New results are sent within a second, on the mesh's clock to some milliseconds, and
// a session that stands still for three seconds ends: a minute is more than an overloaded machine makes of that.
const mistimedFrom = time.Minute

// judgeTimes looks at when the newest of the LIVE results claims to have ended: it came a moment ago.
func (s *session) judgeTimes(results []*meshv1.Result, now time.Time) {
	if len(results) == 0 {
		return
	}
	r := results[len(results)-1]
	off := r.GetStartTime().AsTime().Add(r.GetDuration().AsDuration()).Sub(now)
	if off.Abs() < mistimedFrom {
		off = 0
	}
	s.mu.Lock()
	before := s.facts.Mistimed
	s.facts.Mistimed = off.Round(time.Second)
	s.mu.Unlock()
	if (before == 0) != (off == 0) && off != 0 {
		s.g.log.Warn("the times on a prober's results cannot be; they are no votes", "prober", s.name, "off", off.Round(time.Second), "check", clip(r.GetCheck()))
	}
}
