//go:build linux

package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// With the standard variables set, an outage is one trace at the collector: the confirmation that the server asked for, the probe of the prober, the
// opening of the incident and the notification, and its id is in the incident and in the webhook.
func TestTracesReachACollector(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	m := startMesh(t, "up", []string{"--datacenter", "a"}, withEnv("OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_BSP_SCHEDULE_DELAY=200"))
	startProber(t, m, "b-1", "b", withEnv("OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_BSP_SCHEDULE_DELAY=200"))
	target, hook := startWebTarget(t, nil), startReceiver(t)
	m.apply(hook.yaml("ops") + webCheck("shop", target.url(), pace, 2, 2, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 2)
	target.stop()
	note := hook.await(t, 1, opened).note
	if note.GetTraceId() == "" {
		t.Fatal("the notification has no trace id")
	}
	if got := m.allIncidents()[0].GetTraceId(); got != note.GetTraceId() {
		t.Errorf("the incident has trace %q, the notification %q", got, note.GetTraceId())
	}
	want := []string{"confirm", "incident.open", "notify", "probe"}
	until(t, "the trace "+note.GetTraceId()+" joins "+strings.Join(want, ", "), func() (bool, string) {
		got := c.names(note.GetTraceId())
		for _, w := range want {
			if !slices.ContainsFunc(got, func(n string) bool { return strings.TrimPrefix(n, "probemesh.") == w }) {
				return false, strings.Join(got, ", ")
			}
		}
		return true, ""
	})
	t.Logf("trace %s:\n%s", note.GetTraceId(), c.tree(note.GetTraceId()))
}

// collector is an OTLP collector that keeps spans by trace.
type collector struct {
	collectortraces.UnimplementedTraceServiceServer
	url string

	mu    sync.Mutex
	spans map[string][]*tracepb.Span
}

// collectorMetrics takes metrics, and lets them go.
type collectorMetrics struct {
	collectormetrics.UnimplementedMetricsServiceServer
}

func (collectorMetrics) Export(context.Context, *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	l := listen(t)
	c := &collector{url: "http://" + l.Addr().String(), spans: map[string][]*tracepb.Span{}}
	s := grpc.NewServer()
	collectortraces.RegisterTraceServiceServer(s, c)
	collectormetrics.RegisterMetricsServiceServer(s, collectorMetrics{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return c
}

func (c *collector) Export(_ context.Context, r *collectortraces.ExportTraceServiceRequest) (*collectortraces.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			for _, span := range ss.GetSpans() {
				id := hex.EncodeToString(span.GetTraceId())
				c.spans[id] = append(c.spans[id], span)
			}
		}
	}
	return &collectortraces.ExportTraceServiceResponse{}, nil
}

func (c *collector) names(trace string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, s := range c.spans[trace] {
		names = append(names, s.GetName())
	}
	return names
}

// tree lists the spans of a trace, oldest first.
func (c *collector) tree(trace string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := slices.Clone(c.spans[trace])
	slices.SortFunc(spans, func(a, b *tracepb.Span) int {
		return int(int64(a.GetStartTimeUnixNano()) - int64(b.GetStartTimeUnixNano()))
	})
	var b strings.Builder
	for _, s := range spans {
		fmt.Fprintf(&b, "  +%-10s %-20s took %s\n", time.Duration(s.GetStartTimeUnixNano()-spans[0].GetStartTimeUnixNano()).Round(10*time.Microsecond), s.GetName(),
			time.Duration(s.GetEndTimeUnixNano()-s.GetStartTimeUnixNano()).Round(10*time.Microsecond))
	}
	return b.String()
}
