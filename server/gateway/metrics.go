package gateway

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

type metrics struct {
	sessions    metric.Int64UpDownCounter
	refusals    metric.Int64Counter
	results     metric.Int64Counter
	drops       metric.Int64Counter
	appends     metric.Float64Histogram
	appended    metric.Int64Counter
	rtt         metric.Float64Histogram
	divergences metric.Int64Counter
	shrinks     metric.Int64Counter
	resends     metric.Int64Counter
	admissions  metric.Float64Histogram
}

func newMetrics(meter metric.Meter) (*metrics, error) {
	var m metrics
	var errs [11]error
	m.sessions, errs[0] = meter.Int64UpDownCounter("probemesh_sessions", metric.WithDescription("Probers attached to this server."))
	m.refusals, errs[1] = meter.Int64Counter("probemesh_sessions_refused_total", metric.WithDescription("Sessions refused at Hello, by reason."))
	m.results, errs[2] = meter.Int64Counter("probemesh_results_received_total", metric.WithDescription("Results received, by kind of batch."))
	m.drops, errs[3] = meter.Int64Counter("probemesh_session_drops_total",
		metric.WithDescription("What found a session's queue full: results left out of the history for now (they come again), runs not asked for."))
	m.appends, errs[4] = meter.Float64Histogram("probemesh_archive_seconds", metric.WithDescription("Time to append one batch of results to the history, by outcome."))
	m.appended, errs[5] = meter.Int64Counter("probemesh_archived_results_total", metric.WithDescription("Results appended to the history."))
	m.rtt, errs[6] = meter.Float64Histogram("probemesh_session_round_trip_seconds", metric.WithDescription("Round trip of pings to probers."))
	m.divergences, errs[7] = meter.Int64Counter("probemesh_assignment_divergences_total", metric.WithDescription("Digests of probers that were not the expected ones."))
	m.shrinks, errs[8] = meter.Int64Counter("probemesh_assignment_shrinks_total", metric.WithDescription("Large shrinks that a prober asked about, by answer."))
	m.resends, errs[9] = meter.Int64Counter("probemesh_results_resend_requests_total",
		metric.WithDescription("Times that a prober was asked to send results again that the history had left out or that never came."))
	m.admissions, errs[10] = meter.Float64Histogram("probemesh_session_admission_seconds", metric.WithUnit("s"),
		metric.WithDescription("How long probers waited after Hello until the server began to attach them."),
		metric.WithExplicitBucketBoundaries(.001, .005, .01, .05, .1, .25, .5, 1, 2, 3))
	return &m, errors.Join(errs[:]...)
}

func (m *metrics) refused(ctx context.Context, err error) {
	reason := "UNKNOWN"
	if f, ok := fault.From(err); ok {
		reason = f.Reason.String()
	}
	m.refusals.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}

func (m *metrics) received(b *meshv1.ResultBatch) {
	m.results.Add(context.Background(), int64(len(b.GetResults())), metric.WithAttributes(attribute.String("kind", b.GetKind().String())))
}

func (m *metrics) dropped(ctx context.Context, what string, n int64) {
	m.drops.Add(ctx, n, metric.WithAttributes(attribute.String("queue", what)))
}

func (m *metrics) archived(n int, err error, took time.Duration) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	} else {
		m.appended.Add(context.Background(), int64(n))
	}
	m.appends.Record(context.Background(), took.Seconds(), metric.WithAttributes(attribute.String("outcome", outcome)))
}

func (m *metrics) roundTrip(p *meshv1.Pong) {
	m.rtt.Record(context.Background(), max(0, time.Since(p.GetOriginateTime().AsTime()).Seconds()))
}

func (m *metrics) diverged(ctx context.Context) { m.divergences.Add(ctx, 1) }

func (m *metrics) shrink(ctx context.Context, answer string) {
	m.shrinks.Add(ctx, 1, metric.WithAttributes(attribute.String("answer", answer)))
}

func (m *metrics) admitted(ctx context.Context, waited time.Duration) {
	m.admissions.Record(ctx, waited.Seconds())
}
