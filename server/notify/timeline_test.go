package notify

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestTimelineTellsTheFirstFailureEachChangeAndTheSuccess(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		s.store.owe(1, "ops", opened, 1)
		answers := []answer{fail(unavailable, "POST https://x: 503"), fail(unavailable, "POST https://x: 503"), fail(refused, "POST https://x: 404"),
			fail(refused, "POST https://x: 404"), fail(unavailable, "POST https://x: 503"), ok()}
		s.sender.respond = func(_ context.Context, _ *meshv1.Receiver, m message) answer {
			return answers[m.notification.Attempt-1]
		}
		s.lead()
		s.wait(time.Hour)
		var got []string
		for _, e := range s.store.timeline(1) {
			text, _, _ := strings.Cut(e.Text, "; tried again in")
			got = append(got, fmt.Sprintf("%d %s %s", e.Attempt, e.Event, text))
			if e.Receiver != "receivers/ops" {
				t.Errorf("%v names no receiver", e)
			}
			if e.Event == meshv1.TimelineEntry_NOTIFICATION_FAILED && !strings.Contains(e.Text, "; tried again in ") {
				t.Errorf("%q does not say when it is tried again", e.Text)
			}
		}
		want := []string{
			"1 NOTIFICATION_FAILED POST https://x: 503", "3 NOTIFICATION_FAILED POST https://x: 404", "5 NOTIFICATION_FAILED POST https://x: 503",
			"6 NOTIFIED receivers/ops was told of OPENED: 200 OK after 0s.",
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("timeline\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		s.wantOwed()
	})
}

func TestRecordsOfOneEntryAreBounded(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		s.store.owe(1, "ops", opened, 1)
		s.sender.respond = func(_ context.Context, _ *meshv1.Receiver, m message) answer {
			return fail(unavailable, fmt.Sprint("error number ", m.notification.Attempt))
		}
		s.lead()
		s.wait(6 * time.Hour)
		if n := len(s.store.timeline(1)); n != maxRecords {
			t.Errorf("%d failures are recorded of %d attempts, want %d", n, len(s.sender.sent()), maxRecords)
		}
	})
}

func TestNewLeaderDoesNotRecordTheSameErrorAgain(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		s.store.owe(1, "ops", opened, 1)
		s.sender.respond = func(context.Context, *meshv1.Receiver, message) answer {
			return fail(unavailable, "POST https://x: 503")
		}
		for range 5 {
			stop := s.lead()
			s.wait(time.Second / 2)
			stop()
			s.depose()
		}
		if n := len(s.store.timeline(1)); n != 1 {
			t.Errorf("%d records of one error in five reigns, want 1", n)
		}
		if got := s.sender.sent(); got[4].attempt != 5 {
			t.Errorf("the fifth leader's attempt is number %d, want 5", got[4].attempt)
		}
	})
}

func TestOneAtATimeWritesInAnIncident(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, writing, most := newPages(), 0, 0
		for range 16 {
			go func() {
				release, err := p.take(t.Context(), "incidents/1")
				if err != nil {
					t.Error(err)
					return
				}
				defer release()
				writing++
				most = max(most, writing)
				time.Sleep(time.Millisecond)
				writing--
			}()
		}
		time.Sleep(8*time.Millisecond + time.Microsecond)
		if release, err := p.take(t.Context(), "incidents/2"); err != nil {
			t.Error("another incident has to wait")
		} else {
			release()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if most != 1 || len(p.held) != 0 {
			t.Errorf("%d wrote at once, %d are still held; want 1 and 0", most, len(p.held))
		}
	})
}

func TestFiguresTellWhatIsOwedAndHowLongDeliveryTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		s := newStage(t, Config{Meter: provider.Meter("test")})
		s.store.receiver("ops")
		s.store.receiver("down")
		s.store.receiver("paused", func(r *meshv1.Receiver) { r.Paused = true })
		for i := range 3 {
			s.store.owe(i, "ops", opened, 1)
			s.store.owe(i, "down", opened, 1)
			s.store.owe(i, "paused", opened, 1)
		}
		s.sender.respond = func(ctx context.Context, r *meshv1.Receiver, _ message) answer {
			if r.Name == "receivers/down" {
				return fail(refused, "404")
			}
			return after(ctx, 3*time.Second, ok())
		}
		s.lead()
		s.wait(time.Minute)
		got := figures(t, reader)
		for name, want := range map[string]float64{
			"probemesh_outbox_owed": 3, "probemesh_outbox_oldest_age_seconds": 60,
			"probemesh_notification_attempts_total outcome=delivered": 3, "probemesh_notification_attempts_total outcome=refused": 3,
			"probemesh_notifications_dropped_total reason=receiver_paused": 3, "probemesh_notification_latency_seconds": 9,
		} {
			if got[name] != want {
				t.Errorf("%s is %v, want %v; all: %v", name, got[name], want, got)
			}
		}
	})
}

// figures are the values of all metrics by name and label; of a histogram the sum.
func figures(t *testing.T, reader *sdkmetric.ManualReader) map[string]float64 {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Gauge[int64]:
				out[m.Name] = float64(d.DataPoints[0].Value)
			case metricdata.Gauge[float64]:
				out[m.Name] = d.DataPoints[0].Value
			case metricdata.Histogram[float64]:
				out[m.Name] = d.DataPoints[0].Sum
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					kv := p.Attributes.ToSlice()
					out[fmt.Sprintf("%s %s=%s", m.Name, kv[0].Key, kv[0].Value.AsString())] = float64(p.Value)
				}
			}
		}
	}
	return out
}

func TestWrongConfigurationIsRefusedWithAllItsFaults(t *testing.T) {
	_, err := New(newFakeStore(), Config{MaxInFlight: 5, PerReceiver: 9, Grace: time.Minute})
	if err == nil || !strings.Contains(err.Error(), "per_receiver 9") || !strings.Contains(err.Error(), "grace 1m0s") {
		t.Errorf("New returned %v, want both faults", err)
	}
	if n, err := New(newFakeStore(), Config{MaxInFlight: 3}); err != nil || n.cfg.PerReceiver != 3 {
		t.Errorf("New returned %v; PerReceiver is to fit into MaxInFlight", err)
	}
}
