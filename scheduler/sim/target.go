package sim

import (
	"slices"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// mode is how a target behaves.
type mode string

const (
	modeUp        mode = "up"
	modeDown      mode = "down"      // refuses connections
	modeBlackhole mode = "blackhole" // never answers
	modeSlow      mode = "slow"      // answers after 60 % of the timeout
	modeFlaky     mode = "flaky"     // every second probe fails, by chance
)

// target is what a check watches. It can behave otherwise towards some datacenters.
type target struct {
	w    *World
	mode mode
	from map[string]bool // nil: towards all
	// since is when it began to behave so.
	since time.Time
	// turns are all of its changes, oldest first.
	turns []turn
}

type turn struct {
	at   time.Time
	mode mode
}

func (w *World) targetOf(uri string) *target {
	t := w.targets[uri]
	if t == nil {
		t = &target{w: w, mode: modeUp, since: w.now}
		w.targets[uri] = t
	}
	return t
}

// SetTarget changes how a target behaves, towards some datacenters or all.
func (w *World) setTarget(uri string, m mode, from ...string) {
	t := w.targetOf(uri)
	t.mode, t.since, t.from = m, w.now, nil
	t.turns = append(t.turns, turn{w.now, m})
	if len(from) > 0 {
		t.from = map[string]bool{}
		for _, d := range from {
			t.from[d] = true
		}
	}
	if len(from) > 0 {
		w.log("the target %s is %s, seen from %v", uri, m, from)
	} else {
		w.log("the target %s is %s", uri, m)
	}
}

// answer is what a probe from the prober would meet now, and how long it would take.
func (t *target) answer(p *prober, timeout time.Duration) (meshv1.Result_Outcome, time.Duration, string) {
	rtt := 5*time.Millisecond + time.Duration(t.w.rng.Int64N(int64(50*time.Millisecond)))
	m := t.mode
	if t.from != nil && !t.from[p.datacenter] {
		m = modeUp
	}
	if p.lying {
		m = modeDown
	}
	if m == modeFlaky {
		m = modeUp
		if t.w.chance(0.5) {
			m = modeDown
		}
	}
	switch m {
	case modeDown:
		return meshv1.Result_FAIL, rtt, "connection refused"
	case modeBlackhole:
		return meshv1.Result_FAIL, timeout, "timeout after " + timeout.String()
	case modeSlow:
		return meshv1.Result_OK, timeout * 6 / 10, ""
	}
	return meshv1.Result_OK, rtt, ""
}

// rough counts the times at which it began to fail since it was up without a break for longer than the span; by chance is as often as makes it unsteady.
func (t *target) rough(span time.Duration) int {
	n, until := 0, t.w.now
	for i, x := range slices.Backward(t.turns) {
		switch {
		case x.mode == modeFlaky:
			n += verdict.UnsteadyFrom
		case x.mode == modeDown || x.mode == modeBlackhole:
			n++
		case i < len(t.turns)-1 && until.Sub(x.at) > span:
			return n
		}
		until = x.at
	}
	return n
}

// everywhere tells whether it behaves alike towards all.
func (t *target) everywhere() bool { return t.from == nil }
