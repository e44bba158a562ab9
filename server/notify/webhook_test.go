package notify

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestRequestHasTheDocumentedHeaders(t *testing.T) {
	e := listen(t, httptest.NewServer, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	a := hooks(t).send(t.Context(), to(e.URL+"/hook?token=1", func(w *meshv1.Webhook) {
		w.Headers = map[string]string{"Authorization": "Bearer x", "Content-Type": "text/plain", "idempotency-key": "mine", "Host": "ops.internal"}
	}), sample())
	if a.outcome != delivered || a.status != 204 || a.statusText != "204 No Content" {
		t.Fatalf("answer %+v, want delivered by 204", a)
	}
	got := e.requests()[0]
	if got.method != http.MethodPost || got.path != "/hook" || got.host != "ops.internal" {
		t.Errorf("got %s %s for host %s", got.method, got.path, got.host)
	}
	for k, want := range map[string]string{
		"Idempotency-Key": "01k.OPENED.ops", "Content-Type": "application/json", "User-Agent": "probemesh/dev", "Authorization": "Bearer x",
		"Probemesh-Signature": "", "Traceparent": "",
	} {
		if v := got.header.Get(k); v != want || len(got.header.Values(k)) > 1 {
			t.Errorf("header %s is %q, want %q once", k, got.header.Values(k), want)
		}
	}
}

func TestErrorsAreSentencesWithoutThePathOfTheWebhook(t *testing.T) {
	e := listen(t, httptest.NewServer, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			w.Header().Set("Retry-After", "17")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "\n  over\tloaded\x00\x1b[31m \nsecond line")
		case "/gone":
			w.Header().Set("Retry-After", "17")
			w.WriteHeader(http.StatusGone)
		case "/long":
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
		case "/slow":
			<-r.Context().Done()
		}
	})
	for path, want := range map[string]answer{
		"/busy": {outcome: unavailable, status: 503, retryAfter: 17 * time.Second, err: "503 Service Unavailable: over loaded[31m"},
		"/gone": {outcome: refused, status: 410, err: "410 Gone"},
		"/long": {outcome: unavailable, status: 500, err: "500 Internal Server Error: " + strings.Repeat("x", maxQuoted) + "..."},
		"/slow": {outcome: timeout, err: "no answer within 50ms"},
	} {
		r := to(e.URL + path)
		if path == "/slow" {
			r.Webhook.Timeout = durationpb.New(50 * time.Millisecond)
		}
		got := hooks(t).send(t.Context(), r, sample())
		got.statusText, want.err = "", "POST "+e.URL+": "+want.err
		if got != want {
			t.Errorf("%s: answer\n%+v\nwant\n%+v", path, got, want)
		}
	}
}

func TestReceiverThatCannotBeReachedIsAFailureOfTheNetwork(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	a := hooks(t).send(t.Context(), to(closed.URL+"/secret"), sample())
	if a.outcome != network || !strings.Contains(a.err, "connection refused") || strings.Contains(a.err, "secret") {
		t.Errorf("answer %+v, want a refused connection, without the path", a)
	}
	e := listen(t, httptest.NewServer, func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			c.Close()
		}
	})
	if a := hooks(t).send(t.Context(), to(e.URL), sample()); a.outcome != network || !strings.HasPrefix(a.err, "POST "+e.URL+": ") {
		t.Errorf("a connection closed without an answer: %+v", a)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() { // does not speak HTTP
		defer close(done)
		if c, err := l.Accept(); err == nil {
			_, _ = c.Read(make([]byte, 1))
			_, _ = c.Write([]byte("220 mail ready\r\n"))
			c.Close()
		}
	}()
	if a := hooks(t).send(t.Context(), to("http://"+l.Addr().String()), sample()); a.outcome != network {
		t.Errorf("a peer that does not speak HTTP: %+v", a)
	}
	<-done
}

func TestReceiverToWhichNothingCanBeSentIsRefused(t *testing.T) {
	for want, r := range map[string]*meshv1.Receiver{
		"nothing can be sent to receivers/ops: it has no webhook":                                      {Name: "receivers/ops"},
		"nothing can be sent to receivers/ops: its webhook.url cannot be parsed":                       to("http://[::1"),
		"nothing can be sent to receivers/ops: its webhook.ca_pem has no certificate that can be read": to("https://x", func(w *meshv1.Webhook) { w.CaPem = "nonsense" }),
	} {
		if a := hooks(t).send(t.Context(), r, sample()); a.outcome != refused || a.err != want {
			t.Errorf("answer %+v, want %q", a, want)
		}
	}
}

func TestRedirectsAreFollowedOnlyAsPostAndOnlyWithinTheHost(t *testing.T) {
	other := listen(t, httptest.NewServer, nil)
	e := listen(t, httptest.NewServer, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/final", http.StatusPermanentRedirect)
		case "/get":
			http.Redirect(w, r, "/final", http.StatusFound)
		case "/other":
			http.Redirect(w, r, other.URL+"/secret", http.StatusPermanentRedirect)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
		}
	})
	w := hooks(t)
	if a := w.send(t.Context(), to(e.URL+"/moved"), sample()); a.outcome != delivered {
		t.Errorf("308 within the host: %+v", a)
	}
	got := e.requests()
	if last := got[len(got)-1]; last.path != "/final" || last.method != http.MethodPost || len(last.body) == 0 || last.header.Get("Idempotency-Key") == "" {
		t.Errorf("followed with %s %s and %d bytes", last.method, last.path, len(last.body))
	}
	for path, want := range map[string]string{
		"/get":   "POST " + e.URL + ": 302 Found to " + e.URL + ", which is not followed; set webhook.url to where notifications belong",
		"/other": "POST " + e.URL + ": 308 Permanent Redirect to " + other.URL + ", which is not followed; set webhook.url to where notifications belong",
		"/loop":  "POST " + e.URL + ": 307 Temporary Redirect to " + e.URL + ", which is not followed; set webhook.url to where notifications belong",
	} {
		if a := w.send(t.Context(), to(e.URL+path), sample()); a.outcome != refused || a.err != want {
			t.Errorf("%s: %+v, want %q", path, a, want)
		}
	}
	if n := len(other.requests()); n != 0 {
		t.Errorf("the other host got %d requests", n)
	}
}

func TestOnlyTheGivenCertificatesAreTrusted(t *testing.T) {
	e := listen(t, func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		return s
	}, nil)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate().Raw}))
	w := hooks(t)
	if a := w.send(t.Context(), to(e.URL, func(h *meshv1.Webhook) { h.CaPem = ca }), sample()); a.outcome != delivered {
		t.Errorf("with its CA: %+v", a)
	}
	if a := w.send(t.Context(), to(e.URL), sample()); a.outcome != network || !strings.Contains(a.err, "certificate") {
		t.Errorf("without its CA: %+v, want a failure that speaks of the certificate", a)
	}
	if n := len(e.requests()); n != 1 {
		t.Errorf("%d requests arrived, want 1", n)
	}
	for i := range 3 * maxTransports {
		if _, err := w.pool(ca + strings.Repeat("\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.pools) > maxTransports {
		t.Errorf("%d pools are kept, want at most %d", len(w.pools), maxTransports)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	var conns atomic.Int32
	e := listen(t, func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				conns.Add(1)
			}
		}
		s.Start()
		return s
	}, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "thanks") })
	w := hooks(t)
	for range 20 {
		w.send(t.Context(), to(e.URL), sample())
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("20 notifications took %d connections, want 1", n)
	}
}

func TestTestSaysWhatTheReceiverAnswered(t *testing.T) {
	var status atomic.Int32
	status.Store(http.StatusAccepted)
	e := listen(t, httptest.NewServer, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
	n, err := New(newFakeStore(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.sender.idle)
	if r := n.SendTest(t.Context(), to(e.URL)); !r.Delivered || r.Error != "" || r.Status != 202 || r.Duration.AsDuration() <= 0 {
		t.Errorf("response %v, want delivered", r)
	}
	status.Store(http.StatusUnauthorized)
	if r := n.SendTest(t.Context(), to(e.URL)); r.Delivered || r.Status != 401 || !strings.HasSuffix(r.Error, "401 Unauthorized") {
		t.Errorf("response %v, want the refusal", r)
	}
	got := e.requests()
	var sent struct{ Transition, Incident, Receiver, Summary string }
	if err := json.Unmarshal(got[0].body, &sent); err != nil {
		t.Fatal(err)
	}
	if sent.Transition != "TEST" || sent.Incident != "" || sent.Receiver != "receivers/ops" || sent.Summary == "" {
		t.Errorf("sent %+v", sent)
	}
	if a, b := got[0].header.Get("Idempotency-Key"), got[1].header.Get("Idempotency-Key"); a == b || !strings.HasSuffix(a, ".TEST.ops") {
		t.Errorf("keys %q and %q, want each its own", a, b)
	}
}

func TestSpanContinuesTheTraceOfTheDecisionAndTheReceiverIsTold(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	e := listen(t, httptest.NewServer, nil)
	n, err := New(newFakeStore(), Config{Tracer: provider.Tracer("test")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.sender.idle)
	m := sample()
	n.attempt(t.Context(), to(e.URL), m)
	got := spans.Ended()
	if len(got) != 1 || got[0].SpanContext().TraceID().String() != m.notification.TraceId {
		t.Fatalf("spans %v, want one in trace %s", got, m.notification.TraceId)
	}
	want := "00-" + m.notification.TraceId + "-" + got[0].SpanContext().SpanID().String() + "-01"
	if tp := e.requests()[0].header.Get("Traceparent"); tp != want {
		t.Errorf("traceparent %q, want %q", tp, want)
	}
	m.notification.TraceId = "not a trace"
	if a := n.attempt(t.Context(), to(e.URL), m); a.outcome != delivered {
		t.Errorf("an invalid trace id is in the way: %+v", a)
	}
}
