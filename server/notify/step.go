package notify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

const (
	// giveUpAfter is the default of Receiver.give_up_after.
	giveUpAfter = 24 * time.Hour
	// maxRecords bounds the failures recorded of one entry in one reign.
	maxRecords = 20
	// storePause is how long a record waits that could not be written.
	storePause = time.Second
)

// ending is how an entry ended: what is still to be written to the store.
type ending struct {
	event meshv1.TimelineEntry_Event
	text  string
	at    time.Time
}

// step makes one attempt at one item, or writes down how it ended. settled means that the store has no entry any more; otherwise the item is
// due again after wait. err is set only when the store refused, for the log and for fences.
func (n *Notifier) step(ctx context.Context, fence store.Fence, it *item) (settled bool, wait time.Duration, err error) {
	n.mu.Lock()
	entry, spec, end := it.entry, it.lane.to.spec, it.verdict
	n.mu.Unlock()
	now := time.Now()
	if end == nil {
		end = reasonToDrop(entry, it, spec, now)
	}
	if end == nil {
		var a Answer
		a, end = n.attempt(ctx, entry, spec, it)
		if end == nil && ctx.Err() != nil {
			return false, 0, nil // the reign ended first; nobody counts this attempt
		}
		if end == nil {
			return n.failed(ctx, fence, it, entry, a)
		}
	}
	n.mu.Lock()
	it.verdict = end
	n.mu.Unlock()
	if err := n.store.SettleOutbox(ctx, fence, entry.GetId(), entry.GetNotification().GetIncident(), func(inc *statev1.StoredIncident) error {
		record(inc.GetIncident(), end, entry.GetNotification().GetReceiver(), it.attempts)
		return nil
	}); err != nil {
		n.log.WarnContext(ctx, "end of a notification not recorded, trying again", "notification", entry.GetId(), "incident",
			entry.GetNotification().GetIncident(), "err", err)
		return false, storePause, err
	}
	n.m.settled(ctx, end.event, entry, end.at)
	n.log.InfoContext(ctx, "notification settled", "notification", entry.GetId(), "incident", entry.GetNotification().GetIncident(),
		"receiver", entry.GetNotification().GetReceiver(), "what", end.event.String(), "attempt", it.attempts, "term", fence.Term)
	return true, 0, nil
}

// reasonToDrop is set when the entry is not to be tried any more.
func reasonToDrop(entry *statev1.OutboxEntry, it *item, spec *meshv1.Receiver, now time.Time) *ending {
	name := entry.GetNotification().GetReceiver()
	drop := func(format string, args ...any) *ending {
		return &ending{event: meshv1.TimelineEntry_NOTIFICATION_DROPPED, text: fmt.Sprintf(format, args...), at: now}
	}
	limit := giveUpAfter
	if d := spec.GetGiveUpAfter(); d != nil {
		limit = d.AsDuration()
	}
	created, failure := entry.GetCreateTime(), it.failure
	if failure == "" {
		failure = "not known to this server"
	}
	switch {
	case spec == nil:
		return drop("%s was not told: it does not exist any more", name)
	case spec.GetPaused():
		return drop("%s was not told: it is paused", name)
	case created != nil && it.attempts > 0 && now.Sub(created.AsTime()) > limit:
		return drop("%s was not told: given up after %d attempts in %s; the last error: %s", name, it.attempts, limit, failure)
	}
	return nil
}

// attempt sends once; the ending is nil unless the receiver took it.
func (n *Notifier) attempt(ctx context.Context, entry *statev1.OutboxEntry, spec *meshv1.Receiver, it *item) (Answer, *ending) {
	it.attempts++
	note := proto.Clone(entry.GetNotification()).(*meshv1.Notification)
	note.Attempt = int32(it.attempts)
	ctx, span := n.tracer.Start(remote(ctx, note), "notify.Deliver", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("probemesh.incident", note.GetIncident()), attribute.String("probemesh.receiver", note.GetReceiver()),
		attribute.String("probemesh.transition", note.GetTransition().String()), attribute.Int("probemesh.attempt", it.attempts)))
	defer span.End()
	a := n.sender.Send(ctx, spec, note, entry.GetId())
	now := time.Now()
	n.m.attempted(ctx, a)
	n.mu.Lock()
	defer n.mu.Unlock()
	it.lane.to.state.LastError = a.Error
	if !a.Delivered {
		span.SetStatus(otelcodes.Error, a.Error)
		return a, nil
	}
	it.lane.to.state.LastDelivery = now
	return a, &ending{event: meshv1.TimelineEntry_NOTIFIED, at: now,
		text: fmt.Sprintf("%s was told %s (attempt %d, answer %d)", note.GetReceiver(), note.GetTransition(), it.attempts, a.Status)}
}

// failed records a failure where it is news, and says when to try again.
func (n *Notifier) failed(ctx context.Context, fence store.Fence, it *item, entry *statev1.OutboxEntry, a Answer) (bool, time.Duration, error) {
	n.mu.Lock()
	wait := pause(a, it.attempts, n.rng.Float64())
	n.mu.Unlock()
	note := entry.GetNotification()
	n.log.WarnContext(ctx, "notification not delivered, trying again", "notification", entry.GetId(), "incident", note.GetIncident(),
		"receiver", note.GetReceiver(), "attempt", it.attempts, "status", a.Status, "again_in", wait.Round(time.Millisecond), "err", a.Error)
	if a.Error == it.failure || it.records >= maxRecords {
		it.failure = a.Error
		return false, wait, nil
	}
	it.failure = a.Error
	it.records++
	end := &ending{event: meshv1.TimelineEntry_NOTIFICATION_FAILED, at: time.Now(),
		text: fmt.Sprintf("%s could not be told %s: %s", note.GetReceiver(), note.GetTransition(), a.Error)}
	_, err := n.store.AmendIncident(ctx, &fence, note.GetIncident(), func(inc *statev1.StoredIncident) error {
		record(inc.GetIncident(), end, note.GetReceiver(), it.attempts)
		return nil
	})
	if err == nil || !errors.Is(err, store.ErrFenced) {
		tried := proto.Clone(entry).(*statev1.OutboxEntry)
		tried.Attempts = int32(it.attempts)
		err = errors.Join(err, n.store.UpdateOutbox(ctx, fence, tried))
	}
	if err != nil {
		n.log.WarnContext(ctx, "failed attempt not recorded", "notification", entry.GetId(), "err", err)
	}
	return false, wait, err
}

// SendTest sends one notification with transition TEST, once, and waits for the answer, at most for the receiver's timeout. Nothing is stored.
func (n *Notifier) SendTest(ctx context.Context, r *meshv1.Receiver) *meshv1.TestReceiverResponse {
	begun := time.Now()
	note := &meshv1.Notification{Transition: meshv1.Notification_TEST, Receiver: r.GetName(), DecideTime: timestamppb.New(begun), Attempt: 1,
		Summary: "This is a test of " + r.GetName() + "; nothing is wrong."}
	a := n.sender.Send(ctx, r, note, fmt.Sprintf("test-%d.TEST.%s", begun.UnixNano(), spec.ID(r.GetName())))
	return &meshv1.TestReceiverResponse{Delivered: a.Delivered, Error: a.Error, Status: int32(a.Status), Duration: durationpb.New(time.Since(begun))}
}

// remote continues the trace of the decision: the notification carries its trace id, and the parent span is one that all deliveries of the
// incident share.
func remote(ctx context.Context, note *meshv1.Notification) context.Context {
	id, err := trace.TraceIDFromHex(note.GetTraceId())
	if err != nil {
		return ctx
	}
	var span trace.SpanID
	sum := sha256.Sum256([]byte(note.GetIncident()))
	copy(span[:], sum[:])
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled, Remote: true}))
}
