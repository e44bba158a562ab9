package notify_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/notify"
)

// got is a request as the receiver saw it.
type got struct {
	method string
	header http.Header
	host   string
	body   []byte
}

// listen serves with h after noting the request.
func listen(t *testing.T, h http.HandlerFunc) (*httptest.Server, <-chan got) {
	t.Helper()
	seen := make(chan got, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		seen <- got{r.Method, r.Header, r.Host, b}
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s, seen
}

func webhook(t *testing.T) *notify.Webhook {
	w := notify.NewWebhook("probemesh/test")
	t.Cleanup(w.Close)
	return w
}

func to(url string) *meshv1.Receiver {
	return &meshv1.Receiver{Name: "receivers/r", Webhook: &meshv1.Webhook{Url: url, Timeout: durationpb.New(5 * time.Second)}}
}

func note() *meshv1.Notification {
	return &meshv1.Notification{Incident: "incidents/1", Transition: meshv1.Notification_OPENED, Check: "checks/a", Verdict: meshv1.CheckStatus_DOWN,
		StartTime: timestamppb.New(time.Unix(1_700_000_000, 0)), Summary: "down", Evidence: []*meshv1.Vote{{Prober: "probers/p"}}}
}

func TestBodyIsTheNotificationWithEveryDocumentedField(t *testing.T) {
	s, seen := listen(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	r := to(s.URL + "/hook")
	r.Webhook.Headers = map[string]string{"Authorization": "Bearer x", "Host": "virtual.example.com", "idempotency-key": "mine"}
	r.Webhook.SigningKey = "secret"
	ctx, span := sdktrace.NewTracerProvider().Tracer("t").Start(t.Context(), "test")
	defer span.End()
	a := webhook(t).Send(ctx, r, note(), "1.OPENED.r")
	if !a.Delivered || a.Status != 202 || a.Error != "" {
		t.Fatalf("%+v", a)
	}
	g := <-seen
	if g.method != "POST" || g.host != "virtual.example.com" {
		t.Errorf("%s, host %s", g.method, g.host)
	}
	mac := hmac.New(sha256.New, []byte("secret"))
	mac.Write(g.body)
	for name, want := range map[string]string{"Content-Type": "application/json", "User-Agent": "probemesh/test", "Authorization": "Bearer x",
		"Idempotency-Key": "1.OPENED.r", "Probemesh-Signature": "sha256=" + hex.EncodeToString(mac.Sum(nil))} {
		if v := g.header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if tp := g.header.Get("Traceparent"); !strings.Contains(tp, span.SpanContext().TraceID().String()) {
		t.Errorf("traceparent %q", tp)
	}
	var fields map[string]any
	if err := json.Unmarshal(g.body, &fields); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"incident", "transition", "check", "uri", "verdict", "reason", "start_time", "end_time", "evidence", "summary", "trace_id"} {
		if _, ok := fields[f]; !ok {
			t.Errorf("%s is missing", f)
		}
	}
	if fields["transition"] != "OPENED" || fields["end_time"] != nil || fields["verdict"] != "DOWN" {
		t.Errorf("%v", fields)
	}
	back := &meshv1.Notification{}
	if err := protojson.Unmarshal(g.body, back); err != nil || !proto.Equal(back, note()) {
		t.Errorf("%v, %v", back, err)
	}
}

func TestAnswersAreClassified(t *testing.T) {
	for _, c := range []struct {
		status    int
		after     string
		temporary bool
		delivered bool
		wait      time.Duration
	}{
		{200, "", false, true, 0}, {204, "", false, true, 0}, {400, "", false, false, 0}, {401, "", false, false, 0}, {404, "", false, false, 0},
		{408, "", true, false, 0}, {425, "", true, false, 0}, {429, "7", true, false, 7 * time.Second}, {500, "", true, false, 0},
		{503, "99999999", true, false, 10 * time.Minute}, {503, "soon", true, false, 0}, {503, "-5", true, false, 0},
	} {
		s, _ := listen(t, func(w http.ResponseWriter, _ *http.Request) {
			if c.after != "" {
				w.Header().Set("Retry-After", c.after)
			}
			w.WriteHeader(c.status)
			if c.status != 204 {
				_, _ = io.WriteString(w, "why\n\n it failed")
			}
		})
		a := webhook(t).Send(t.Context(), to(s.URL), note(), "k")
		if a.Status != c.status || a.Temporary != c.temporary || a.Delivered != c.delivered || a.RetryAfter != c.wait {
			t.Errorf("%d %q: %+v", c.status, c.after, a)
		}
		if !c.delivered && !strings.HasSuffix(a.Error, ": why it failed") {
			t.Errorf("%d: %q", c.status, a.Error)
		}
	}
}

func TestRetryAfterMayBeADate(t *testing.T) {
	s, _ := listen(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", time.Now().Add(90*time.Second).UTC().Format(http.TimeFormat))
		w.WriteHeader(503)
	})
	if a := webhook(t).Send(t.Context(), to(s.URL), note(), "k"); a.RetryAfter < 80*time.Second || a.RetryAfter > 90*time.Second {
		t.Fatalf("%+v", a)
	}
}

func TestRedirectsStayOnTheHostAndKeepThePost(t *testing.T) {
	other, stolen := listen(t, func(http.ResponseWriter, *http.Request) {})
	var target string
	status := http.StatusTemporaryRedirect
	s, seen := listen(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, target, status)
		}
	})
	target = other.URL
	if a := webhook(t).Send(t.Context(), to(s.URL), note(), "k"); a.Delivered || a.Status != 307 || a.Temporary || !strings.Contains(a.Error, "redirect") {
		t.Fatalf("to another host: %+v", a)
	}
	if len(stolen) != 0 {
		t.Fatal("the notification went to another host")
	}
	target, status = "/there", http.StatusFound
	if a := webhook(t).Send(t.Context(), to(s.URL), note(), "k"); a.Delivered {
		t.Fatalf("a redirect that would drop the body counts as delivered: %+v", a)
	}
	status = http.StatusPermanentRedirect
	for len(seen) > 0 {
		<-seen
	}
	if a := webhook(t).Send(t.Context(), to(s.URL), note(), "k"); !a.Delivered {
		t.Fatalf("%+v", a)
	}
	<-seen
	if g := <-seen; g.method != "POST" || len(g.body) == 0 {
		t.Fatalf("%s with %d bytes", g.method, len(g.body))
	}
}

func TestOwnRootsAreTrustedAndOthersAreNot(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	w := webhook(t)
	if a := w.Send(t.Context(), to(s.URL), note(), "k"); a.Delivered || !a.Temporary || !strings.Contains(a.Error, "certificate") {
		t.Fatalf("%+v", a)
	}
	r := to(s.URL)
	r.Webhook.CaPem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	if a := w.Send(t.Context(), r, note(), "k"); !a.Delivered {
		t.Fatalf("%+v", a)
	}
	r.Webhook.CaPem = "nonsense"
	if a := w.Send(t.Context(), r, note(), "k"); a.Delivered || a.Temporary || !strings.Contains(a.Error, "ca_pem") {
		t.Fatalf("%+v", a)
	}
}

func TestSilentAndAbsentReceiversAreTemporary(t *testing.T) {
	hold := make(chan struct{})
	s, _ := listen(t, func(http.ResponseWriter, *http.Request) { <-hold })
	defer close(hold)
	r := to(s.URL + "/secret-token")
	r.Webhook.Timeout = durationpb.New(50 * time.Millisecond)
	a := webhook(t).Send(t.Context(), r, note(), "k")
	if a.Delivered || !a.Temporary || a.Error != "no answer within 50ms" {
		t.Fatalf("%+v", a)
	}
	a = webhook(t).Send(t.Context(), to("http://127.0.0.1:1/secret-token"), note(), "k")
	if a.Delivered || !a.Temporary || !strings.Contains(a.Error, "refused") || strings.Contains(a.Error, "secret") {
		t.Fatalf("%+v", a)
	}
}

func TestOnlyTheBeginningOfALongAnswerIsRead(t *testing.T) {
	s, _ := listen(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(500)
		_, _ = w.Write([]byte(strings.Repeat("x", 10<<20)))
	})
	a := webhook(t).Send(t.Context(), to(s.URL), note(), "k")
	if len(a.Error) > 300 || a.Status != 500 {
		t.Fatalf("%d bytes of error", len(a.Error))
	}
}

func TestTestIsSentOnceAndToldOf(t *testing.T) {
	s, seen := listen(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) })
	n := notify.New(nil, webhook(t), notify.Config{})
	r := n.SendTest(t.Context(), to(s.URL))
	if r.Delivered || r.Status != 418 || r.Error == "" || r.Duration.AsDuration() <= 0 {
		t.Fatalf("%v", r)
	}
	body := &meshv1.Notification{}
	if err := protojson.Unmarshal((<-seen).body, body); err != nil || body.Transition != meshv1.Notification_TEST {
		t.Fatalf("%v, %v", body, err)
	}
	if len(seen) != 0 {
		t.Fatal("sent more than once")
	}
	if r = n.SendTest(t.Context(), &meshv1.Receiver{Name: "receivers/x"}); r.Delivered || r.Error == "" {
		t.Fatalf("%v", r)
	}
}
