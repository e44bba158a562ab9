package store

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the store's own figures.
type metrics struct {
	calls      metric.Float64Histogram
	relists    metric.Int64Counter
	mismatches metric.Int64Counter
	broken     metric.Int64Counter
	reconnects metric.Int64Counter
	cuts       metric.Int64Counter
	fenced     metric.Int64Counter
}

// newMetrics panics when an instrument's name is not valid: a fault of ours.
func newMetrics(m metric.Meter) *metrics {
	calls, err := m.Float64Histogram("probemesh_store_call_duration_seconds", metric.WithUnit("s"),
		metric.WithDescription("How long etcd took to answer, by call and outcome."))
	must(err)
	counter := func(name, text string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithDescription(text))
		must(err)
		return c
	}
	return &metrics{
		calls:      calls,
		relists:    counter("probemesh_store_snapshots_total", "Snapshots handed to followers, by reason."),
		mismatches: counter("probemesh_store_verify_mismatches_total", "Keys on which a follower differed from etcd and was healed."),
		broken:     counter("probemesh_store_undecodable_total", "Values in etcd that could not be decoded, by kind."),
		cuts:       counter("probemesh_store_evidence_cuts_total", "Times that evidence was cut so that an incident fits into one transaction."),
		fenced:     counter("probemesh_store_fenced_total", "Writes that etcd refused because the reign under which they were to be made is over."),
		reconnects: counter("probemesh_store_watch_breaks_total", "Times that a follower's watch broke and was taken up again."),
	}
}

func must(err error) {
	if err != nil {
		panic("store: " + err.Error())
	}
}

func (m *metrics) observe(ctx context.Context, call string, start time.Time, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	m.calls.Record(ctx, time.Since(start).Seconds(),
		metric.WithAttributes(attribute.String("call", call), attribute.String("outcome", outcome)))
}
