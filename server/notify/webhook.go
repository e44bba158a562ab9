package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/version"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// maxAnswer is how much of an answer's body is read.
	maxAnswer = 4 << 10
	// maxQuoted is how many characters of its first line are quoted in errors.
	maxQuoted = 200
	// maxRedirects is how many redirects within one host are followed.
	maxRedirects = 3
	// maxTransports bounds the connection pools kept, one for each set of trusted certificates.
	maxTransports = 64
)

// webhooks sends by HTTP. Connections are kept for half a minute, so that a thousand incidents do not make a thousand handshakes. When a kept
// connection turns out to be broken before anything was answered, net/http repeats the request at once on a new one; the key is the same.
type webhooks struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	mu   sync.Mutex
	// pools are the transports by what they trust (Webhook.ca_pem, empty for the system's roots). Guarded by mu.
	pools map[string]*http.Transport
}

func newWebhooks(dial func(ctx context.Context, network, address string) (net.Conn, error)) *webhooks {
	return &webhooks{dial: dial, pools: map[string]*http.Transport{}}
}

func (w *webhooks) idle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.pools {
		t.CloseIdleConnections()
	}
}

// pool is the transport that trusts caPEM.
func (w *webhooks) pool(caPEM string) (*http.Transport, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.pools[caPEM]; t != nil {
		return t, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caPEM != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(caPEM)) {
			return nil, errors.New("its webhook.ca_pem has no certificate that can be read")
		}
	}
	if len(w.pools) >= maxTransports { // receivers were edited again and again: begin anew
		for _, t := range w.pools {
			t.CloseIdleConnections()
		}
		clear(w.pools)
	}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         w.dial,
		TLSClientConfig:     config,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: spec.MaxWebhookTimeout,
		MaxIdleConnsPerHost: 8,
		MaxIdleConns:        64,
		IdleConnTimeout:     30 * time.Second,
	}
	w.pools[caPEM] = t
	return t, nil
}

// send is one POST.
func (w *webhooks) send(ctx context.Context, r *meshv1.Receiver, m message) answer {
	hook := r.GetWebhook()
	limit := spec.DefaultWebhookTimeout
	if hook.GetTimeout() != nil {
		limit = hook.GetTimeout().AsDuration()
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := request(ctx, hook, m)
	if err != nil {
		return answer{outcome: refused, err: fmt.Sprintf("nothing can be sent to %s: %v", r.GetName(), err)}
	}
	pool, err := w.pool(hook.GetCaPem())
	if err != nil {
		return answer{outcome: refused, err: fmt.Sprintf("nothing can be sent to %s: %v", r.GetName(), err)}
	}
	client := &http.Client{Transport: pool, CheckRedirect: follow}
	resp, err := client.Do(req)
	if err != nil {
		return noAnswer(req.URL, err, limit)
	}
	defer resp.Body.Close()
	// The status is the answer; a body that breaks off changes nothing.
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return answered(req.URL, resp, text, time.Now())
}

// request is the POST, with the receiver's headers and then ours, which win, except for User-Agent.
func request(ctx context.Context, hook *meshv1.Webhook, m message) (*http.Request, error) {
	if hook == nil {
		return nil, errors.New("it has no webhook")
	}
	content, err := body(m.notification)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.GetUrl(), bytes.NewReader(content))
	if err != nil {
		return nil, errors.New("its webhook.url cannot be parsed")
	}
	req.Header.Set("User-Agent", "probemesh/"+version.Version)
	for k, v := range hook.GetHeaders() {
		if strings.EqualFold(k, "Host") {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", m.key)
	if hook.GetSigningKey() != "" {
		req.Header.Set("Probemesh-Signature", sign(hook.GetSigningKey(), content))
	}
	if trace.SpanFromContext(ctx).IsRecording() {
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
	}
	return req, nil
}

// follow allows redirects that repeat the POST (307, 308) within the host that was configured, or from http to https on it. Anything else is
// an answer like any other: following it would carry the receiver's headers elsewhere, or turn the POST into a GET and lose the notification.
func follow(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	same := req.URL.Host == first.Host && req.URL.Scheme == first.Scheme
	upgrade := first.Scheme == "http" && req.URL.Scheme == "https" && first.Port() == "" && req.URL.Port() == "" && req.URL.Hostname() == first.Hostname()
	if req.Method != http.MethodPost || len(via) > maxRedirects || !same && !upgrade {
		return http.ErrUseLastResponse
	}
	return nil
}

// answered reads the answer.
func answered(to *url.URL, resp *http.Response, text []byte, now time.Time) answer {
	a := answer{outcome: classify(resp.StatusCode), status: resp.StatusCode, statusText: statusText(resp.StatusCode)}
	if a.outcome == delivered {
		return a
	}
	a.err = fmt.Sprintf("POST %s: %s", place(to), a.statusText)
	if a.outcome == unavailable {
		a.retryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
	}
	if at, err := resp.Location(); err == nil && resp.StatusCode >= 300 && resp.StatusCode <= 399 {
		a.err += fmt.Sprintf(" to %s, which is not followed; set webhook.url to where notifications belong", place(at))
		return a
	}
	if line := firstLine(text); line != "" {
		a.err += ": " + line
	}
	return a
}

// noAnswer says why there is no answer.
func noAnswer(to *url.URL, err error, limit time.Duration) answer {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL, which may hold secrets
	}
	var slow net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &slow) && slow.Timeout() {
		return answer{outcome: timeout, err: fmt.Sprintf("POST %s: no answer within %s", place(to), limit)}
	}
	return answer{outcome: network, err: fmt.Sprintf("POST %s: %s", place(to), clean(err.Error()))}
}

// place is scheme and host of a URL. Paths and queries of webhooks often are their passwords, and errors go into logs and incidents.
func place(u *url.URL) string { return u.Scheme + "://" + u.Host }

func statusText(status int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

// firstLine is the first line of an answer that says something, fit for a sentence.
func firstLine(text []byte) string {
	for line := range strings.Lines(string(text)) {
		if line = clean(line); line != "" {
			return line
		}
	}
	return ""
}

// clean drops what does not print and shortens.
func clean(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return -1
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s))
	if runes := []rune(s); len(runes) > maxQuoted {
		return string(runes[:maxQuoted]) + "..."
	}
	return s
}
