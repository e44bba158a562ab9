package blackbox

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the exporter's own instruments.
type metrics struct {
	probes, refused metric.Int64Counter
	running         metric.Int64UpDownCounter
	good            metric.Int64Gauge
	since           metric.Float64Gauge
}

func newMetrics(m metric.Meter) (*metrics, error) {
	var errs [5]error
	out := &metrics{}
	out.probes, errs[0] = m.Int64Counter("probemesh_prober_blackbox_probes_total",
		metric.WithDescription("Probes asked for by /probe, by prober of the module and success."))
	out.refused, errs[1] = m.Int64Counter("probemesh_prober_blackbox_refused_total",
		metric.WithDescription("Requests of /probe that no probe was made for, by reason."))
	out.running, errs[2] = m.Int64UpDownCounter("probemesh_prober_blackbox_in_flight", metric.WithDescription("Probes of /probe that run."))
	out.good, errs[3] = m.Int64Gauge("probemesh_prober_blackbox_config_last_reload_successful",
		metric.WithDescription("1 when the configuration file was right when it was read the last time, else 0: then the one before is in use."))
	out.since, errs[4] = m.Float64Gauge("probemesh_prober_blackbox_config_last_reload_success_timestamp_seconds", metric.WithUnit("s"),
		metric.WithDescription("When the configuration in use was read."))
	return out, errors.Join(errs[:]...)
}

func (m *metrics) probed(ctx context.Context, prober string, success bool) {
	m.probes.Add(ctx, 1, metric.WithAttributes(attribute.String("prober", prober), attribute.Bool("success", success)))
}

func (m *metrics) refuse(ctx context.Context, reason string) {
	m.refused.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}

func (m *metrics) reloaded(ctx context.Context, good bool, now time.Time) {
	if !good {
		m.good.Record(ctx, 0)
		return
	}
	m.good.Record(ctx, 1)
	m.since.Record(ctx, float64(now.UnixMilli())/1000)
}
