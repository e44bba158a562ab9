package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/etcdfake"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
	"github.com/probemesh/probemesh/server/store/embedded"
)

// backend is an etcd that a test runs on.
type backend struct {
	client  *clientv3.Client
	fake    *etcdfake.Server // nil on the real thing
	restart func()
}

// onBoth runs a test on the fake, in a bubble, and on a real member.
func onBoth(t *testing.T, f func(t *testing.T, b *backend)) {
	t.Run("fake", func(t *testing.T) { onFake(t, f) })
	t.Run("etcd", func(t *testing.T) { f(t, realBackend(t)) })
}

// onFake runs a test that needs faults, on the fake only.
func onFake(t *testing.T, f func(t *testing.T, b *backend)) {
	synctest.Test(t, func(t *testing.T) {
		fake := etcdfake.New(t)
		f(t, &backend{client: fake.Client(t), fake: fake, restart: func() { fake.Stop(); fake.Start() }})
	})
}

func realBackend(t *testing.T) *backend {
	t.Helper()
	cfg := embedded.Config{Dir: t.TempDir(), ListenClient: "http://127.0.0.1:0"}
	var m *embedded.Member
	start := func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var err error
		if m, err = embedded.Start(ctx, cfg); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	client, err := store.Connect(m.Endpoints(), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return &backend{client: client, restart: func() {
		cfg.ListenClient = "http://" + m.Endpoints()[0]
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		start()
	}}
}

func (b *backend) store(o store.Options) *store.Store { return store.New(b.client, o) }

// reign makes this test the leader, as package election does.
func (b *backend) reign(t *testing.T, term int64) store.Fence {
	t.Helper()
	if _, err := b.client.Delete(t.Context(), store.LeaderKey); err != nil {
		t.Fatal(err)
	}
	r, err := b.client.Put(t.Context(), store.LeaderKey, "")
	if err != nil {
		t.Fatal(err)
	}
	return store.Fence{Key: store.LeaderKey, CreateRevision: r.Header.Revision, Term: term}
}

func (b *backend) compact(t *testing.T) {
	t.Helper()
	r, err := b.client.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.client.Compact(t.Context(), r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
}

func newCheck(id string) *meshv1.Check {
	return &meshv1.Check{Name: "checks/" + id, Uri: "tcp://" + id + ".example.com:80", Labels: map[string]string{"a": "1", "b": "2"}}
}

func newIncident(n int, check string) *statev1.StoredIncident {
	return &statev1.StoredIncident{Incident: &meshv1.Incident{Name: fmt.Sprintf("incidents/%026d", n), Kind: meshv1.Incident_CHECK, Check: check,
		State: meshv1.Incident_OPEN, OpenTime: timestamppb.New(time.Unix(1_700_000_000, 0))}}
}

func owed(inc *statev1.StoredIncident, transition, receiver string) *statev1.OutboxEntry {
	id := inc.Incident.Name[len("incidents/"):] + "." + transition + "." + receiver
	return &statev1.OutboxEntry{Id: id, Notification: &meshv1.Notification{Incident: inc.Incident.Name, Receiver: "receivers/" + receiver}}
}

// ok fails the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// follow runs Follow until the test ends and gives its batches.
func follow(t *testing.T, s *store.Store) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{batches: make(chan store.Batch, 1000), done: make(chan error, 1)}
	go func() {
		f.done <- s.Follow(ctx, func(_ context.Context, b store.Batch) error {
			f.batches <- b
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-f.done; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow ended with %v", err)
		}
	})
	return f
}

type follower struct {
	batches chan store.Batch
	done    chan error
}

// next is the next batch that says something.
func (f *follower) next(t *testing.T) store.Batch {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case b := <-f.batches:
			if b.Snapshot || len(b.Events) > 0 {
				return b
			}
		case <-timeout:
			t.Fatal("nothing came within a minute")
		}
	}
}

// quiet fails the test if anything is told within d.
func (f *follower) quiet(t *testing.T, d time.Duration) {
	t.Helper()
	timeout := time.After(d)
	for {
		select {
		case b := <-f.batches:
			if b.Snapshot || len(b.Events) > 0 {
				t.Fatalf("told of %s", describe(b))
			}
		case <-timeout:
			return
		}
	}
}

// describe is a batch as one line: "snapshot check checks/a, -check checks/b".
func describe(b store.Batch) string {
	out := ""
	if b.Snapshot {
		out = "snapshot"
	}
	for _, e := range b.Events {
		gone := ""
		if e.Value == nil {
			gone = "-"
		}
		if out != "" {
			out += " "
		}
		out += gone + string(e.Kind) + ":" + e.Name
	}
	return out
}

func wantBatch(t *testing.T, b store.Batch, want string) {
	t.Helper()
	if got := describe(b); got != want {
		t.Fatalf("told of %q, want %q", got, want)
	}
}
