package http

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of tokens.
const (
	maxTokenAnswer = 64 << 10
	maxTokenBytes  = 16 << 10
	// tokenLeeway is how long before its end a token is no longer used: a probe takes time, and clocks differ.
	tokenLeeway = 10 * time.Second
	// tokenLife is taken for the life of a token whose server does not say (RFC 6749, section 5.1, only recommends that it does).
	tokenLife = 5 * time.Minute
	// maxTokenLife is the longest that a token is kept, whatever its server says.
	maxTokenLife = 24 * time.Hour
)

// tokens gets bearer tokens by client credentials (RFC 6749, section 4.4) and keeps the newest until it expires. It may be used by several goroutines at once: two probes that
// find none both get one.
type tokens struct {
	url       *url.URL
	header    nethttp.Header
	form      string
	transport *nethttp.Transport
	full      *nethttp.Transport // for full handshakes; the same as transport unless that resumes sessions

	mu      sync.Mutex // guards everything below
	newest  string
	expires time.Time
}

// newTokens prepares the request for tokens.
func newTokens(r *runner, o *meshv1.OAuth2ClientCredentials, env probe.Env) (*tokens, error) {
	u, err := url.Parse(o.GetTokenUrl())
	if err != nil {
		return nil, fmt.Errorf("token_url: %w", err)
	}
	config, err := env.TLSConfig(o.GetTls(), "")
	if err != nil {
		return nil, fmt.Errorf("oauth2.tls: %w", err)
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(o.GetScopes()) > 0 {
		form.Set("scope", strings.Join(o.GetScopes(), " "))
	}
	for k, value := range o.GetParameters() {
		form.Set(k, value)
	}
	t := &tokens{url: u, header: nethttp.Header{"User-Agent": {env.UserAgent}, "Accept": {"application/json"}, "Content-Type": {"application/x-www-form-urlencoded"}}}
	if o.GetAuthStyle() == meshv1.OAuth2ClientCredentials_BODY {
		form.Set("client_id", o.GetClientId())
		form.Set("client_secret", o.GetClientSecret())
	} else {
		request := &nethttp.Request{Header: t.header}
		request.SetBasicAuth(url.QueryEscape(o.GetClientId()), url.QueryEscape(o.GetClientSecret())) // RFC 6749, section 2.3.1
	}
	t.form = form.Encode()
	proxied := r.options.GetProxyUrl() != "" && !o.GetWithoutProxy()
	if proxied && u.Scheme == "http" && r.proxyAuth != nil {
		t.header["Proxy-Authorization"] = r.proxyAuth
	}
	transport := func(config *tls.Config) *nethttp.Transport {
		out := &nethttp.Transport{TLSClientConfig: config, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxResponseHeaders,
			ReadBufferSize: readBuffer, WriteBufferSize: writeBuffer, Protocols: protocols(meshv1.HttpProbe_HTTP1), DialContext: dialFor(probe.Dialer{Family: r.options.GetIpFamily()})}
		if proxied {
			r.throughProxy(out)
		}
		return out
	}
	t.transport = transport(config)
	t.full = t.transport
	if config.ClientSessionCache != nil {
		t.full = transport(probe.Anew(config))
	}
	return t, nil
}

// close gives back what is kept between probes.
func (t *tokens) close() {
	t.transport.CloseIdleConnections()
	t.full.CloseIdleConnections()
}

// authorize makes the visit send a token. afresh gets a new one although one is kept.
func (v *visit) authorize(afresh bool) error {
	if !afresh {
		if v.bearer = v.tokens.kept(time.Now()); v.bearer != "" {
			v.kept = true
			return nil
		}
	}
	v.a.Enter(meshv1.Result_PHASE_UNSPECIFIED) // no phase of the probe has this time
	begin := time.Now()
	token, f := v.tokens.fetch(v.base, v.a)
	v.got.tokenTime += time.Since(begin)
	v.bearer, v.kept = token, false
	if f != nil {
		return f
	}
	return nil
}

// kept is the token that is still good at a time; empty when there is none.
func (t *tokens) kept(now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.expires) {
		return t.newest
	}
	return ""
}

// fetch gets a token and keeps it.
func (t *tokens) fetch(ctx context.Context, a *probe.Attempt) (string, *probe.Failure) {
	aside := a.Aside()
	begin := time.Now()
	token, life, err := t.ask(ctx, aside)
	if err != nil {
		f := probe.Classify(wireError(err, aside), aside)
		f.Sentence = fmt.Sprintf("no token from %s, so the target was not asked: %s", t.url.Redacted(), f.Sentence)
		return "", f
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.newest, t.expires = token, begin.Add(min(life, maxTokenLife)-tokenLeeway)
	return token, nil
}

// tokenAnswer is what a server of tokens answers (RFC 6749, sections 5.1 and 5.2).
type tokenAnswer struct {
	AccessToken string      `json:"access_token"`
	TokenType   string      `json:"token_type"`
	ExpiresIn   json.Number `json:"expires_in"`
	Error       string      `json:"error"`
	Description string      `json:"error_description"`
}

// ask posts the request for a token.
func (t *tokens) ask(ctx context.Context, a *probe.Attempt) (string, time.Duration, error) {
	req := (&nethttp.Request{Method: nethttp.MethodPost, URL: t.url, Host: t.url.Host, Header: t.header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(strings.NewReader(t.form)), ContentLength: int64(len(t.form))}).WithContext(tracedContext(ctx, a, true))
	transport := t.transport
	if a.Options().Fresh {
		transport = t.full
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		return "", 0, err
	}
	return readToken(a, resp.Status, resp.StatusCode, body)
}

// readToken reads the answer to the request for a token.
func readToken(a *probe.Attempt, status string, code int, body []byte) (string, time.Duration, error) {
	var got tokenAnswer
	err := json.Unmarshal(body, &got)
	switch {
	case err == nil && got.Error != "":
		return "", 0, probe.Failf(a, meshv1.Result_EXPECTATION, "it refused with %s (%s) %s", short(got.Error), short(status), short(got.Description))
	case code != nethttp.StatusOK:
		return "", 0, probe.Failf(a, meshv1.Result_EXPECTATION, "it answered %s", short(status))
	case err != nil:
		return "", 0, probe.Failf(a, meshv1.Result_PROTOCOL, "its answer is not what RFC 6749 says: %s", short(err.Error()))
	case got.AccessToken == "" || len(got.AccessToken) > maxTokenBytes || !httpguts.ValidHeaderFieldValue(got.AccessToken):
		return "", 0, probe.Failf(a, meshv1.Result_PROTOCOL, "its answer has no access_token of 1 to %d bytes that a header can carry", maxTokenBytes)
	case got.TokenType != "" && !strings.EqualFold(got.TokenType, "bearer"):
		return "", 0, probe.Failf(a, meshv1.Result_PROTOCOL, "its token is of type %s, not Bearer", short(got.TokenType))
	}
	life := tokenLife
	if seconds, err := got.ExpiresIn.Float64(); err == nil && seconds >= 0 {
		life = time.Duration(min(seconds, maxTokenLife.Seconds()) * float64(time.Second))
	}
	return got.AccessToken, life, nil
}
