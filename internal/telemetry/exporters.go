package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// logEvery is the shortest time between two log lines about the failing export of one signal.
const logEvery = time.Minute

// failures counts what could not be exported and says so now and then. Safe for concurrent use.
type failures struct {
	signal signal
	log    *slog.Logger

	mu      sync.Mutex
	counter metric.Int64Counter // nil until the meter provider stands
	logged  time.Time
	silent  int
}

// count takes note of an export that failed with err, which may be nil: then it does nothing.
func (f *failures) count(ctx context.Context, err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	counter, now := f.counter, time.Now()
	speak := f.logged.IsZero() || now.Sub(f.logged) >= logEvery
	unsaid := f.silent
	if speak {
		f.logged, f.silent = now, 0
	} else {
		f.silent++
	}
	f.mu.Unlock()
	if counter != nil {
		counter.Add(context.WithoutCancel(ctx), 1, metric.WithAttributes(attribute.String("signal", f.signal.label())))
	}
	if speak {
		f.log.Warn("telemetry could not be exported and was dropped; look at the collector and at OTEL_EXPORTER_OTLP_ENDPOINT",
			"signal", f.signal.label(), "failures_since_last", unsaid+1, KeyErr, err)
	}
}

// countInto makes further failures count in c.
func (f *failures) countInto(c metric.Int64Counter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counter = c
}

// spanExporter keeps the errors of the real exporter away from OpenTelemetry's global error handler, and lets an export that is under way be given up:
// the batch processor goes on with its last batches, without a deadline, after its own Shutdown has run out of time.
type spanExporter struct {
	sdktrace.SpanExporter
	failures *failures
	giveUp   context.Context // ends when exports shall be given up; not a request's, but the exporter's own life
	closed   chan struct{}   // closed when the real exporter is shut down
	once     sync.Once
}

func (e *spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.giveUp, cancel)()
	e.failures.count(ctx, e.SpanExporter.ExportSpans(ctx, spans))
	return nil
}

func (e *spanExporter) Shutdown(ctx context.Context) error {
	defer e.once.Do(func() { close(e.closed) })
	return e.SpanExporter.Shutdown(ctx)
}

// metricExporter does the same for metrics, and gives histograms the buckets that the Prometheus page has.
type metricExporter struct {
	sdkmetric.Exporter
	failures *failures
}

func (e *metricExporter) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	e.failures.count(ctx, e.Exporter.Export(ctx, rm))
	return nil
}

func (e *metricExporter) Aggregation(k sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	return aggregation(k)
}

// aggregation is the SDK's choice, but for the buckets of histograms.
func aggregation(k sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	if k == sdkmetric.InstrumentKindHistogram {
		return sdkmetric.AggregationExplicitBucketHistogram{Boundaries: SecondsBuckets()}
	}
	return sdkmetric.DefaultAggregationSelector(k)
}

// SecondsBuckets are the upper bounds, in seconds, of histograms that state none: from 0.5 ms, a fast decision, to a minute, the longest probe.
func SecondsBuckets() []float64 {
	return []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}
}
