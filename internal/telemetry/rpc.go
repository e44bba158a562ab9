package telemetry

import (
	"net/http"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// quietMethods are never spans nor counted by RPC: a session's span would last for days, and the others are asked all the time by machines.
func quietMethods() []string {
	return []string{
		"/probemesh.v1.SessionService/Session",
		"/grpc.health.v1.Health/",
		"/grpc.reflection.",
		"/grpc.channelz.",
	}
}

// ServerOption makes a gRPC server trace and measure its calls. The calls of quiet services (sessions of probers, health, reflection, channelz) are left
// out, as are those whose full method begins with one of skip, for example `/probemesh.v1.StatusService/WatchStatuses`.
func (t *Telemetry) ServerOption(skip ...string) grpc.ServerOption {
	return grpc.StatsHandler(otelgrpc.NewServerHandler(t.rpcOptions(skip)...))
}

// DialOption does the same for a gRPC client, and sends the trace context along.
func (t *Telemetry) DialOption(skip ...string) grpc.DialOption {
	return grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.rpcOptions(skip)...))
}

// Transport wraps an HTTP transport (nil: http.DefaultTransport) so that its requests are traced, measured, and carry the trace context.
func (t *Telemetry) Transport(base http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(base, otelhttp.WithTracerProvider(t.tracers), otelhttp.WithMeterProvider(t.meters), otelhttp.WithPropagators(t.propagator))
}

func (t *Telemetry) rpcOptions(skip []string) []otelgrpc.Option {
	prefixes := append(quietMethods(), skip...)
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.tracers),
		otelgrpc.WithMeterProvider(t.meters),
		otelgrpc.WithPropagators(t.propagator),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool {
			for _, p := range prefixes {
				if strings.HasPrefix(info.FullMethodName, p) {
					return false
				}
			}
			return true
		}),
	}
}
