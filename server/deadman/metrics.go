package deadman

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the figures of the calls.
type metrics struct{ calls metric.Int64Counter }

func newMetrics(m metric.Meter) (*metrics, error) {
	calls, err := m.Int64Counter("probemesh_dead_man_calls_total", metric.WithDescription("Calls to the dead man's switch, by outcome: told, failed."))
	return &metrics{calls: calls}, err
}

func (m *metrics) called(ctx context.Context, outcome string) {
	m.calls.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}
