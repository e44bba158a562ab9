package history

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is a log that tests read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// openTest opens a history that is closed with the test.
func openTest(t testing.TB, c Config, d Dependencies) *History {
	t.Helper()
	if c.Dir == "" {
		c.Dir = filepath.Join(t.TempDir(), "history")
	}
	h, err := Open(c, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return h
}

// client is a gRPC client of h's HistoryService over a real connection.
func client(t *testing.T, h *History) meshv1.HistoryServiceClient {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	h.Register(g)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); g.Stop(); <-served })
	return meshv1.NewHistoryServiceClient(conn)
}

// httpOK is a result of an https check of prober at the moment at.
func httpOK(prober string, at time.Time, took time.Duration) Entry {
	return Entry{
		Prober: prober, Datacenter: "fra", URI: "https://shop.example.com/",
		Result: &meshv1.Result{
			Check: "checks/shop", StartTime: timestamppb.New(at), Duration: durationpb.New(took), Outcome: meshv1.Result_OK, CheckRevision: 7,
			RemoteAddress: "192.0.2.7:443",
			Timings: &meshv1.Timings{
				Resolve: durationpb.New(time.Millisecond), Connect: durationpb.New(2 * time.Millisecond), Handshake: durationpb.New(3 * time.Millisecond),
				Processing: durationpb.New(4 * time.Millisecond), Transfer: durationpb.New(5 * time.Millisecond),
			},
			Http: &meshv1.HttpResult{Status: 200, Version: "1.1", Redirects: 1, BodyBytes: 512, ContentLength: -1},
			Tls: &meshv1.TlsResult{Version: "1.3", Cipher: "TLS_AES_128_GCM_SHA256", EarliestExpiry: timestamppb.New(time.Unix(2_000_000_000, 0)),
				ChainExpiry: timestamppb.New(time.Unix(2_100_000_000, 0))},
		},
	}
}

func with(e Entry, change func(*Entry)) Entry {
	change(&e)
	return e
}

// copyTree copies a directory as a killed process would leave it: without Close.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// now is the present on a whole second: tests compare stored times to the millisecond.
func now() time.Time { return time.Now().Truncate(time.Second) }

func query(t *testing.T, h *History, r *meshv1.QueryRangeRequest) map[string][]string {
	t.Helper()
	answer, err := client(t, h).QueryRange(t.Context(), r)
	if err != nil {
		t.Fatalf("QueryRange: %v", err)
	}
	out := map[string][]string{}
	for _, s := range answer.Series {
		for _, p := range s.Points {
			out[s.Prober] = append(out[s.Prober], fmt.Sprintf("%d=%g", p.Time.AsTime().UnixMilli(), p.Value))
		}
	}
	return out
}

// instant evaluates a PromQL expression at one moment and gives the series found, with their values.
func instant(t *testing.T, h *History, expr string, at time.Time) []string {
	t.Helper()
	var out []string
	err := h.ask(t.Context(), "grpc", func(ctx context.Context, st *store) error {
		q, err := st.engine.NewInstantQuery(ctx, st.db, nil, expr, at)
		if err != nil {
			return err
		}
		defer q.Close()
		v, err := q.Exec(ctx).Vector()
		for _, s := range v {
			out = append(out, s.String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
