package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/localmesh"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// pauseMax is what the pause of a leader may delay an alert by: its probers notice a silent server after 3 s of unanswered pings and move within another.
const pauseMax = 4 * time.Second

func leaderPause() drill.Scenario {
	return drill.Scenario{
		Name:    "leader-pause",
		Summary: "pause the leader (SIGSTOP) for its lease less 1 s, its lease and 1 s, ten leases, and let it wake up amid outages",
		Proves:  "A leader that wakes up after another has taken over changes nothing: etcd refuses every write of its reign, and every outage has one alert and one end.",
		Promise: "one OPENED and one RESOLVED an outage; no write of an old term is accepted",
		Times:   2, ShortTimes: 1, About: 4 * time.Minute, ShortAbout: 70 * time.Second,
		Requires: []drill.Requirement{drill.Unix()},
		Run:      runLeaderPause,
	}
}

// pauses is what the pauses of a leader have shown.
type pauses struct {
	fenced    float64 // writes of a paused leader that etcd refused
	takeovers int     // pauses after which another led
	stale     []string
}

func runLeaderPause(ctx context.Context, r *drill.Run) error {
	m, targets, err := begin(ctx, r, manyTargets)
	if err != nil {
		return err
	}
	longest := 10 * r.LeaseTTL
	if r.Short {
		longest = 3 * r.LeaseTTL
	}
	var seen pauses
	for i := range r.Times {
		for _, length := range []time.Duration{r.LeaseTTL - time.Second, r.LeaseTTL + time.Second, longest} {
			r.Say("pause %d of %d of %s, with a lease of %s", i+1, r.Times, length, r.LeaseTTL)
			if err := pauseLeader(ctx, r, m, targets, length, &seen); err != nil {
				return err
			}
		}
	}
	r.AtMost("old_term_writes", "writes", float64(len(seen.stale)), 0, "what a leader decides after another has begun to lead is refused", seen.stale...)
	r.Inform("writes_fenced", "writes", seen.fenced, "writes that leaders tried after they woke up, and that etcd refused")
	r.AtLeast("takeovers", "leaders", float64(seen.takeovers), float64(2*r.Times), "another server leads after a pause that is longer than the lease")
	return r.Conclude(ctx, m)
}

// pauseLeader pauses the leader with outages around the beginning and around the end of the pause.
func pauseLeader(ctx context.Context, r *drill.Run, m *drill.Mesh, targets []*drill.Target, length time.Duration, seen *pauses) error {
	leader, term, err := m.Leader(ctx)
	if err != nil {
		return err
	}
	before, err := m.Fenced(ctx, leader)
	if err != nil {
		return err
	}
	first, second := targets[:len(targets)/2], targets[len(targets)/2:]
	var paused time.Time
	begun, events, err := around(ctx, r, first, pauseMax)
	if err != nil {
		return err
	}
	events = append(events, event{begun, func() error { paused = time.Now(); return leader.Pause() }})
	// In a long pause those of the first half come back in the middle, so that whoever leads by then tells of their end; in a short one they would not be due yet.
	if middle := length / 2; middle > r.Bound(pauseMax)+lastBreak {
		for i, t := range first {
			events = append(events, event{begun.Add(middle + time.Duration(i)*20*time.Millisecond), t.Mend})
		}
	}
	for i, t := range second {
		at := begun.Add(length + firstBreak + time.Duration(i)*(lastBreak-firstBreak)/time.Duration(len(second)))
		events = append(events, event{at, func() error { t.Break(kind(i), r.Bound(pauseMax)); return nil }})
	}
	var woken time.Time
	events = append(events, event{begun.Add(length), func() error { woken = time.Now(); return leader.Resume() }})
	r.Cleanup(func() { _ = leader.Resume() })
	if err := play(ctx, events); err != nil {
		return err
	}
	r.Say("%s was paused for %s; waiting for what is announced", leader, woken.Sub(paused).Round(time.Millisecond))
	if err := r.AwaitAlerts(ctx); err != nil {
		return err
	}
	return pauseOver(ctx, r, m, leader, term, before, woken, seen)
}

// pauseOver waits until the mesh is whole again and counts what the old leader did.
func pauseOver(ctx context.Context, r *drill.Run, m *drill.Mesh, old *localmesh.Member, term int64, before float64, woken time.Time, seen *pauses) error {
	if err := calm(ctx, r, m); err != nil {
		return err
	}
	leader, now, err := m.Leader(ctx)
	if err != nil {
		return err
	}
	after, err := m.Fenced(ctx, old)
	if err != nil {
		return err
	}
	if now == term {
		r.Say("%s leads term %d still", leader, now)
		return nil
	}
	seen.takeovers++
	seen.fenced += after - before
	r.Say("%s leads term %d now; etcd has refused %.0f writes of %s", leader, now, after-before, old)
	incidents, err := m.AllIncidents(ctx)
	if err != nil {
		return err
	}
	for _, i := range incidents {
		if int64(i.GetTerm()) == term && i.GetOpenTime().AsTime().After(woken) && i.GetKind() == meshv1.Incident_CHECK {
			seen.stale = append(seen.stale, fmt.Sprintf("%s of %s was opened in term %d, which was over", i.GetName(), i.GetCheck(), term))
		}
	}
	return nil
}
