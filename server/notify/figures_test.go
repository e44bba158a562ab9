package notify_test

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/notify"
	"github.com/probemesh/probemesh/server/store"
)

func TestFiguresTellOfWhatIsOwedAndHowLongItTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := metric.NewManualReader()
		spans := tracetest.NewSpanRecorder()
		r := &receivers{begun: time.Now(), nths: map[string]int{}, answer: func(_ string, nth int) (notify.Answer, time.Duration) {
			if nth < 3 {
				return notify.Answer{Status: 404, Error: "404"}, 0
			}
			return delivered, 0
		}}
		n := notify.New(sink{}, r, notify.Config{Meter: metric.NewMeterProvider(metric.WithReader(reader)).Meter("t"),
			Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("t")})
		e := owed(1, meshv1.Notification_OPENED, 0, "a")
		e.Notification.TraceId = "0102030405060708090a0b0c0d0e0f10"
		n.Replace([]*statev1.OutboxEntry{e}, []*meshv1.Receiver{{Name: "receivers/a"}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx, store.Fence{}) }()
		time.Sleep(time.Minute)
		if got := figures(t, reader); got != "attempts refused=1; owed 1; oldest 60" {
			t.Errorf("after a minute: %s", got)
		}
		time.Sleep(time.Hour)
		if got := figures(t, reader); got != "attempts delivered=1 refused=2; latency 1x240; owed 0; oldest 0" {
			t.Errorf("at the end: %s", got)
		}
		cancel()
		<-done
		if got := spans.Ended(); len(got) != 3 || got[0].SpanContext().TraceID().String() != e.Notification.TraceId {
			t.Errorf("%d spans", len(got))
		}
	})
}

// sink is a store that takes everything.
type sink struct{}

func (sink) AmendIncident(context.Context, *store.Fence, string, func(*statev1.StoredIncident) error) (store.Versioned[*statev1.StoredIncident], error) {
	return store.Versioned[*statev1.StoredIncident]{}, nil
}
func (sink) UpdateOutbox(context.Context, store.Fence, *statev1.OutboxEntry) error { return nil }
func (sink) SettleOutbox(context.Context, store.Fence, string, string, func(*statev1.StoredIncident) error) error {
	return nil
}

// figures is the metrics as one line.
func figures(t *testing.T, r metric.Reader) string {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	var attempts, latency, owedText, oldest string
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch d := m.Data.(type) {
		case metricdata.Sum[int64]:
			var parts []string
			for _, p := range d.DataPoints {
				v, _ := p.Attributes.Value("outcome")
				parts = append(parts, fmt.Sprintf("%s=%d", v.AsString(), p.Value))
			}
			sort.Strings(parts)
			attempts = "attempts " + strings.Join(parts, " ")
		case metricdata.Histogram[float64]:
			latency = fmt.Sprintf("; latency %dx%.0f", d.DataPoints[0].Count, d.DataPoints[0].Sum)
		case metricdata.Gauge[int64]:
			owedText = fmt.Sprintf("; owed %d", d.DataPoints[0].Value)
		case metricdata.Gauge[float64]:
			oldest = fmt.Sprintf("; oldest %.0f", d.DataPoints[0].Value)
		}
	}
	return attempts + latency + owedText + oldest
}
