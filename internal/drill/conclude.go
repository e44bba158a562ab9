package drill

import (
	"context"
	"fmt"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// Bound is how long after a target's failure its alert may come: interval/n until the next of the n = 3 probers probes it, two probe durations (the probe that
// fails and the confirmation), 1 s for everything else on a busy machine, and extra for what the drill has broken meanwhile.
func (r *Run) Bound(extra time.Duration) time.Duration {
	return r.Interval/probersOfCheck + 2*probeTime + time.Second + extra
}

const (
	// probersOfCheck is how many probers run each check of a drill, quorumOfCheck how many datacenters must agree.
	probersOfCheck = 3
	quorumOfCheck  = 2
	// probeTime is how long a probe of a target of this process takes at most when it is refused or answered.
	probeTime = 100 * time.Millisecond
)

// HangBound is Bound for a target that hangs: a probe then takes the whole timeout of a check.
func (r *Run) HangBound(extra time.Duration) time.Duration { return r.Bound(extra) + 2*r.Timeout() }

// Timeout is that of the checks: half of the interval, at most 1 s.
func (r *Run) Timeout() time.Duration { return min(r.Interval/2, time.Second) }

// Truth is a copy of all outages so far.
func (r *Run) Truth() []Outage {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Outage, len(r.outages))
	for i, o := range r.outages {
		out[i] = *o
	}
	return out
}

// Tally judges what there is so far.
func (r *Run) Tally() Tally { return Judge(r.Truth(), r.Receiver.All()) }

// patience is how long after its bound an alert, or a resolved note, is waited for before it counts as lost: longer than a failover by lease expiry, and the first
// pauses between attempts of a delivery. The outage of a target that was broken three times with hardly an answer in between ends when it has answered [verdict.SteadyRun] times in a row.
func (r *Run) patience() time.Duration { return 30*time.Second + verdict.SteadyRun*r.Interval }

// AwaitAlerts waits until every outage that must be announced has been, or is so late that it counts as lost. Only the end of ctx is an error.
func (r *Run) AwaitAlerts(ctx context.Context) error {
	return r.await(ctx, "alerts", func(t Tally) int { return len(t.Lost) })
}

// AwaitResolved waits until every announced outage that is over has been announced as resolved, or for too long. Only the end of ctx is an error.
func (r *Run) AwaitResolved(ctx context.Context) error {
	return r.await(ctx, "resolved notes", func(t Tally) int { return len(t.ResolvedMissing) })
}

func (r *Run) await(ctx context.Context, what string, missing func(Tally) int) error {
	var latest time.Time
	for _, o := range r.Truth() {
		for _, at := range []time.Time{o.Down.Add(o.Bound), o.Up} {
			if at.After(latest) {
				latest = at
			}
		}
	}
	left := 0
	_ = Until(ctx, what, max(0, time.Until(latest))+r.patience(), func() (bool, string) {
		left = missing(r.Tally())
		return left == 0, ""
	})
	if left > 0 && ctx.Err() == nil {
		r.Say("%d %s are missing; they are waited for no longer", left, what)
	}
	return ctx.Err()
}

// MendAll makes every target answer again.
func (r *Run) MendAll() error {
	r.mu.Lock()
	targets := append([]*Target{}, r.targets...)
	r.mu.Unlock()
	for _, t := range targets {
		if err := t.Mend(); err != nil {
			return err
		}
	}
	return nil
}

// Conclude ends a drill: it mends every target, waits for what is still to be announced, judges, and adds the figures that every drill has. The history of every
// server of the meshes that runs is compared with what its probers should have probed since [Run.Watch].
func (r *Run) Conclude(ctx context.Context, meshes ...*Mesh) error {
	if err := r.ConcludeAlerts(ctx); err != nil {
		return err
	}
	for _, m := range meshes {
		if err := r.concludeProbers(ctx, m); err != nil {
			return err
		}
		if err := r.concludeHistory(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// ConcludeAlerts is the part of [Run.Conclude] about alerts: for a drill whose probers are not all sound.
func (r *Run) ConcludeAlerts(ctx context.Context) error {
	if err := r.AwaitAlerts(ctx); err != nil {
		return err
	}
	if err := r.MendAll(); err != nil {
		return err
	}
	r.Say("every target answers again; waiting for the last resolved notes")
	if err := r.AwaitResolved(ctx); err != nil {
		return err
	}
	// What is doubled comes after what it doubles: wait for a round of probes, and the first pauses between attempts of a delivery.
	if err := Sleep(ctx, r.Interval+2*time.Second); err != nil {
		return err
	}
	r.judge()
	return nil
}

// concludeProbers counts the probers that the mesh has set aside as sick. In a drill every prober is sound: it is the targets that fail.
func (r *Run) concludeProbers(ctx context.Context, m *Mesh) error {
	incidents, err := m.AllIncidents(ctx)
	if err != nil {
		return err
	}
	var cases []string
	for _, i := range incidents {
		if i.GetReason() == meshv1.CheckStatus_SUSPECT_PROBERS {
			cases = append(cases, fmt.Sprintf("%s at %s: %s", i.GetName(), clock(i.GetOpenTime().AsTime()), i.GetSummary()))
		}
	}
	r.AtMost("probers_set_aside", "probers", float64(len(cases)), 0, "it is the targets that fail, never a prober", cases...)
	return nil
}

func (r *Run) judge() {
	t := r.Tally()
	r.Inform("outages", "outages", float64(t.Due), "outages that had to be announced")
	none := func(name, unit string, cases []string, why string) {
		r.AtMost(name, unit, float64(len(cases)), 0, why, cases...)
	}
	none("alerts_lost", "alerts", t.Lost, "every outage is announced, whatever died")
	none("alerts_doubled", "alerts", t.Doubled, "and once: one Idempotency-Key an outage")
	none("alerts_false", "alerts", t.False, "nothing of the mesh's own may look like an outage")
	none("alerts_late", "alerts", t.Late, fmt.Sprintf("interval/%d + two probes + 1 s, and what the drill allows for what it broke", probersOfCheck))
	none("alerts_misdated", "alerts", t.Misdated, "an alert says since when, to 1.5 s")
	if t.Due > 0 {
		r.Distribution("failure_to_alert", t.ToAlert, Bounds{}, "")
	}
	none("resolved_missing", "notes", t.ResolvedMissing, "the end of every announced outage is announced")
	none("resolved_doubled", "notes", t.ResolvedDoubled, "and once")
	none("resolved_early", "notes", t.ResolvedEarly, "and not before the target answers")
	none("notes_malformed", "notes", t.Malformed, "every request is as docs/receivers.md has it")
	r.Inform("notes_repeated", "notes", float64(len(t.Repeats)), "the same key again: a receiver that keeps keys drops it", t.Repeats...)
}
