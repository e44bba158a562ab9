// Package telemetry is how probemesh is seen from outside: logs, metrics and traces, set up once by a process and handed to its parts.
//
// # Logs
//
// [NewLogger] makes a slog logger that writes text or JSON. Messages are constant sentences; what varies goes into attributes, whose keys are the
// Key constants of this package, so that one query finds a check, a prober or an incident in every log line, metric and span.
//
// # Metrics
//
// Every part receives an OpenTelemetry meter from [Telemetry.Meter] and names its instruments `probemesh_...`, with the unit in the name. One
// set of instruments serves two readers: the Prometheus page at [Telemetry.Handler], always, on a registry of its own together with the figures of the
// Go runtime and the process; and a push by OTLP, when the environment asks for it.
//
// Histograms that do not state their buckets get [SecondsBuckets], because nearly all of them hold seconds.
//
// # Traces
//
// [Telemetry.Tracer] gives tracers. Without a configured exporter they do nothing and cost next to nothing. Context travels between processes in the
// W3C form (traceparent, tracestate, baggage).
//
// # The environment
//
// The standard variables of OpenTelemetry decide what leaves the process:
//
//	OTEL_EXPORTER_OTLP_ENDPOINT                 where to send traces and metrics, for example http://collector:4317
//	OTEL_EXPORTER_OTLP_TRACES_ENDPOINT          where to send traces
//	OTEL_EXPORTER_OTLP_METRICS_ENDPOINT         where to send metrics
//	OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER otlp or none; unset means otlp when one of the endpoints above is set, else none
//	OTEL_EXPORTER_OTLP_PROTOCOL                 grpc, which is also the default here; other protocols are refused with a log line
//	OTEL_SDK_DISABLED                           true: nothing is sent; the Prometheus page stays
//	OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_BSP_*, OTEL_METRIC_EXPORT_INTERVAL, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME
//	                                            as OpenTelemetry documents them
//
// A collector that is away, slow or wrong never harms the process: what cannot be sent is dropped, counted in
// `probemesh_telemetry_export_failures_total`, and logged at most once a minute for each signal.
package telemetry
