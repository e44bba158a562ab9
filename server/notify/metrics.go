package notify

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the figures of deliveries. The gauges are those of the leader; on other servers they are 0.
type metrics struct {
	latency  metric.Float64Histogram
	attempts metric.Int64Counter
	dropped  metric.Int64Counter
	lost     metric.Int64Counter
	// unsettled counts what was delivered and will be sent again by the next leader, with the same key.
	unsettled metric.Int64Counter
}

// newMetrics makes the figures; standing is asked for those that are states.
func newMetrics(m metric.Meter, standing func() (owed int, oldest time.Time)) (*metrics, error) {
	var faults []error
	counter := func(name, text string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithDescription(text))
		faults = append(faults, err)
		return c
	}
	latency, err := m.Float64Histogram("probemesh_notification_latency_seconds", metric.WithUnit("s"),
		metric.WithDescription("From the leader's decision to the receiver's answer."),
		metric.WithExplicitBucketBoundaries(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400))
	faults = append(faults, err)
	owed, err := m.Int64ObservableGauge("probemesh_outbox_owed", metric.WithDescription("Notifications owed and not delivered yet; 0 unless this server leads."))
	faults = append(faults, err)
	oldest, err := m.Float64ObservableGauge("probemesh_outbox_oldest_age_seconds", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest notification owed; 0 when none is, or unless this server leads."))
	faults = append(faults, err)
	out := &metrics{
		latency:  latency,
		attempts: counter("probemesh_notification_attempts_total", "Attempts to deliver a notification, by outcome: delivered, unavailable, refused, timeout, network, aborted."),
		dropped:  counter("probemesh_notifications_dropped_total", "Notifications that were given up, by reason: receiver_deleted, receiver_paused, given_up."),
		unsettled: counter("probemesh_notifications_unsettled_total",
			"Notifications that were delivered but not deleted before the reign ended: the next leader sends them again, with the same key."),
		lost: counter("probemesh_notification_records_lost_total", "Attempts that could not be recorded in their incident."),
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		count, since := standing()
		age := 0.0
		if count > 0 {
			age = max(0, time.Since(since).Seconds())
		}
		o.ObserveInt64(owed, int64(count))
		o.ObserveFloat64(oldest, age)
		return nil
	}, owed, oldest)
	return out, err
}

func (m *metrics) attempted(ctx context.Context, o outcome) {
	m.attempts.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", string(o))))
}

func (m *metrics) drop(ctx context.Context, reason dropReason) {
	m.dropped.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", string(reason))))
}
