package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/encoding/protojson"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Headers of a delivery besides the standard ones.
const (
	// KeyHeader has the same value each time the same notification is sent.
	KeyHeader = "Idempotency-Key"
	// SignatureHeader has "sha256=" and the lower-case hex of the body's HMAC-SHA256 under the receiver's signing key.
	SignatureHeader = "Probemesh-Signature"
)

const (
	// defaultTimeout is the default of Webhook.timeout.
	defaultTimeout = 10 * time.Second
	// maxAnswer is how much of an answer's body is read, for the text of an error.
	maxAnswer = 4 << 10
	// maxRoots bounds the pools of connections kept for receivers with roots of their own.
	maxRoots = 64
)

// Sender sends a notification once.
type Sender interface {
	// Send sends n to r under the idempotency key and waits for the answer, at most for the receiver's timeout. It may be called concurrently.
	Send(ctx context.Context, r *meshv1.Receiver, n *meshv1.Notification, key string) Answer
}

// Answer is how one attempt ended.
type Answer struct {
	// Delivered is true when the receiver took it.
	Delivered bool
	// Status is the HTTP status, 0 without an answer.
	Status int
	// Error is what went wrong, in a sentence for people; empty when delivered.
	Error string
	// Temporary is true when the failure will likely pass by itself; otherwise somebody must mend something.
	Temporary bool
	// RetryAfter is when the receiver wants to be asked again; 0 if it did not say.
	RetryAfter time.Duration
}

// Webhook sends by HTTP. Make one with NewWebhook; Close it when done.
type Webhook struct {
	userAgent string

	// mu guards everything below.
	mu    sync.Mutex
	plain *http.Transport
	roots map[string]*http.Transport // by PEM
}

// NewWebhook makes a sender that calls itself userAgent.
func NewWebhook(userAgent string) *Webhook {
	return &Webhook{userAgent: userAgent, plain: newTransport(nil), roots: map[string]*http.Transport{}}
}

func newTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   8,
		MaxIdleConns:          64,
		IdleConnTimeout:       time.Minute,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// Close closes idle connections. Sends under way go on.
func (w *Webhook) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plain.CloseIdleConnections()
	for _, t := range w.roots {
		t.CloseIdleConnections()
	}
}

// transport is the pool of connections for the receiver's roots.
func (w *Webhook) transport(pem string) (*http.Transport, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pem == "" {
		return w.plain, nil
	}
	if t := w.roots[pem]; t != nil {
		return t, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("ca_pem has no certificate in it; give PEM certificates")
	}
	for old, t := range w.roots {
		if len(w.roots) < maxRoots {
			break
		}
		t.CloseIdleConnections()
		delete(w.roots, old)
	}
	t := newTransport(pool)
	w.roots[pem] = t
	return t, nil
}

// Body is the JSON of a notification as it is sent: protojson with the names of the proto, every field present, null where it is not set.
func Body(n *meshv1.Notification) ([]byte, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("encode the notification: %w", err)
	}
	// protojson varies its white space on purpose; a signed body should be the same each time.
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return nil, fmt.Errorf("encode the notification: %w", err)
	}
	return out.Bytes(), nil
}

// Sign is the value of SignatureHeader.
func Sign(key string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// Send is Sender's.
func (w *Webhook) Send(ctx context.Context, r *meshv1.Receiver, n *meshv1.Notification, key string) Answer {
	hook := r.GetWebhook()
	if hook == nil {
		return Answer{Error: r.GetName() + " has no webhook; set one"}
	}
	timeout := defaultTimeout
	if d := hook.GetTimeout(); d != nil {
		timeout = d.AsDuration()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	transport, err := w.transport(hook.GetCaPem())
	if err != nil {
		return Answer{Error: err.Error()}
	}
	req, err := w.request(ctx, hook, n, key)
	if err != nil {
		return Answer{Error: err.Error()}
	}
	resp, err := (&http.Client{Transport: transport, CheckRedirect: sameHostOnly}).Do(req)
	if err != nil {
		return Answer{Error: networkError(err, timeout), Temporary: true}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 == 2 {
		return Answer{Delivered: true, Status: resp.StatusCode}
	}
	if err != nil {
		text = nil // the status says enough
	}
	return Answer{Status: resp.StatusCode, Temporary: temporary(resp.StatusCode), RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		Error: answerError(resp, text)}
}

func (w *Webhook) request(ctx context.Context, hook *meshv1.Webhook, n *meshv1.Notification, key string) (*http.Request, error) {
	body, err := Body(n)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.GetUrl(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the webhook's url cannot be used: %w", err)
	}
	req.Header.Set("User-Agent", w.userAgent)
	for k, v := range hook.GetHeaders() {
		if http.CanonicalHeaderKey(k) == "Host" {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(KeyHeader, key)
	if k := hook.GetSigningKey(); k != "" {
		req.Header.Set(SignatureHeader, Sign(k, body))
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
	return req, nil
}

// sameHostOnly follows a redirect only where the same POST goes to the same host: headers may carry secrets, and a POST turned into a GET
// would look delivered without being so.
func sameHostOnly(req *http.Request, via []*http.Request) error {
	first := via[0]
	if req.Method != first.Method || req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme || len(via) > 5 {
		return http.ErrUseLastResponse
	}
	return nil
}

// networkError is a failure without an answer, in a sentence, without the URL, which may hold secrets.
func networkError(err error, timeout time.Duration) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %s", timeout)
	}
	return err.Error()
}

func answerError(resp *http.Response, body []byte) string {
	text := fmt.Sprintf("the answer was %s", resp.Status)
	if to := resp.Header.Get("Location"); to != "" && resp.StatusCode/100 == 3 {
		return text + ", a redirect that is not followed; set the url to where it should go"
	}
	if line := strings.Join(strings.Fields(strings.ToValidUTF8(string(body), "?")), " "); line != "" {
		if runes := []rune(line); len(runes) > 200 {
			line = string(runes[:200]) + "..."
		}
		text += ": " + line
	}
	return text
}
