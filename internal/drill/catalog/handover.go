package catalog

import (
	"context"
	"slices"
	"sort"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/localmesh"
)

// Outages around a fault. They are so many, and so close, that at every moment some decision is due: a leader that is back after 300 ms finds outages that have
// been seen to fail and not been confirmed, and the first alert after the fault is the first decision of whoever leads then.
const (
	// manyTargets are watched; oldOutages of them are down before the fault, and come back around it. They are fewer than the 20 that make a mass change when they turn
	// within seconds: the openings of these are held for up to 2 s, for what they share to be found.
	manyTargets = 18
	oldOutages  = 4
	// firstBreak and lastBreak are when the others begin to fail, from the fault: what fails before is confirmed before, what fails later comes after the handover.
	firstBreak = -600 * time.Millisecond
	lastBreak  = 300 * time.Millisecond
)

// event is something that a drill does at a time.
type event struct {
	at time.Time
	do func() error
}

// play does events at their times. It stops at the first error.
func play(ctx context.Context, events []event) error {
	sort.SliceStable(events, func(i, j int) bool { return events[i].at.Before(events[j].at) })
	for _, e := range events {
		if err := drill.Sleep(ctx, time.Until(e.at)); err != nil {
			return err
		}
		if err := e.do(); err != nil {
			return err
		}
	}
	return nil
}

// around makes the old outages, waits until they are announced, and gives the events of a fault that is about to be: the old ones end, new ones begin. extra is what
// the fault may delay an alert by.
func around(ctx context.Context, r *drill.Run, targets []*drill.Target, extra time.Duration) (fault time.Time, events []event, err error) {
	order := slices.Clone(targets)
	r.Rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	old, fresh := order[:oldOutages], order[oldOutages:]
	for _, t := range old {
		t.Break(drill.Refuse, r.Bound(0))
	}
	if err := r.AwaitAlerts(ctx); err != nil {
		return fault, nil, err
	}
	// A resolution takes two rounds of probes half an interval apart; the old ones end so that theirs falls on the handover.
	fault = time.Now().Add(r.Interval)
	for _, t := range old {
		at := fault.Add(-time.Duration(r.Rand.Int64N(int64(r.Interval * 3 / 4))))
		events = append(events, event{at, t.Mend})
	}
	step := (lastBreak - firstBreak) / time.Duration(len(fresh))
	for i, t := range fresh {
		at := fault.Add(firstBreak + time.Duration(i)*step + time.Duration(r.Rand.Int64N(int64(step))))
		events = append(events, event{at, func() error { t.Break(kind(i), r.Bound(extra)); return nil }})
	}
	return fault, events, nil
}

// kind is how the i-th target fails: most refuse connections, some answer 500.
func kind(i int) drill.Fault {
	if i%4 == 3 {
		return drill.Status500
	}
	return drill.Refuse
}

// handover is what became of a fault of the leader.
type handover struct {
	// leader is from the fault until a server said that another leads; decision until the first alert or resolved note that was decided after the fault was at the
	// receiver.
	leader, decision time.Duration
}

// firstDecision is how long after the fault the first note came that was decided after it; 0 when none has.
func firstDecision(r *drill.Run, fault time.Time) time.Duration {
	var first time.Time
	for _, d := range r.Receiver.All() {
		if d.Fault == "" && d.Note.GetDecideTime().AsTime().After(fault) && (first.IsZero() || d.At.Before(first)) {
			first = d.At
		}
	}
	if first.IsZero() {
		return 0
	}
	return first.Sub(fault)
}

// breakLeader plays one round: outages around a fault of the leader, which strike brings about, until all of it is announced.
func breakLeader(ctx context.Context, r *drill.Run, m *drill.Mesh, targets []*drill.Target, extra time.Duration, strike func(*localmesh.Member) error) (h handover, struck *localmesh.Member, err error) {
	at, events, err := around(ctx, r, targets, extra)
	if err != nil {
		return h, nil, err
	}
	leader, term, err := m.Leader(ctx)
	if err != nil {
		return h, nil, err
	}
	// The new leader is looked for from the moment of the fault, while the outages go on.
	type found struct {
		leader *localmesh.Member
		took   time.Duration
		term   int64
		err    error
	}
	news := make(chan found, 1)
	var fault time.Time
	events = append(events, event{at, func() error {
		fault = time.Now()
		if err := strike(leader); err != nil {
			return err
		}
		go func() {
			l, t, err := m.AwaitLeader(ctx, time.Minute, term)
			news <- found{l, time.Since(fault), t, err}
		}()
		return nil
	}})
	if err := play(ctx, events); err != nil {
		return h, leader, err
	}
	f := <-news
	if f.err != nil {
		return h, leader, f.err
	}
	if err := r.AwaitAlerts(ctx); err != nil {
		return h, leader, err
	}
	h = handover{leader: f.took, decision: firstDecision(r, fault)}
	r.Say("%s is gone; %s leads term %d after %s, the first decision was at the receiver after %s", leader, f.leader, f.term, f.took.Round(time.Millisecond), h.decision.Round(time.Millisecond))
	return h, leader, nil
}

// revive starts a member that has ended, and waits until the mesh is whole again and every target answers. ready is when the member was there again.
func revive(ctx context.Context, r *drill.Run, m *drill.Mesh, x *localmesh.Member) (ready time.Time, err error) {
	<-x.Done()
	if err := x.Start(); err != nil {
		return ready, err
	}
	if err := m.Await(ctx, x); err != nil {
		return ready, err
	}
	if err := m.AwaitProbers(ctx); err != nil {
		return ready, err
	}
	ready = time.Now()
	return ready, calm(ctx, r, m)
}

// calm mends every target, and waits until that is announced and the mesh is whole.
func calm(ctx context.Context, r *drill.Run, m *drill.Mesh) error {
	if err := r.MendAll(); err != nil {
		return err
	}
	if err := r.AwaitResolved(ctx); err != nil {
		return err
	}
	return m.Settle(ctx)
}

// amid plays outages around a fault that strike brings about, and waits until all of them are announced. extra is what the fault may delay an alert by.
func amid(ctx context.Context, r *drill.Run, targets []*drill.Target, extra time.Duration, strike func() error) (fault time.Time, err error) {
	at, events, err := around(ctx, r, targets, extra)
	if err != nil {
		return fault, err
	}
	events = append(events, event{at, func() error {
		fault = time.Now()
		return strike()
	}})
	if err := play(ctx, events); err != nil {
		return fault, err
	}
	return fault, r.AwaitAlerts(ctx)
}

// begin starts a mesh and has it watch so many targets.
func begin(ctx context.Context, r *drill.Run, n int) (*drill.Mesh, []*drill.Target, error) {
	m, err := r.StartMesh(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	targets, err := r.Watch(ctx, m, n)
	return m, targets, err
}
