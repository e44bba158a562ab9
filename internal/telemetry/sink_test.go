package telemetry

import (
	"context"
	"net"
	"sync"
	"testing"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// sink is an OTLP collector that remembers what it was sent.
type sink struct {
	collectortraces.UnimplementedTraceServiceServer
	address string

	mu       sync.Mutex
	spans    []*tracepb.Span
	metrics  map[string]bool
	services map[string]bool
}

// metricsSink is the sink's other service; both have a method Export.
type metricsSink struct {
	collectormetrics.UnimplementedMetricsServiceServer
	*sink
}

func startSink(t *testing.T) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{address: "http://" + l.Addr().String(), metrics: map[string]bool{}, services: map[string]bool{}}
	g := grpc.NewServer()
	collectortraces.RegisterTraceServiceServer(g, s)
	collectormetrics.RegisterMetricsServiceServer(g, &metricsSink{sink: s})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	t.Cleanup(func() { g.Stop(); <-done })
	return s
}

func (s *sink) Export(_ context.Context, r *collectortraces.ExportTraceServiceRequest) (*collectortraces.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		for _, a := range rs.Resource.Attributes {
			if a.Key == "service.name" {
				s.services[a.Value.GetStringValue()] = true
			}
		}
		for _, ss := range rs.ScopeSpans {
			s.spans = append(s.spans, ss.Spans...)
		}
	}
	return &collectortraces.ExportTraceServiceResponse{}, nil
}

func (s *metricsSink) Export(_ context.Context, r *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rm := range r.ResourceMetrics {
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				s.sink.metrics[m.Name] = true
			}
		}
	}
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

func (s *sink) spanNames() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]bool{}
	for _, span := range s.spans {
		names[span.Name] = true
	}
	return names
}
