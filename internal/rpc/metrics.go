package rpc

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// metrics are the figures of a server. How many calls there are and how long they take is counted by the tracing instrumentation.
type metrics struct {
	faults metric.Int64Counter
}

func newMetrics(meter metric.Meter, logger *slog.Logger) *metrics {
	if meter == nil {
		meter = noop.Meter{}
	}
	faults, err := meter.Int64Counter("probemesh_rpc_faults_total",
		metric.WithDescription("Calls that ended by a fault of the server; kind is panic or error."))
	if err != nil {
		logger.Warn("metric cannot be registered", "metric", "probemesh_rpc_faults_total", "err", err)
		faults = noop.Int64Counter{}
	}
	return &metrics{faults: faults}
}

func (m *metrics) fault(ctx context.Context, kind string) {
	m.faults.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", kind)))
}
