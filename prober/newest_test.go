package prober

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/spool"
	"github.com/probemesh/probemesh/prober/clock"
	"github.com/probemesh/probemesh/prober/link"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// answering is a target that answers at once.
type answering struct{}

func (answering) Probe(context.Context, probe.Options) *meshv1.Result {
	return &meshv1.Result{Check: "checks/shop", Outcome: meshv1.Result_OK}
}

func (answering) Close() {}

// A session that begins sends the newest results as they are while probes go on: what it was given must not change any more. The race detector is the judge.
func TestNewestResultsDoNotChangeOnceShown(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	results, err := spool.Open(spool.Config{Dir: t.TempDir(), Boot: "b"}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer results.Close()
	m, err := newMetrics(metricnoop.Meter{})
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{clock: clock.New(), spool: results, metrics: m, tracer: tracenoop.Tracer{}, log: log, jobs: map[string]*job{}}
	a.link = link.New(link.Config{Servers: []string{"nowhere:1"}, Book: t.TempDir() + "/book"}, nil, a.clock, results, log)
	j := &job{
		check: "checks/shop", runner: answering{}, kind: "tcp", interval: time.Minute, timeout: 10 * time.Second,
	}
	a.jobs["checks/shop"] = j
	var probing sync.WaitGroup
	probing.Go(func() {
		for range 2000 {
			a.conduct(t.Context(), j, order{})
		}
	})
	for range 2000 {
		for _, r := range a.Newest() {
			if _, err := proto.Marshal(r); err != nil {
				t.Error(err)
			}
			if r.GetSequence() == 0 {
				t.Fatal("a result without its number was shown")
			}
		}
	}
	probing.Wait()
}
