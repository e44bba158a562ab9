package history

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// fate is what became of a result that was handed to Append.
type fate uint8

const (
	written fate = iota
	repeated
	tooOld
	inFuture
	malformed
	slow
	fateCount
)

// fateNames are the values of the label `fate`.
var fateNames = [fateCount]string{
	written: "written", repeated: "repeated", tooOld: "too_old", inFuture: "in_future", malformed: "malformed", slow: "slow",
}

// instruments are the figures of a history.
type instruments struct {
	results      metric.Int64Counter
	samples      metric.Int64Counter
	failures     metric.Int64Counter
	setAside     metric.Int64Counter
	queries      metric.Int64Counter
	appendTime   metric.Float64Histogram
	queryTime    metric.Float64Histogram
	series       metric.Int64ObservableGauge
	groups       metric.Int64ObservableGauge
	available    metric.Int64ObservableGauge
	fates        [fateCount]metric.MeasurementOption
	registration metric.Registration
}

// newInstruments makes the figures; h is asked for those that are states.
func newInstruments(m metric.Meter, h *History) (*instruments, error) {
	if m == nil {
		m = noop.NewMeterProvider().Meter("")
	}
	var faults []error
	counter := func(name, text string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithDescription(text))
		faults = append(faults, err)
		return c
	}
	gauge := func(name, text string) metric.Int64ObservableGauge {
		g, err := m.Int64ObservableGauge(name, metric.WithDescription(text))
		faults = append(faults, err)
		return g
	}
	timing := func(name, text string) metric.Float64Histogram {
		g, err := m.Float64Histogram(name, metric.WithDescription(text), metric.WithUnit("s"))
		faults = append(faults, err)
		return g
	}
	i := &instruments{
		results:    counter("probemesh_history_results_total", "Results handed to the history, by what became of them."),
		samples:    counter("probemesh_history_samples_total", "Samples written to the history."),
		failures:   counter("probemesh_history_append_failures_total", "Appends that failed and are left to their callers to retry."),
		setAside:   counter("probemesh_history_set_aside_total", "Damaged stores or blocks that were set aside."),
		queries:    counter("probemesh_history_queries_total", "Questions asked, by interface and by how they ended."),
		appendTime: timing("probemesh_history_append_seconds", "How long an append took, to the end of its commit."),
		queryTime:  timing("probemesh_history_query_seconds", "How long a question took, with waiting for its turn."),
		series:     gauge("probemesh_history_series", "Series in the newest, not yet compacted part of the history."),
		groups:     gauge("probemesh_history_cached_groups", "Pairs of check and prober whose place in the store is at hand."),
		available:  gauge("probemesh_history_available", "1 while the history can be written to, 0 while it has failed."),
	}
	for f, name := range fateNames {
		i.fates[f] = metric.WithAttributeSet(attribute.NewSet(attribute.String("fate", name)))
	}
	var err error
	i.registration, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		series, available := h.state()
		o.ObserveInt64(i.series, series)
		o.ObserveInt64(i.available, available)
		o.ObserveInt64(i.groups, int64(h.groups.size()))
		return nil
	}, i.series, i.groups, i.available)
	return i, errors.Join(append(faults, err)...)
}

// query counts one question that ended with err; iface is `grpc` or `http`.
func (i *instruments) query(ctx context.Context, iface string, took float64, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	ctx = context.WithoutCancel(ctx)
	i.queries.Add(ctx, 1, metric.WithAttributes(attribute.String("interface", iface), attribute.String("outcome", outcome)))
	i.queryTime.Record(ctx, took, metric.WithAttributes(attribute.String("interface", iface)))
}
