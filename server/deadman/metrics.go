package deadman

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the figures of the calls.
type metrics struct{ calls metric.Int64Counter }

func newMetrics(m metric.Meter, s *Switch) (*metrics, error) {
	calls, err1 := m.Int64Counter("probemesh_dead_man_calls_total", metric.WithDescription("Calls to the dead man's switch, by outcome: told, failed."))
	last, err2 := m.Float64ObservableGauge("probemesh_dead_man_last_success_seconds", metric.WithUnit("s"),
		metric.WithDescription("When this server last told the dead man's switch that all is well, seconds since 1970; 0 when it never has."))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		told := 0.0
		if t := s.State().Told; !t.IsZero() {
			told = float64(t.UnixMilli()) / 1000
		}
		o.ObserveFloat64(last, told)
		return nil
	}, last)
	return &metrics{calls: calls}, err
}

func (m *metrics) called(ctx context.Context, outcome string) {
	m.calls.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}
