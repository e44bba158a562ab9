package notify

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// sender sends a message once. It is called concurrently.
type sender interface {
	// send sends and waits for the answer, within the receiver's timeout and ctx.
	send(ctx context.Context, r *meshv1.Receiver, m message) answer
	// idle closes connections that nobody uses now.
	idle()
}

// answer is what came of an attempt.
type answer struct {
	outcome outcome
	// err is the failure as a sentence without its full stop; empty when delivered.
	err string
	// status is the HTTP status, 0 without an answer; statusText is it with its words: "204 No Content".
	status     int
	statusText string
	// retryAfter is what the receiver asked for, 0 if nothing.
	retryAfter time.Duration
	took       time.Duration
}

// attempt sends in a span that continues the trace of the decision.
func (n *Notifier) attempt(ctx context.Context, r *meshv1.Receiver, m message) answer {
	spanned, span := n.cfg.Tracer.Start(continued(ctx, m.notification), "probemesh.notify", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("incident", m.notification.GetIncident()), attribute.String("check", m.notification.GetCheck()),
		attribute.String("receiver", m.notification.GetReceiver()), attribute.String("transition", m.notification.GetTransition().String()),
		attribute.Int("attempt", int(m.notification.GetAttempt()))))
	defer span.End()
	start := time.Now()
	a := n.sender.send(spanned, r, m)
	a.took = time.Since(start)
	if a.outcome != delivered && ctx.Err() != nil {
		a.outcome = aborted
	}
	span.SetAttributes(attribute.String("outcome", string(a.outcome)), attribute.Int("http.response.status_code", a.status))
	if a.outcome != delivered {
		span.SetStatus(codes.Error, a.err)
	}
	return a
}

// continued makes ctx part of the notification's trace, if it has one. Only the trace is known, not the span that decided: its place is taken by one
// derived from the incident, the same for all deliveries of it.
func continued(ctx context.Context, n *meshv1.Notification) context.Context {
	id, err := trace.TraceIDFromHex(n.GetTraceId())
	if err != nil {
		return ctx
	}
	sum := sha256.Sum256([]byte(n.GetIncident()))
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: id, SpanID: trace.SpanID(sum[:8]), TraceFlags: trace.FlagsSampled, Remote: true,
	}))
}

// SendTest sends one notification with transition TEST to the receiver, paused or not, and waits for the answer, at most the receiver's timeout. It
// never returns nil; what went wrong is in the response. It may be called concurrently and on any server.
func (n *Notifier) SendTest(ctx context.Context, r *meshv1.Receiver) *meshv1.TestReceiverResponse {
	now := time.Now()
	m := message{
		key: fmt.Sprintf("test-%s.TEST.%s", rand.Text(), spec.ID(r.GetName())),
		notification: &meshv1.Notification{
			Transition: meshv1.Notification_TEST, Receiver: r.GetName(), DecideTime: timestamppb.New(now), StartTime: timestamppb.New(now), Attempt: 1,
			Summary: fmt.Sprintf("This is a test of %s: notifications of probemesh arrive here.", r.GetName()),
		},
	}
	a := n.attempt(ctx, r, m)
	n.m.attempted(ctx, a.outcome)
	resp := &meshv1.TestReceiverResponse{Delivered: a.outcome == delivered, Status: int32(a.status), Duration: durationpb.New(a.took)}
	if !resp.Delivered {
		resp.Error = a.err
	}
	return resp
}

// SendOnce sends a notification that is not in the outbox to a receiver, under an idempotency key, and waits for the answer, at most the receiver's timeout. problem
// is why it was not delivered, a sentence without its full stop. It may be called concurrently and on any server.
func (n *Notifier) SendOnce(ctx context.Context, r *meshv1.Receiver, key string, notification *meshv1.Notification) (answered bool, problem string) {
	a := n.attempt(ctx, r, message{key: key, notification: notification})
	n.m.attempted(ctx, a.outcome)
	return a.outcome == delivered, a.err
}
