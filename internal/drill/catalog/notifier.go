package catalog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/localmesh"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// crashMax is what the crash of a notifier may delay a note by: a takeover when etcd's leader may have died too, the pause before the next attempt of a delivery
// that had failed, and another takeover's time for a busy machine.
const crashMax = 6 * time.Second

func notifierCrash() drill.Scenario {
	return drill.Scenario{
		Name:    "notifier-crash",
		Summary: "kill -9 the leader before it sends a note, while the receiver holds it, and as the receiver has answered",
		Proves:  "A note that is owed outlives who owes it. Only a note that was sent and not yet recorded is sent again, with the same Idempotency-Key.",
		Promise: "0 lost, and repeats only in the named window, with the same key",
		Times:   2, ShortTimes: 1, About: 2 * time.Minute, ShortAbout: 45 * time.Second,
		Requires: []drill.Requirement{drill.Unix()},
		Run:      runNotifierCrash,
	}
}

// crashStep is a moment in the life of a delivery.
type crashStep struct {
	what string
	// window: the note may come again.
	window bool
	strike func(ctx context.Context, r *drill.Run, m *drill.Mesh, leader *localmesh.Member, c crash) error
}

// crash is what is to be hit: the note of a transition of a target's check, which provoke brings about.
type crash struct {
	target     *drill.Target
	transition meshv1.Notification_Transition
	provoke    func() error
}

func (c crash) is(d drill.Delivery) bool {
	return d.Note.GetCheck() == "checks/"+c.target.Check && d.Note.GetTransition() == c.transition
}

func crashSteps() []crashStep {
	return []crashStep{
		{"before it sends", false, crashBefore},
		{"while the receiver holds it", true, func(ctx context.Context, r *drill.Run, m *drill.Mesh, leader *localmesh.Member, c crash) error {
			return crashInDelivery(ctx, r, leader, c, true)
		}},
		{"after the receiver has answered", true, func(ctx context.Context, r *drill.Run, m *drill.Mesh, leader *localmesh.Member, c crash) error {
			return crashInDelivery(ctx, r, leader, c, false)
		}},
	}
}

// crashBefore kills the leader when the incident is written and the receiver refuses connections.
func crashBefore(ctx context.Context, r *drill.Run, m *drill.Mesh, leader *localmesh.Member, c crash) error {
	r.Receiver.Close()
	defer func() { _ = r.Receiver.Open() }()
	if err := c.provoke(); err != nil {
		return err
	}
	want := meshv1.Incident_OPEN
	if c.transition == meshv1.Notification_RESOLVED {
		want = meshv1.Incident_RESOLVED
	}
	known, err := m.AllIncidents(ctx)
	if err != nil {
		return err
	}
	err = drill.Until(ctx, "the incident is "+want.String(), 20*time.Second, func() (bool, string) {
		list, err := m.AllIncidents(ctx)
		if err != nil {
			return false, err.Error()
		}
		for _, i := range list {
			if i.GetCheck() == "checks/"+c.target.Check && i.GetState() == want && (want == meshv1.Incident_RESOLVED && open(known, i.GetName()) || want == meshv1.Incident_OPEN) {
				return true, ""
			}
		}
		return false, fmt.Sprintf("%d incidents", len(list))
	})
	if err != nil {
		return err
	}
	return leader.Kill()
}

// open tells whether an incident of the list was not resolved yet.
func open(list []*meshv1.Incident, name string) bool {
	for _, i := range list {
		if i.GetName() == name {
			return i.GetState() == meshv1.Incident_OPEN
		}
	}
	return true
}

// crashInDelivery kills the leader when the receiver has the note: before it answers, or just after that.
func crashInDelivery(ctx context.Context, r *drill.Run, leader *localmesh.Member, c crash, before bool) error {
	var once sync.Once
	killed := make(chan error, 1)
	kill := func() { once.Do(func() { killed <- leader.Kill() }) }
	r.Receiver.OnDelivery(func(d drill.Delivery) drill.Answer {
		switch {
		case !c.is(d):
			return drill.Answer{}
		case before:
			kill()
			return drill.Answer{} // to nobody, the first time
		}
		return drill.Answer{After: kill}
	})
	defer r.Receiver.OnDelivery(nil)
	if err := c.provoke(); err != nil {
		return err
	}
	select {
	case err := <-killed:
		return err
	case <-time.After(30 * time.Second):
		return fmt.Errorf("no note %s of %s came within 30s", c.transition, c.target.Check)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func runNotifierCrash(ctx context.Context, r *drill.Run) error {
	m, targets, err := begin(ctx, r, 4)
	if err != nil {
		return err
	}
	allowed, n := 0, 0
	for range r.Times {
		for i, step := range crashSteps() {
			transitions := []meshv1.Notification_Transition{meshv1.Notification_OPENED, meshv1.Notification_RESOLVED}
			if r.Short {
				transitions = transitions[i%2 : i%2+1]
			}
			for _, transition := range transitions {
				n++
				target := targets[n%len(targets)]
				if err := crashOnce(ctx, r, m, target, transition, step); err != nil {
					return err
				}
				if step.window {
					allowed++
				}
			}
		}
	}
	r.AtMost("notes_repeated_beyond_window", "notes", float64(max(0, len(r.Tally().Repeats)-allowed)), 0,
		fmt.Sprintf("%d of %d crashes were after the send and before its record, and may each repeat one note", allowed, n))
	return r.Conclude(ctx, m)
}

// crashOnce kills the leader once, at one step of one note, and waits until the note is there and the mesh whole.
func crashOnce(ctx context.Context, r *drill.Run, m *drill.Mesh, target *drill.Target, transition meshv1.Notification_Transition, step crashStep) error {
	c := crash{target: target, transition: transition, provoke: func() error { target.Break(drill.Refuse, r.Bound(crashMax)); return nil }}
	if transition == meshv1.Notification_RESOLVED {
		target.Break(drill.Refuse, r.Bound(0))
		if err := r.AwaitAlerts(ctx); err != nil {
			return err
		}
		c.provoke = target.Mend
	}
	leader, _, err := m.Leader(ctx)
	if err != nil {
		return err
	}
	r.Say("%s is killed %s the note %s of %s", leader, step.what, transition, target.Check)
	if err := step.strike(ctx, r, m, leader, c); err != nil {
		return err
	}
	if err := r.AwaitAlerts(ctx); err != nil {
		return err
	}
	_, err = revive(ctx, r, m, leader)
	return err
}
