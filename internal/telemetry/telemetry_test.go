package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

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

func environment(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

func TestSpansAndMetricsArriveAtTheCollectorThatTheEnvironmentNames(t *testing.T) {
	s := startSink(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.address)
	t.Setenv("OTEL_SERVICE_NAME", "renamed")
	tel, err := Setup(t.Context(), Config{Service: "probemesh-server", Version: "1.2.3", Instance: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if !tel.Tracing() {
		t.Error("Tracing() = false although an endpoint is set")
	}
	_, span := tel.Tracer("test").Start(t.Context(), "decide")
	span.End()
	c, err := tel.Meter("test").Int64Counter("probemesh_test_total")
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 3)
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
	if !s.spanNames()["decide"] {
		t.Errorf("the collector has spans %v, want decide", s.spanNames())
	}
	if !s.services["renamed"] {
		t.Errorf("the collector has services %v, want the one of OTEL_SERVICE_NAME", s.services)
	}
	if !s.metrics["probemesh_test_total"] || !s.metrics["probemesh_build_info"] {
		t.Errorf("the collector has metrics %v", s.metrics)
	}
}

// sessions answers every session with its end.
type sessions struct {
	meshv1.UnimplementedSessionServiceServer
	meshv1.UnimplementedServerServiceServer
}

func (sessions) Session(grpc.BidiStreamingServer[meshv1.ProberMessage, meshv1.ServerMessage]) error {
	return nil
}

func TestSessionsAndHealthChecksAreNotTraced(t *testing.T) {
	s := startSink(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.address)
	tel, err := Setup(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(tel.ServerOption())
	meshv1.RegisterSessionServiceServer(g, sessions{})
	meshv1.RegisterServerServiceServer(g, sessions{})
	healthpb.RegisterHealthServer(g, health.NewServer())
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(l) }()
	defer func() { g.Stop(); <-served }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), tel.DialOption())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	stream, err := meshv1.NewSessionServiceClient(conn).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Fatal("the session did not end")
	}
	_, _ = meshv1.NewServerServiceClient(conn).ListServers(t.Context(), &meshv1.ListServersRequest{})
	g.GracefulStop()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	names := s.spanNames()
	if !names["probemesh.v1.ServerService/ListServers"] {
		t.Errorf("spans %v, want one of ListServers", names)
	}
	for n := range names {
		if strings.Contains(n, "Session/") || strings.Contains(n, "SessionService") || strings.Contains(n, "Health") {
			t.Errorf("span %q should have been left out", n)
		}
	}
	// Both ends of the one traced call belong to one trace: the context has travelled.
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.spans) != 2 || !bytes.Equal(s.spans[0].TraceId, s.spans[1].TraceId) {
		t.Errorf("spans %v, want two of one trace", s.spans)
	}
}

func TestTheMetricsPageShowsInstrumentsUnderTheirOwnNames(t *testing.T) {
	tel, err := setup(t.Context(), Config{Service: "probemesh-prober", Version: "9"}, environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Shutdown(t.Context())
	c, _ := tel.Meter("a").Int64Counter("probemesh_things_total")
	c.Add(t.Context(), 2)
	h, _ := tel.Meter("a").Float64Histogram("probemesh_wait_seconds", metric.WithUnit("s"))
	h.Record(t.Context(), 0.003)
	page := read(t, tel)
	for _, want := range []string{
		"\nprobemesh_things_total 2\n", `probemesh_wait_seconds_bucket{le="0.005"} 1`, `probemesh_build_info{service="probemesh-prober",version="9"} 1`,
		"\ngo_goroutines ", "\nprocess_start_time_seconds ",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "_total_total") || strings.Contains(page, "_seconds_seconds") {
		t.Errorf("a suffix is doubled:\n%s", page)
	}
}

func read(t *testing.T, tel *Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return "\n" + w.Body.String()
}

func TestTheEnvironmentDecidesWhatIsExported(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	for _, c := range []struct {
		name            string
		env             map[string]string
		traces, metrics bool
		complaint       string
	}{
		{name: "nothing said"},
		{name: "one endpoint for all", env: map[string]string{endpoint: "http://x:4317"}, traces: true, metrics: true},
		{name: "an endpoint for metrics", env: map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x:4317"}, metrics: true},
		{name: "exporters named", env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "prometheus, otlp"}, traces: true, metrics: true},
		{name: "none wins over an endpoint", env: map[string]string{endpoint: "http://x:4317", "OTEL_TRACES_EXPORTER": "none"}, metrics: true},
		{name: "disabled wins over all", env: map[string]string{endpoint: "http://x:4317", "OTEL_SDK_DISABLED": "TRUE"}},
		{name: "unknown exporter", env: map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, complaint: `OTEL_TRACES_EXPORTER: exporter "zipkin" is not supported`},
		{name: "protocol over HTTP", env: map[string]string{endpoint: "http://x:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, complaint: `protocol "http/protobuf" is not supported`},
		{name: "a signal's own protocol wins", env: map[string]string{endpoint: "http://x:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
			"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, traces: true, complaint: `OTEL_EXPORTER_OTLP_PROTOCOL: protocol "http/json"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			gotTraces, err1 := exported(traces, environment(c.env))
			gotMetrics, err2 := exported(metrics, environment(c.env))
			if gotTraces != c.traces || gotMetrics != c.metrics {
				t.Errorf("traces %v metrics %v, want %v %v", gotTraces, gotMetrics, c.traces, c.metrics)
			}
			err := errors.Join(err1, err2)
			if c.complaint == "" && err != nil || c.complaint != "" && (err == nil || !strings.Contains(err.Error(), c.complaint)) {
				t.Errorf("complaint %v, want %q", err, c.complaint)
			}
		})
	}
}

func TestACollectorThatIsAwayIsLoggedOnceAMinuteAndCounted(t *testing.T) {
	tel, err := setup(t.Context(), Config{}, environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Shutdown(t.Context())
	counter, err := tel.Meter("other").Int64Counter("probemesh_test_failures_total")
	if err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	synctest.Test(t, func(t *testing.T) {
		f := &failures{signal: traces, log: slog.New(slog.NewTextHandler(log, nil))}
		f.countInto(counter)
		for range 90 { // 90 failures in 90 seconds
			f.count(t.Context(), errors.New("connection refused"))
			time.Sleep(time.Second)
		}
	})
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d log lines, want 2:\n%s", n, log)
	}
	if !strings.Contains(log.String(), "failures_since_last=60") {
		t.Errorf("the second line does not say how many went before:\n%s", log)
	}
	if !strings.Contains(read(t, tel), `probemesh_test_failures_total{signal="traces"} 90`) {
		t.Errorf("not all failures were counted:\n%s", read(t, tel))
	}
}

func TestShutdownEndsInTimeWhenTheCollectorIsAway(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	tel, err := Setup(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer("test").Start(t.Context(), "lost")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := tel.Shutdown(ctx); err == nil {
		t.Error("Shutdown does not say that a span was lost")
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("Shutdown took %v", d)
	}
}

func TestLoggersSayWhichFormatsAndLevelsThereAre(t *testing.T) {
	var b bytes.Buffer
	l, err := NewLogger(&b, "JSON", "warn")
	if err != nil {
		t.Fatal(err)
	}
	l.Info("quiet")
	l.Warn("check is down", KeyCheck, "checks/shop")
	if got := b.String(); strings.Contains(got, "quiet") || !strings.Contains(got, `"check":"checks/shop"`) {
		t.Errorf("log is %s", got)
	}
	if _, err := NewLogger(&b, "xml", ""); err == nil || !strings.Contains(err.Error(), "text or json") {
		t.Errorf("format xml: %v", err)
	}
	if _, err := NewLogger(&b, "", "loud"); err == nil || !strings.Contains(err.Error(), "debug, info, warn or error") {
		t.Errorf("level loud: %v", err)
	}
}
