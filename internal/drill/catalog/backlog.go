package catalog

import (
	"context"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/localmesh"
)

// returnMax is what the return of every server at once may take until the first verdict: three processes start, etcd elects, a leader is elected, probers come
// back (they try every few seconds), and each is asked for its votes.
const returnMax = 12 * time.Second

func backlog() drill.Scenario {
	return drill.Scenario{
		Name:    "backlog",
		Summary: "kill every server, let the probers go on alone for a quarter of an hour while targets go down and come back, and bring the servers back one by one",
		Proves:  "What comes late fills the history and pages nobody; what is down at that moment is announced at once; the history of every server is whole.",
		Promise: "unbroken: 0 alerts from the backlog, real ones not held back by it, no result lost",
		Times:   1, ShortTimes: 1, About: 15 * time.Minute, ShortAbout: 75 * time.Second,
		Requires: []drill.Requirement{drill.Unix()},
		Run:      runBacklog,
	}
}

func runBacklog(ctx context.Context, r *drill.Run) error {
	m, targets, err := begin(ctx, r, manyTargets)
	if err != nil {
		return err
	}
	away := 13 * time.Minute // as long as the ingestion of a monitoring service once stood still, before its alerting was turned on again too early
	if r.Short {
		away = 20 * time.Second
	}
	for i := range r.Times {
		r.Say("absence %d of %d: every server is away for %s", i+1, r.Times, away)
		if err := absence(ctx, r, m, targets, away); err != nil {
			return err
		}
	}
	return r.Conclude(ctx, m)
}

// absence takes every server away for a time in which targets go down and come back.
func absence(ctx context.Context, r *drill.Run, m *drill.Mesh, targets []*drill.Target, away time.Duration) error {
	// Before: announced while the servers are there; half of them come back meanwhile, half go on.
	before, during, staying, after := targets[:4], targets[4:12], targets[12:16], targets[16:]
	for _, t := range before {
		t.Break(drill.Refuse, r.Bound(0))
	}
	if err := r.AwaitAlerts(ctx); err != nil {
		return err
	}
	for _, s := range m.Servers() {
		if err := s.Kill(); err != nil {
			return err
		}
	}
	gone := time.Now()
	back := gone.Add(away)
	if err := play(ctx, absentOutages(r, gone, back, before[:2], during, staying)); err != nil {
		return err
	}
	if err := drill.Sleep(ctx, time.Until(back)); err != nil {
		return err
	}
	if err := startInAnyOrder(ctx, r, m); err != nil {
		return err
	}
	if err := m.AwaitProbers(ctx); err != nil {
		return err
	}
	attached := time.Since(back)
	r.Say("every prober has a session %s after the servers' return; outages begin while the backlog is drained", attached.Round(time.Millisecond))
	r.Inform("return_to_sessions_seconds", "seconds", attached.Seconds(), "from the start of the first server until every prober had a session again")
	for i, t := range after {
		t.Break(kind(i), r.Bound(standbyMax))
		if err := drill.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if err := r.AwaitAlerts(ctx); err != nil {
		return err
	}
	return calm(ctx, r, m)
}

// absentOutages are the events of an absence: outages that nobody may ever hear of, since each is over before the servers are back; some that are announced already
// and end; some that begin, and go on until after it.
func absentOutages(r *drill.Run, gone, back time.Time, ending, passing, staying []*drill.Target) []event {
	var events []event
	length := back.Sub(gone)
	at := func(share float64) time.Time { return gone.Add(time.Duration(share * float64(length))) }
	for _, t := range ending {
		events = append(events, event{at(0.2 + 0.5*r.Rand.Float64()), t.Mend})
	}
	for i, t := range passing {
		// Each fails for 3 intervals or more, so that every prober has seen it, and answers again for 2 intervals or more before the servers are back.
		first := 0.05 + 0.3*r.Rand.Float64()
		events = append(events,
			event{at(first), func() error { t.Break(kind(i), drill.Silent); return nil }},
			event{at(first + 0.35), t.Mend})
	}
	for i, t := range staying {
		begins := at(0.2 + 0.6*r.Rand.Float64())
		events = append(events, event{begins, func() error { t.Break(kind(i), r.Bound(back.Sub(begins)+returnMax)); return nil }})
	}
	return events
}

// startInAnyOrder starts the servers one by one, in a random order with random pauses, and waits until they are ready.
func startInAnyOrder(ctx context.Context, r *drill.Run, m *drill.Mesh) error {
	order := append([]*localmesh.Member{}, m.Servers()...)
	r.Rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, s := range order {
		r.Say("%s comes back", s)
		if err := s.Start(); err != nil {
			return err
		}
		if err := drill.Sleep(ctx, time.Duration(r.Rand.Int64N(int64(time.Second)))); err != nil {
			return err
		}
	}
	for _, s := range order {
		if err := m.Await(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
