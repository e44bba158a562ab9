package notify

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// metrics are the delivery's own figures.
type metrics struct {
	attempts metric.Int64Counter
	dropped  metric.Int64Counter
	latency  metric.Float64Histogram
}

// newMetrics panics when an instrument's name is not valid: a fault of ours.
func newMetrics(m metric.Meter, owed func() (int, time.Time)) *metrics {
	attempts, err := m.Int64Counter("probemesh_notify_attempts_total",
		metric.WithDescription("Attempts to deliver a notification, by outcome: delivered, temporary (tried again soon) or refused (tried again every 2m)."))
	must(err)
	dropped, err := m.Int64Counter("probemesh_notify_dropped_total", metric.WithDescription("Notifications given up."))
	must(err)
	latency, err := m.Float64Histogram("probemesh_notify_latency_seconds", metric.WithUnit("s"),
		metric.WithDescription("From the leader's decision to the receiver's answer."),
		metric.WithExplicitBucketBoundaries(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400))
	must(err)
	count, err := m.Int64ObservableGauge("probemesh_notify_owed", metric.WithDescription("Notifications owed and not delivered yet."))
	must(err)
	age, err := m.Float64ObservableGauge("probemesh_notify_oldest_age_seconds", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest notification owed, 0 when none is."))
	must(err)
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		n, oldest := owed()
		o.ObserveInt64(count, int64(n))
		seconds := 0.0
		if n > 0 {
			seconds = time.Since(oldest).Seconds()
		}
		o.ObserveFloat64(age, seconds)
		return nil
	}, count, age)
	must(err)
	return &metrics{attempts: attempts, dropped: dropped, latency: latency}
}

func must(err error) {
	if err != nil {
		panic("notify: " + err.Error())
	}
}

func (m *metrics) attempted(ctx context.Context, a Answer) {
	outcome := "refused"
	switch {
	case a.Delivered:
		outcome = "delivered"
	case a.Temporary:
		outcome = "temporary"
	}
	m.attempts.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}

// settled notes the end of an entry.
func (m *metrics) settled(ctx context.Context, event meshv1.TimelineEntry_Event, e *statev1.OutboxEntry, at time.Time) {
	if event == meshv1.TimelineEntry_NOTIFICATION_DROPPED {
		m.dropped.Add(ctx, 1)
		return
	}
	if decided := e.GetNotification().GetDecideTime(); decided != nil {
		m.latency.Record(ctx, at.Sub(decided.AsTime()).Seconds())
	}
}
