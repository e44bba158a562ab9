package succession

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

type metrics struct {
	evictions    metric.Int64Counter
	resignations metric.Int64Counter
	rests        metric.Int64Counter
}

func newMetrics(m metric.Meter, stall func() time.Duration) (*metrics, error) {
	evictions, e1 := m.Int64Counter("probemesh_succession_evictions_total",
		metric.WithDescription("Attempts of this server to take leadership away from another one, by cause and outcome (evicted, late: it was over already, error)."))
	resignations, e2 := m.Int64Counter("probemesh_succession_resignations_total", metric.WithDescription("Reigns that this server gave up because it could not lead well, by cause."))
	rests, e3 := m.Int64Counter("probemesh_succession_evictions_held_back_total",
		metric.WithDescription("Evictions for silence that were due and not carried out, because this server had evicted a leader too recently; the lease decides then."))
	_, e4 := m.Float64ObservableGauge("probemesh_disk_stall_seconds", metric.WithUnit("s"),
		metric.WithDescription("How long a write of a small file to the data directory has been waiting for the disk; 0 below a second."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(stall().Seconds())
			return nil
		}))
	if err := errors.Join(e1, e2, e3, e4); err != nil {
		return nil, fmt.Errorf("succession: metrics: %w", err)
	}
	return &metrics{evictions: evictions, resignations: resignations, rests: rests}, nil
}

func (m *metrics) evicted(cause Cause, outcome string) {
	m.evictions.Add(context.Background(), 1, metric.WithAttributes(attribute.String("cause", string(cause)), attribute.String("outcome", outcome)))
}

func (m *metrics) resigned(cause Cause) {
	m.resignations.Add(context.Background(), 1, metric.WithAttributes(attribute.String("cause", string(cause))))
}
