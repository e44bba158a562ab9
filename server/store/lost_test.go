package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/probemesh/probemesh/internal/fault"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// counter sums a counter over its labels.
func counter(t *testing.T, r metric.Reader, name string) int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	ok(t, r.Collect(t.Context(), &all))
	var sum int64
	for _, sm := range all.ScopeMetrics {
		for _, m := range sm.Metrics {
			if d, is := m.Data.(metricdata.Sum[int64]); is && m.Name == name {
				for _, p := range d.DataPoints {
					sum += p.Value
				}
			}
		}
	}
	return sum
}

// Each write is made with its answer lost, and with its request lost; it must have happened exactly once in the end.
func TestLostAnswersAreSettledByLookingAgain(t *testing.T) {
	for name, lose := range map[string]func(*backend){
		"answer":       func(b *backend) { b.fake.LoseAnswers(1) },
		"request":      func(b *backend) { b.fake.LoseRequests(1) },
		"two answers":  func(b *backend) { b.fake.LoseAnswers(2) },
		"two requests": func(b *backend) { b.fake.LoseRequests(2) },
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, b *backend) {
				s, ctx, fence := b.store(store.Options{}), t.Context(), b.reign(t, 1)
				lose(b)
				c, err := s.CreateCheck(ctx, newCheck("a"))
				ok(t, err)
				lose(b)
				c.DisplayName = "new"
				c, err = s.UpdateCheck(ctx, c, c.Etag)
				ok(t, err)
				lose(b)
				inc := newIncident(1, c.Name)
				rev, err := s.OpenIncident(ctx, fence, inc, []*statev1.OutboxEntry{owed(inc, "OPENED", "r")}, c.Revision)
				ok(t, err)
				lose(b)
				v, err := s.AmendIncident(ctx, &fence, inc.Incident.Name, func(si *statev1.StoredIncident) error {
					si.Incident.Timeline = append(si.Incident.Timeline, &meshv1.TimelineEntry{Text: "once"})
					return nil
				})
				ok(t, err)
				if v.ModRevision <= rev || len(v.Value.Incident.Timeline) != 1 {
					t.Fatalf("amended to %v", v)
				}
				lose(b)
				rev, err = s.UpdateIncident(ctx, fence, v.Value, nil, v.ModRevision)
				ok(t, err)
				lose(b)
				_, err = s.ResolveIncident(ctx, fence, v.Value, nil, rev)
				ok(t, err)
				lose(b)
				ok(t, s.DeleteOutbox(ctx, fence, owed(inc, "OPENED", "r").Id))
				lose(b)
				_, err = s.PutEnrolment(ctx, &statev1.Enrolment{Name: "probers/p"}, 0)
				ok(t, err)
				lose(b)
				plan := store.Plan{PutChecks: []store.PlannedCheck{{Check: newCheck("b")}},
					DeleteChecks: []store.PlannedDelete{{Name: c.Name, ModRevision: c.Revision}}}
				_, _, err = s.ApplyBatch(ctx, plan)
				ok(t, err)
				lose(b)
				ok(t, s.DeleteCheck(ctx, "checks/b", ""))
				lose(b)
				ok(t, s.RememberRequest(ctx, "id", "digest", "checks/a"))

				v, err = s.GetIncident(ctx, inc.Incident.Name)
				ok(t, err)
				if n := len(v.Value.Incident.Timeline); n != 1 {
					t.Fatalf("the amendment is there %d times", n)
				}
				want := []string{"incident/closed/" + strings.TrimPrefix(inc.Incident.Name, "incidents/"), "leader/holder", "prober/p", "request/id"}
				if got := strings.ReplaceAll(strings.Join(b.fake.Keys(), " "), store.Prefix, ""); got != strings.Join(want, " ") {
					t.Fatalf("keys %q, want %q", got, want)
				}
			})
		})
	}
}

func TestOutcomeThatCannotBeSettledIsSaidToBeUnknown(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		s := b.store(store.Options{})
		b.fake.LoseAnswers(100)
		_, err := s.CreateCheck(t.Context(), newCheck("a"))
		wantReason(t, err, meshv1.ErrorReason_STORE_UNAVAILABLE)
		if !errors.Is(err, store.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "not known") {
			t.Fatalf("%v", err)
		}
		b.fake.LoseAnswers(0)
		b.fake.SetLeaderless(true)
		_, err = s.CreateCheck(t.Context(), newCheck("b"))
		wantReason(t, err, meshv1.ErrorReason_STORE_UNAVAILABLE)
		if errors.Is(err, store.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "nothing was changed") {
			t.Fatalf("without a leader nothing is proposed, but: %v", err)
		}
		if f, _ := fault.From(err); f.RetryAfter <= 0 {
			t.Fatal("no advice when to try again")
		}
	})
}

func TestSilentEtcdDoesNotHoldACallerForEver(t *testing.T) {
	onFake(t, func(t *testing.T, b *backend) {
		s := b.store(store.Options{Timeout: 2 * time.Second})
		b.fake.SetDelay(time.Hour)
		begun := time.Now()
		_, err := s.GetCheck(t.Context(), "checks/a")
		wantReason(t, err, meshv1.ErrorReason_STORE_UNAVAILABLE)
		if d := time.Since(begun); d != 2*time.Second {
			t.Fatalf("after %s", d)
		}
		if err := s.Ready(t.Context()); err == nil {
			t.Fatal("ready, though etcd is silent")
		}
	})
}
