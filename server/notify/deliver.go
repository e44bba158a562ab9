package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/timeline"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
	"github.com/probemesh/probemesh/server/store"
)

// maxRecords is how many failures of one entry are recorded in one reign; all are counted.
const maxRecords = 20

// do works on an entry: sends it and settles what came of that, or drops it.
func (r *reign) do(ctx context.Context, j job) report {
	if j.drop != "" {
		return r.doDrop(ctx, j)
	}
	n := proto.CloneOf(j.entry.GetNotification())
	n.Attempt = int32(j.attempt)
	m := message{key: keyOf(j.entry.GetId(), n), notification: n}
	a := r.n.attempt(ctx, j.receiver, m)
	r.n.m.attempted(ctx, a.outcome)
	switch a.outcome {
	case delivered:
		return r.settle(ctx, j, a)
	case aborted:
		r.logger(j).DebugContext(ctx, "delivery was cut off at the end of the reign", "duration", a.took)
		return report{item: j.item, outcome: aborted}
	}
	return r.retry(ctx, j, a)
}

// keyOf is the idempotency key of the notification of an entry. The beginning of an outage that was due while etcd had no quorum has the key of its break-glass message: a receiver may have
// taken that, and its answer been lost, and drops this one then.
func keyOf(id string, n *meshv1.Notification) string {
	if k := n.GetBreakGlassKey(); k != "" && n.GetTransition() == meshv1.Notification_OPENED {
		return alert.Key(k, n.GetTransition().String(), spec.ID(n.GetReceiver()))
	}
	return id
}

// settle takes an entry that was delivered out of the outbox and records the delivery.
func (r *reign) settle(ctx context.Context, j job, a answer) report {
	now := time.Now()
	decided := j.entry.GetNotification().GetDecideTime()
	if decided == nil {
		decided = j.entry.GetCreateTime()
	}
	latency := now.Sub(decided.AsTime())
	r.n.m.latency.Record(ctx, latency.Seconds())
	r.logger(j).InfoContext(ctx, "notification delivered", "attempt", j.attempt, "status", a.status, "duration", a.took, "latency", latency)
	text := fmt.Sprintf("%s was told of %s: %s after %s.", j.entry.GetNotification().GetReceiver(), transition(j.entry), a.statusText, round(a.took))
	rep := r.conclude(ctx, j, entryOf(j, now, meshv1.TimelineEntry_NOTIFIED, text))
	rep.outcome = delivered
	return rep
}

// doDrop takes an entry that is not to be sent out of the outbox and records why.
func (r *reign) doDrop(ctx context.Context, j job) report {
	var why string
	switch j.drop {
	case receiverDeleted:
		why = "it was deleted"
	case receiverPaused:
		why = "it is paused"
	case givenUp:
		why = fmt.Sprintf("given up after %s and %d attempts", giveUpAfter(j.receiver), j.attempt-1)
		if j.lastError != "" {
			why += "; the last error was: " + j.lastError
		}
	}
	r.logger(j).WarnContext(ctx, "notification dropped", "reason", string(j.drop), "attempts", j.attempt-1)
	text := fmt.Sprintf("%s will not be told of %s: %s.", j.entry.GetNotification().GetReceiver(), transition(j.entry), strings.TrimSuffix(why, "."))
	e := entryOf(j, time.Now(), meshv1.TimelineEntry_NOTIFICATION_DROPPED, text)
	e.Attempt = int32(j.attempt - 1)
	rep := r.conclude(ctx, j, e)
	if rep.settled {
		r.n.m.drop(ctx, j.drop)
	}
	return rep
}

// conclude deletes the entry and records why, in one transaction, which it repeats until it succeeds, the reign is over or the work is stopped.
func (r *reign) conclude(ctx context.Context, j job, e *meshv1.TimelineEntry) report {
	incident := j.entry.GetNotification().GetIncident()
	rep := report{item: j.item}
	rep.err = r.insist(ctx, j, func() error {
		release, err := r.pages.take(ctx, incident)
		if err != nil {
			return err
		}
		defer release()
		err = r.n.store.SettleOutbox(ctx, r.fence, j.entry.GetId(), incident, func(s *statev1.StoredIncident) error {
			if s.GetIncident() != nil && !tells(s.GetIncident(), e, "") {
				timeline.Add(s.GetIncident(), proto.CloneOf(e))
			}
			return nil
		})
		if !full(err) {
			return err
		}
		// Nothing can be added to the incident, or to etcd at all. Deleting is possible even then, and must be: the receiver has answered.
		if err := r.n.store.DeleteOutbox(ctx, r.fence, j.entry.GetId()); err != nil {
			return err
		}
		r.n.m.lost.Add(ctx, 1)
		r.logger(j).WarnContext(ctx, "delivery is not recorded in its incident", "event", e.GetEvent().String(), "err", err)
		return nil
	})
	rep.settled = rep.err == nil
	if !rep.settled && j.drop == "" {
		r.n.m.unsettled.Add(ctx, 1)
		r.logger(j).WarnContext(ctx, "notification was delivered but is still owed, the next leader sends it again", "err", rep.err)
	}
	return rep.unlessStopped(ctx)
}

// unlessStopped takes the error away when it is only that the work was stopped.
func (rep report) unlessStopped(ctx context.Context) report {
	if ctx.Err() != nil && !errors.Is(rep.err, store.ErrFenced) {
		rep.err = nil
	}
	return rep
}

// retry records a failed attempt if it tells something new, and says when to try again.
func (r *reign) retry(ctx context.Context, j job, a answer) report {
	answered := time.Now()
	entry, receiver := r.pause(j, a)
	rep := report{item: j.item, outcome: a.outcome, due: answered.Add(entry)}
	if receiver > 0 {
		rep.notBefore = answered.Add(receiver)
	}
	if a.err == j.lastError || j.records >= maxRecords {
		r.logger(j).DebugContext(ctx, "notification not delivered, trying again", "attempt", j.attempt, "err", a.err, "pause", entry)
		return rep
	}
	again := "tried again in " + round(entry).String()
	if end := j.entry.GetCreateTime().AsTime().Add(giveUpAfter(j.receiver)); !rep.due.Before(end) {
		again = "given up in " + round(max(end.Sub(answered), 0)).String()
	}
	r.logger(j).WarnContext(ctx, "notification not delivered, trying again", "attempt", j.attempt, "err", a.err, "pause", entry)
	e := entryOf(j, answered, meshv1.TimelineEntry_NOTIFICATION_FAILED, a.err+"; "+again)
	inherited := ""
	if j.failures == 0 && j.attempt > 1 {
		inherited = a.err
	}
	switch err := r.recordFailure(ctx, j, e, inherited); {
	case err == nil:
		rep.recorded = a.err
	case errors.Is(err, store.ErrFenced):
		rep.err = err
	case ctx.Err() == nil:
		// The next failure is recorded instead: holding up the next attempt for the sake of a record would help nobody.
		r.n.m.lost.Add(ctx, 1)
		r.logger(j).WarnContext(ctx, "failed attempt is not recorded in its incident", "err", err)
	}
	return rep
}

// recordFailure writes a failed attempt into the incident and into the entry.
func (r *reign) recordFailure(ctx context.Context, j job, e *meshv1.TimelineEntry, inherited string) error {
	if err := r.record(ctx, j, e, inherited); err != nil {
		return err
	}
	owed := proto.CloneOf(j.entry)
	owed.Attempts = int32(j.attempt)
	if err := r.n.store.UpdateOutbox(ctx, r.fence, owed); err != nil && !missing(err) {
		return err
	}
	return nil
}

// record adds an entry to the timeline of the incident; an incident that is gone needs none. unless, when set, is an error: if the last failure
// recorded for the receiver has it, by an earlier reign, nothing is added.
func (r *reign) record(ctx context.Context, j job, e *meshv1.TimelineEntry, unless string) error {
	incident := j.entry.GetNotification().GetIncident()
	release, err := r.pages.take(ctx, incident)
	if err != nil {
		return err
	}
	defer release()
	_, err = r.n.store.AmendIncident(ctx, &r.fence, incident, func(s *statev1.StoredIncident) error {
		if s.GetIncident() == nil || tells(s.GetIncident(), e, unless) {
			return errNothingNew
		}
		timeline.Add(s.GetIncident(), proto.CloneOf(e))
		return nil
	})
	if errors.Is(err, errNothingNew) || missing(err) {
		return nil
	}
	return err
}

// insist repeats a write until it succeeds, the reign is over or ctx ends. What it logs, it logs once.
func (r *reign) insist(ctx context.Context, j job, write func() error) error {
	pause := 100 * time.Millisecond
	for n := 0; ; n++ {
		err := write()
		if err == nil || errors.Is(err, store.ErrFenced) || ctx.Err() != nil {
			return err
		}
		if n == 0 {
			r.logger(j).WarnContext(ctx, "the end of a notification cannot be written, trying again without sending again", "err", err)
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
		pause = min(2*pause, 5*time.Second)
	}
}

func (r *reign) logger(j job) *slog.Logger {
	n := j.entry.GetNotification()
	return r.log.With("incident", n.GetIncident(), "check", n.GetCheck(), "receiver", n.GetReceiver(), "transition", transition(j.entry))
}

// missing tells whether what was to be changed does not exist any more.
func missing(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.Code == codes.NotFound || status.Code(err) == codes.NotFound
}

// full tells whether the store has no room for what was to be written.
func full(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.Code == codes.ResourceExhausted
}

func transition(e *statev1.OutboxEntry) string { return e.GetNotification().GetTransition().String() }

// round makes a duration readable.
func round(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
