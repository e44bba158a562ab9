package http

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"slices"
	"strings"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http/wire"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// visit is one probe while it runs.
type visit struct {
	*runner
	base        context.Context //nolint:containedctx // a visit is one call, spread over methods
	hooked      context.Context //nolint:containedctx // base with the attempt and its hooks, once a transport needs it
	a           *probe.Attempt
	got         *answer
	jar         *jar     // what the target set so far; nil for nothing
	traceparent string   // sent with every request; empty for none
	bearer      string   // OAuth 2.0 token
	kept        bool     // bearer is of an earlier probe
	stops       []func() // of watches over connections
	digest      *challenge
	digestCount uint32 // how often digest.nonce was used
}

// talk sends the request, follows redirects and reads the last answer.
func (r *runner) talk(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
	v := &visit{runner: r, base: ctx, a: a, got: &answer{uri: r.plan.URI, graphql: r.options.GetGraphql()}, traceparent: a.Options().Traceparent}
	defer v.unwatch()
	if v.traceparent == "" && r.options.GetTraceparent() {
		v.traceparent, v.got.traceID = newTrace()
	}
	if r.tokens != nil {
		if err := v.authorize(a.Options().Fresh); err != nil {
			return nil, err
		}
	}
	if len(r.steps) > 0 {
		return v.walk()
	}
	if err := v.fetch(r.request(), r.whole); err != nil {
		return v.got.orNil(), wireError(err, a)
	}
	return v.got, nil
}

// newTrace begins a trace of which only the target knows, sampled: the header, and the trace's id.
func newTrace() (traceparent, traceID string) {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	traceID = hex.EncodeToString(b[:16])
	return "00-" + traceID + "-" + hex.EncodeToString(b[16:]) + "-01", traceID
}

// fetch sends a request, follows redirects and reads the last answer, all of it if whole.
func (v *visit) fetch(q request, whole bool) error {
	next := hop{request: q, own: v.isOwn(q.url), named: true}
	for {
		resp, err := v.ask(next)
		if err != nil {
			return v.blame(next.url, err)
		}
		v.got.resp, v.got.last = resp, next.url
		following, ok, err := v.redirect(next, resp)
		if err == nil && !ok {
			if f := v.unacceptable(resp); f != nil {
				err = f
			} else {
				err = v.read(resp, whole)
			}
		}
		resp.Body.Close()
		if err != nil || !ok {
			return err
		}
		v.keepCookies(next.url, resp)
		v.got.visited = append(v.got.visited, next.url.String())
		v.got.redirects++
		v.got.uri = following.url.String()
		next = following
	}
}

// ask sends one request, and sends it again when the answer is a challenge that the check has credentials for.
func (v *visit) ask(h hop) (*nethttp.Response, error) {
	resp, err := v.send(h)
	if err != nil || !h.own || resp.StatusCode != nethttp.StatusUnauthorized {
		return resp, err
	}
	again := false
	switch {
	case v.options.GetDigestAuth() != nil:
		again, err = v.challenged(resp)
	case v.kept:
		again = true
		err = v.authorize(true)
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	if !again {
		return resp, nil
	}
	v.keepCookies(h.url, resp)
	resp.Body.Close()
	return v.send(h)
}

// send sends one request.
func (v *visit) send(h hop) (*nethttp.Response, error) {
	if h.raw != nil && h.own && h.named && v.newConnection() && !v.dressed(h) {
		return v.plain(h, nil)
	}
	req := v.message(h)
	if err := v.dress(req, h); err != nil {
		return nil, err
	}
	resp, err := v.roundTrip(h, req)
	if err == nil && resp.TLS != nil {
		v.a.Secured(resp.TLS, !v.options.GetTls().GetInsecureSkipVerify())
	}
	return resp, err
}

// message is a request in the form of net/http, but for what differs from probe to probe.
func (r *runner) message(h hop) *nethttp.Request {
	req := &nethttp.Request{
		Method: h.method, URL: h.url, Host: h.url.Host, Header: r.safe,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	switch {
	case h.own:
		req.Header = h.request.own
		if r.host != "" {
			req.Host = r.host
		}
	case h.named:
		req.Header = h.other
	case len(h.body) > 0: // a redirect that keeps the body
		req.Header = merged(r.safe, h.content)
	}
	if len(h.body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(h.body))
		req.ContentLength = int64(len(h.body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(h.body)), nil }
	}
	return req
}

// dress adds to a request what differs from probe to probe: trace, cookies and credentials. The shared header is not changed.
func (v *visit) dress(req *nethttp.Request, h hop) error {
	if !v.dressed(h) {
		return nil
	}
	req.Header = req.Header.Clone()
	if v.traceparent != "" {
		req.Header.Set("Traceparent", v.traceparent)
	}
	for _, c := range v.jar.cookies(h.url) {
		req.AddCookie(c)
	}
	switch {
	case !h.own:
	case v.bearer != "":
		req.Header.Set("Authorization", "Bearer "+v.bearer)
	case v.digest != nil:
		req.Header.Set("Authorization", v.digestCredentials(h))
	case v.options.GetAwsSigv4() != nil:
		return v.sign(req, h.body)
	}
	return nil
}

// dressed tells whether a request is sent with anything that differs from probe to probe.
func (v *visit) dressed(h hop) bool {
	signed := h.own && (v.bearer != "" || v.digest != nil || v.options.GetAwsSigv4() != nil)
	return v.traceparent != "" || signed || v.jar != nil
}

// roundTrip sends a request the way that the check and the probe ask for.
func (v *visit) roundTrip(h hop, req *nethttp.Request) (*nethttp.Response, error) {
	if v.newConnection() && v.isPlain() {
		return v.plain(h, req)
	}
	if v.hooked == nil {
		v.hooked = v.traced(v.base, v.a)
	}
	if v.proxyAuth != nil && req.URL.Scheme == "http" { // such a request is the proxy's to read; of others it reads CONNECT alone
		req.Header = req.Header.Clone()
		req.Header["Proxy-Authorization"] = v.proxyAuth
	}
	req = req.WithContext(v.hooked)
	switch {
	case v.options.GetVersion() == meshv1.HttpProbe_HTTP3 && h.own:
		return v.quic(req, v.secured.own)
	case v.options.GetVersion() == meshv1.HttpProbe_HTTP3:
		return v.quic(req, v.secured.others)
	case v.options.GetVersion() == meshv1.HttpProbe_HTTP2 && v.newConnection() && v.options.GetProxyUrl() == "":
		return v.single(v.carrier(h.own), req)
	}
	return v.carrier(h.own).RoundTrip(req)
}

// carrier is the transport for requests to the host of the check, or to others.
func (v *visit) carrier(own bool) *nethttp.Transport {
	fresh := v.a.Options().Fresh
	switch {
	case fresh && own && v.full != nil:
		return v.full
	case fresh && v.full != nil:
		return v.fullForeign
	case !own:
		return v.foreign
	case fresh:
		return v.fresh
	}
	return v.usual
}

// unacceptable is the failure of a last answer that is not what the check asks for, whatever it says.
func (v *visit) unacceptable(resp *nethttp.Response) error {
	o, spoken := v.options, version(resp)
	switch {
	case o.GetVersion() == meshv1.HttpProbe_HTTP2 && resp.ProtoMajor != 2:
		return probe.Failf(v.a, meshv1.Result_PROTOCOL, "the server speaks %s, not HTTP/2 as the check asks for", resp.Proto)
	case len(o.GetAcceptedVersions()) > 0 && !slices.Contains(o.GetAcceptedVersions(), spoken):
		return probe.Failf(v.a, meshv1.Result_PROTOCOL, "the answer is in HTTP/%s; the check accepts %s", spoken, strings.Join(o.GetAcceptedVersions(), ", "))
	case o.GetFailIfTls() && resp.TLS != nil:
		return probe.Failf(v.a, meshv1.Result_PROTOCOL, "the answer came over TLS; the check says fail_if_tls")
	case o.GetFailIfNotTls() && resp.TLS == nil:
		return probe.Failf(v.a, meshv1.Result_PROTOCOL, "the answer did not come over TLS; the check says fail_if_not_tls")
	}
	if f := v.wrongCoding(resp); f != nil {
		return f
	}
	return nil
}

// wireError makes a failure of what the transport says in words of its own, which it has no types for.
func wireError(err error, a *probe.Attempt) error {
	if f := quicError(err, a); f != nil {
		return f
	}
	if errors.Is(err, wire.ErrHeaderTooLong) {
		return probe.Failf(a, meshv1.Result_PROTOCOL, "read the answer of %s: its headers are longer than %d KiB", a.Remote(), maxResponseHeaders>>10)
	}
	m := err.Error()
	if strings.Contains(m, "response headers exceeded") || strings.Contains(m, "http3: HEADERS frame too large") {
		return probe.Failf(a, meshv1.Result_PROTOCOL, "read the answer of %s: its headers are longer than %d KiB", a.Remote(), maxResponseHeaders>>10)
	}
	for _, closed := range []string{"server closed idle connection", "http2: client conn could not be established", "http2: client connection lost", "http2: server sent GOAWAY"} {
		if strings.Contains(m, closed) {
			return fmt.Errorf("%w: %s", io.ErrUnexpectedEOF, closed)
		}
	}
	var f *probe.Failure
	if errors.As(err, &f) {
		return f
	}
	return err
}

// short shortens a URI for a sentence.
func short(s string) string {
	if len(s) > 120 {
		return strings.ToValidUTF8(s[:120], "") + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
