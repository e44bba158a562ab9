package prober

import (
	"context"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMetricsTellWhatTheProberDoes(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	inWorld(t, func(w *world) {
		w.deps.Meter = provider.Meter("test")
		s := w.server("a:1")
		defer s.Stop()
		s.Want(false, assigned(10, time.Minute)...)
		w.start("a:1")
		time.Sleep(10*time.Minute + 500*time.Millisecond)
		var got metricdata.ResourceMetrics
		if err := reader.Collect(context.Background(), &got); err != nil {
			t.Fatal(err)
		}
		values := map[string]int64{}
		for _, m := range got.ScopeMetrics[0].Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					values[m.Name] += p.Value
				}
			case metricdata.Gauge[int64]:
				for _, p := range d.DataPoints {
					values[m.Name] += p.Value
				}
			case metricdata.Histogram[float64]:
				values[m.Name] = int64(d.DataPoints[0].Count)
			}
		}
		for name, want := range map[string]int64{"probemesh_prober_probes_total": 100, "probemesh_prober_probe_lag_seconds": 100,
			"probemesh_prober_assignments": 10, "probemesh_prober_session_connected": 1, "probemesh_prober_sessions_total": 1, "probemesh_prober_spool_dropped_total": 0} {
			if got, ok := values[name]; !ok || got < want || got > want+1 {
				t.Errorf("%s is %d (known %v); want %d", name, got, ok, want)
			}
		}
	})
}

func TestARunWithATraceparentHasASpan(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	inWorld(t, func(w *world) {
		w.deps.Tracer = provider.Tracer("test")
		s := w.server("a:1")
		defer s.Stop()
		s.Want(false, assigned(2, time.Minute)...)
		w.start("a:1")
		time.Sleep(5 * time.Second)
		s.Say(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_RunNow{RunNow: &meshv1.RunNow{RunId: "r", Check: "checks/c0",
			Deadline: timestamppb.New(time.Now().Add(time.Minute)), Traceparent: "00-" + trace + "-00f067aa0ba902b7-01"}}})
		time.Sleep(2 * time.Minute)
		for _, r := range s.Seen().Results(meshv1.ResultBatch_LIVE) {
			want := ""
			if r.GetRunId() == "r" {
				want = trace
			}
			if r.GetTraceId() != want {
				t.Errorf("run %q has trace %q; want %q", r.GetRunId(), r.GetTraceId(), want)
			}
		}
	})
	if got := spans.GetSpans(); len(got) != 1 || got[0].SpanContext.TraceID().String() != trace {
		t.Errorf("%d spans; want one, of the run", len(got))
	}
}
