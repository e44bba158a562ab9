package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

const (
	// shutdownLimit bounds Shutdown whatever its context says: a collector that hangs must not hold up the end of the process.
	shutdownLimit = 5 * time.Second
	// scope is the name of this package's own meter.
	scope = "github.com/probemesh/probemesh/internal/telemetry"
)

// Config says whose telemetry this is. All fields may be empty.
type Config struct {
	// Service is the `service.name` unless OTEL_SERVICE_NAME says otherwise, for example `probemesh-server`. Default `probemesh`.
	Service string
	// Version is the `service.version`.
	Version string
	// Instance is the `service.instance.id`: the name of the server or prober.
	Instance string
	// Log receives what goes wrong with the telemetry itself. Default: nowhere.
	Log *slog.Logger
}

// Telemetry is a process's metrics and traces. All methods may be called concurrently. Whoever called Setup calls Shutdown.
type Telemetry struct {
	log        *slog.Logger
	registry   *prometheus.Registry
	meters     *sdkmetric.MeterProvider
	tracers    trace.TracerProvider
	spans      *sdktrace.TracerProvider // nil when traces are not exported
	exporter   *spanExporter            // nil when traces are not exported
	giveUp     context.CancelFunc       // gives up what the exporter is doing
	propagator propagation.TextMapPropagator
}

// Setup reads the environment and builds what it asks for. It connects to nothing yet and changes nothing global. A collector that is away or a variable
// that cannot be honoured is logged and costs the export, not the process; an error means that not even the metrics page can be made.
func Setup(ctx context.Context, c Config) (*Telemetry, error) {
	return setup(ctx, c, processEnvironment)
}

func setup(ctx context.Context, c Config, getenv func(string) string) (*Telemetry, error) {
	t := &Telemetry{
		log:        c.Log,
		registry:   prometheus.NewRegistry(),
		tracers:    noop.NewTracerProvider(),
		propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if c.Service == "" {
		c.Service = "probemesh"
	}
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	res := t.describe(ctx, c)
	lostSpans := &failures{signal: traces, log: t.log}
	lostMetrics := &failures{signal: metrics, log: t.log}
	if err := t.startMeters(ctx, res, lostMetrics, getenv); err != nil {
		return nil, err
	}
	t.startTracers(ctx, res, lostSpans, getenv)
	return t, t.describeItself(ctx, c, lostSpans, lostMetrics)
}

// describe is the process as OpenTelemetry sees it; what the environment says comes last and wins.
func (t *Telemetry) describe(ctx context.Context, c Config) *resource.Resource {
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(
			attribute.String("service.name", c.Service),
			attribute.String("service.version", c.Version),
			attribute.String("service.instance.id", c.Instance)),
		resource.WithFromEnv())
	if err != nil {
		t.log.Warn("a part of the telemetry resource is not valid and is left out; look at OTEL_RESOURCE_ATTRIBUTES", KeyErr, err)
	}
	return res
}

// startMeters makes the meter provider with its one or two readers.
func (t *Telemetry) startMeters(ctx context.Context, res *resource.Resource, lost *failures, getenv func(string) string) error {
	page, err := otelprometheus.New(
		otelprometheus.WithRegisterer(t.registry),
		otelprometheus.WithAggregationSelector(aggregation),
		otelprometheus.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
		otelprometheus.WithoutScopeInfo())
	if err != nil {
		return fmt.Errorf("make the reader of the metrics page: %w", err)
	}
	options := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(page)}
	if wanted, err := exported(metrics, getenv); err != nil {
		t.log.Error("metrics are not exported", KeyErr, err)
	} else if wanted {
		if e, err := otlpmetricgrpc.New(ctx); err != nil {
			t.log.Error("metrics are not exported", KeyErr, err)
		} else {
			options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(&metricExporter{Exporter: e, failures: lost})))
		}
	}
	t.meters = sdkmetric.NewMeterProvider(options...)
	return nil
}

// startTracers makes the tracer provider, or leaves the one that does nothing.
func (t *Telemetry) startTracers(ctx context.Context, res *resource.Resource, lost *failures, getenv func(string) string) {
	wanted, err := exported(traces, getenv)
	if err != nil {
		t.log.Error("traces are not exported", KeyErr, err)
	}
	if !wanted {
		return
	}
	e, err := otlptracegrpc.New(ctx)
	if err != nil {
		t.log.Error("traces are not exported", KeyErr, err)
		return
	}
	life, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	t.exporter, t.giveUp = &spanExporter{SpanExporter: e, failures: lost, giveUp: life, closed: make(chan struct{})}, giveUp
	t.spans = sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithBatcher(t.exporter))
	t.tracers = t.spans
}

// describeItself makes this package's own instruments.
func (t *Telemetry) describeItself(ctx context.Context, c Config, lost ...*failures) error {
	m := t.Meter(scope)
	counter, err := m.Int64Counter("probemesh_telemetry_export_failures_total",
		metric.WithDescription("Batches of spans or metrics that could not be exported by OTLP and were dropped."))
	if err != nil {
		return err
	}
	for _, f := range lost {
		f.countInto(counter)
	}
	info, err := m.Int64Gauge("probemesh_build_info", metric.WithDescription("Always 1; the labels say what runs."))
	if err != nil {
		return err
	}
	info.Record(ctx, 1, metric.WithAttributes(attribute.String("version", c.Version), attribute.String("service", c.Service)))
	return nil
}

// Meter gives the meter of a package, named by its import path. Two packages must not make instruments of the same name.
func (t *Telemetry) Meter(name string) metric.Meter { return t.meters.Meter(name) }

// MeterProvider is for instrumentation libraries.
func (t *Telemetry) MeterProvider() metric.MeterProvider { return t.meters }

// Tracer gives the tracer of a package, named by its import path.
func (t *Telemetry) Tracer(name string) trace.Tracer { return t.tracers.Tracer(name) }

// TracerProvider is for instrumentation libraries.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return t.tracers }

// Tracing tells whether spans are exported.
func (t *Telemetry) Tracing() bool { return t.spans != nil }

// Propagator puts trace context and baggage into headers and takes them out, in the W3C form.
func (t *Telemetry) Propagator() propagation.TextMapPropagator { return t.propagator }

// Registry is for libraries that bring Prometheus collectors; whatever is registered appears on the metrics page, and is not pushed by OTLP.
func (t *Telemetry) Registry() *prometheus.Registry { return t.registry }

// Handler serves the metrics page, `/metrics`. A collector that fails costs its own lines only. At most 8 readers are served at once, each for 10 s at
// most; the others get 503.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog:            pageErrors{t.log},
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 8,
		Timeout:             10 * time.Second,
		EnableOpenMetrics:   true,
	})
}

// Handle takes an error that OpenTelemetry has nobody else to tell. A process may install t as the global handler (otel.SetErrorHandler), so that such
// errors reach its log.
func (t *Telemetry) Handle(err error) { t.log.Warn("telemetry reports a fault", KeyErr, err) }

// Shutdown sends what is waiting and ends the exporters, within 5 s or when ctx ends. Its error says what was lost; there is nothing to be done about it.
// Meters and tracers may be used afterwards, without effect.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownLimit)
	defer cancel()
	var err error
	if t.spans != nil {
		err = t.spans.Shutdown(ctx)
		t.giveUp()
		<-t.exporter.closed
	}
	return errors.Join(err, t.meters.Shutdown(ctx))
}

// pageErrors is the metrics page's way to the log.
type pageErrors struct{ log *slog.Logger }

// Println logs what promhttp has to say.
func (p pageErrors) Println(v ...any) {
	p.log.Warn("the metrics page is incomplete", KeyErr, fmt.Sprint(v...))
}
