package notify

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// wire is one request as a receiver got it.
type wire struct {
	method, path, host string
	header             http.Header
	body               []byte
}

// endpoint is a receiver on a real socket.
type endpoint struct {
	*httptest.Server
	mu  sync.Mutex
	got []wire
}

func (e *endpoint) requests() []wire {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.got)
}

// listen starts an endpoint; answer, if any, is asked after the request was noted.
func listen(t *testing.T, start func(http.Handler) *httptest.Server, answer http.HandlerFunc) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.Server = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		e.got = append(e.got, wire{r.Method, r.URL.Path, r.Host, r.Header.Clone(), b})
		e.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(e.Close)
	return e
}

func hooks(t *testing.T) *webhooks {
	w := newWebhooks((&net.Dialer{}).DialContext)
	t.Cleanup(w.idle)
	return w
}

func to(url string, edit ...func(*meshv1.Webhook)) *meshv1.Receiver {
	r := &meshv1.Receiver{Name: "receivers/ops", Webhook: &meshv1.Webhook{Url: url}}
	for _, e := range edit {
		e(r.Webhook)
	}
	return r
}

func sample() message {
	at := func(s int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(1_790_000_000+s, 0)) }
	return message{key: "01k.OPENED.ops", notification: &meshv1.Notification{
		Incident: "incidents/01k", Transition: meshv1.Notification_OPENED, Check: "checks/shop", Uri: "https://shop.example.com/health",
		Verdict: meshv1.CheckStatus_DOWN, Reason: meshv1.CheckStatus_QUORUM_DOWN, StartTime: at(0), DecideTime: at(7),
		Summary: "shop is DOWN: 3 of 3 datacenters see it fail.", TraceId: "0af7651916cd43dd8448eb211c80319c", Receiver: "receivers/ops", Attempt: 1,
		Labels: map[string]string{"team": "payments"},
		Evidence: []*meshv1.Vote{{Prober: "probers/fra-1", Datacenter: "fra", Domains: map[string]string{"datacenter": "fra", "build": "1.2.3"},
			Outcome: meshv1.Result_FAIL, Error: "connection refused", StartTime: at(1), Duration: durationpb.New(3 * time.Millisecond), Fresh: true, Streak: 1}},
	}}
}
