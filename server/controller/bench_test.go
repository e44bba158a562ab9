package controller

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	metricsdk "go.opentelemetry.io/otel/sdk/metric"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// standing is a controller that stands by, with probers in three datacenters at another server, and so many checks of three probers each.
func standing(b testing.TB, checks int) *Controller {
	b.Helper()
	// Metrics are recorded as in a server.
	provider := metricsdk.NewMeterProvider(metricsdk.WithReader(metricsdk.NewManualReader()))
	c, err := New(Config{Server: "a"}, Deps{Log: slog.New(slog.DiscardHandler), Meter: provider.Meter("bench"), Tracer: tracenoop.Tracer{}})
	if err != nil {
		b.Fatal(err)
	}
	var events []store.Event
	var presences []*peerv1.Presence
	for _, d := range []string{"ams", "fra", "iad"} {
		rows := make([]byte, 2*4096)
		events = append(events,
			store.Event{Kind: store.KindEnrolment, Name: "probers/" + d + "-1", Value: &statev1.Enrolment{Name: "probers/" + d + "-1", Datacenter: d, Build: "1", Capabilities: []string{"tcp", "ipv4"}}},
			store.Event{Kind: store.KindTable, Name: d, Value: &statev1.PlacementTable{Datacenter: d, Epoch: 1, Probers: []string{d + "-1"}, Rows: rows}})
		presences = append(presences, &peerv1.Presence{Prober: d + "-1", BootId: "1", Since: timestamppb.Now()})
	}
	for i := range checks {
		name := fmt.Sprint("checks/c", i)
		events = append(events, store.Event{Kind: store.KindCheck, Name: name, ModRevision: int64(i + 1), Value: &meshv1.Check{
			Name: name, Uri: "tcp://example.com:443", Interval: durationpb.New(time.Minute), Timeout: durationpb.New(5 * time.Second), Probers: 3, Quorum: 2,
		}})
	}
	if err := c.follow(b.Context(), store.Batch{Snapshot: true, Events: events, Revision: int64(checks)}); err != nil {
		b.Fatal(err)
	}
	c.PeerPresences("servers/b", true, presences)
	return c
}

// BenchmarkRelayedVote is the cost of one vote that another server passed on, in batches of 100, of checks that are UP and stay so.
func BenchmarkRelayedVote(b *testing.B) {
	const checks = 10_000
	c := standing(b, checks)
	revision := map[string]int64{}
	for _, a := range c.Difference("fra-1", nil).Upserts {
		revision[a.GetCheck().GetName()] = a.GetCheck().GetRevision()
	}
	if len(revision) != checks {
		b.Fatalf("%d of %d checks are placed", len(revision), checks)
	}
	batch := make([]*meshv1.Result, 100)
	at := time.Now().Add(-time.Minute)
	make100 := func(n int) {
		for i := range batch {
			v := n + i
			name := fmt.Sprint("checks/c", v/3%checks)
			batch[i] = &meshv1.Result{
				Prober: []string{"probers/ams-1", "probers/fra-1", "probers/iad-1"}[v%3], Check: name, CheckRevision: revision[name], Outcome: meshv1.Result_OK,
				StartTime: timestamppb.New(at.Add(time.Duration(v/3/checks) * time.Second)), Duration: durationpb.New(time.Millisecond),
			}
		}
	}
	for n := 0; n < 3*checks; n += 100 {
		make100(n)
		c.PeerVotes("servers/b", batch)
	}
	if c.mind.Counters.Votes != 3*checks {
		b.Fatalf("%+v", c.mind.Counters)
	}
	b.ReportAllocs()
	n, left := 3*checks, 0
	for b.Loop() {
		if left == 0 {
			b.StopTimer()
			make100(n)
			n, left = n+100, 100
			b.StartTimer()
			c.PeerVotes("servers/b", batch)
		}
		left--
	}
}

// BenchmarkPresenceTable is the memory of one prober's presence, of which every server keeps all.
func BenchmarkPresenceTable(b *testing.B) {
	const probers = 10_000
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		p := newPresences()
		for i := range probers {
			said := &peerv1.Presence{
				Prober: fmt.Sprint("prober-", i), BootId: fmt.Sprintf("%032d", i), Since: timestamppb.Now(), ClockOffset: durationpb.New(1), RoundTripTime: durationpb.New(1),
			}
			p.put(said.GetProber(), held{server: "servers/b", boot: said.GetBootId(), since: said.GetSince().AsTime(), said: said})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(p)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/probers, "B/prober")
}
