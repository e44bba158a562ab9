package controller

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	"github.com/probemesh/probemesh/server/store"
)

// Two servers of one name hide each other: each takes the leader's record for its own. The one that was there first says so; a record of its own former life is
// no rival.
func TestASecondServerOfTheSameNameIsNoticed(t *testing.T) {
	var said bytes.Buffer
	c, err := New(Config{Server: "a", BootID: "mine"}, Deps{Log: slog.New(slog.NewTextHandler(&said, nil)), Meter: noop.Meter{}, Tracer: tracenoop.Tracer{}})
	if err != nil {
		t.Fatal(err)
	}
	see := func(snapshot bool, boot string) {
		t.Helper()
		r := &statev1.ServerRecord{Name: "servers/a", BootId: boot, GrpcAddress: boot + ":7700"}
		if err := c.follow(t.Context(), store.Batch{Snapshot: snapshot, Events: []store.Event{{Kind: store.KindServer, Name: r.Name, Value: r}}}); err != nil {
			t.Fatal(err)
		}
	}
	see(true, "former")
	see(false, "mine")
	see(false, "mine")
	if said.Len() > 0 {
		t.Fatalf("a lone server says %s", said.String())
	}
	see(false, "other")
	see(false, "other")
	if n := strings.Count(said.String(), "another server has taken"); n != 1 || !strings.Contains(said.String(), "other:7700") {
		t.Fatalf("said %d times: %s", n, said.String())
	}
}
