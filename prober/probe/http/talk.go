package http

import (
	"context"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"strings"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// hop is one request of a probe.
type hop struct {
	method string
	url    *url.URL
	body   string
	own    bool // to the host of the check, and so with its credentials
}

// talk sends the request, follows redirects and reads the last answer.
func (r *runner) talk(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
	ctx = r.traced(ctx, a)
	got := &answer{uri: r.plan.URI}
	next := hop{method: r.options.GetMethod(), url: r.url, body: r.options.GetBody(), own: true}
	for {
		resp, err := r.send(ctx, a, next)
		if err != nil {
			return got.orNil(), wireError(err, a)
		}
		got.take(resp)
		if resp.TLS != nil {
			a.Secured(resp.TLS, !r.options.GetTls().GetInsecureSkipVerify())
		}
		if f := r.wrongVersion(a, resp); f != nil {
			resp.Body.Close()
			return got, f
		}
		following, ok, err := r.redirect(a, next, resp, got.redirects)
		if err != nil || !ok {
			if err == nil {
				err = r.read(got, resp, a.Options().Evidence)
			}
			resp.Body.Close()
			if err != nil {
				return got, wireError(err, a)
			}
			return got, nil
		}
		resp.Body.Close()
		got.visited = append(got.visited, next.url.String())
		got.redirects++
		got.uri = following.url.String()
		next = following
	}
}

// send sends one request.
func (r *runner) send(ctx context.Context, a *probe.Attempt, h hop) (*nethttp.Response, error) {
	req := (&nethttp.Request{
		Method: h.method, URL: h.url, Host: h.url.Host, Header: r.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	transport := r.usual
	switch {
	case !h.own:
		req.Header, transport = r.safe, r.foreign
	case a.Options().Fresh:
		transport = r.fresh
	}
	if h.own && r.host != "" {
		req.Host = r.host
	}
	if t := a.Options().Traceparent; t != "" {
		req.Header = req.Header.Clone()
		req.Header.Set("Traceparent", t)
	}
	if h.body != "" {
		req.Body = io.NopCloser(strings.NewReader(h.body))
		req.ContentLength = int64(len(h.body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(h.body)), nil }
	}
	return transport.RoundTrip(req)
}

// redirect is the request that resp asks for. ok is false when resp is the last answer.
func (r *runner) redirect(a *probe.Attempt, h hop, resp *nethttp.Response, followed int32) (next hop, ok bool, err error) {
	if !r.options.GetFollowRedirects() {
		return hop{}, false, nil
	}
	next = hop{method: h.method, body: h.body}
	switch resp.StatusCode {
	case nethttp.StatusMovedPermanently, nethttp.StatusFound, nethttp.StatusSeeOther:
		next.body = ""
		if h.method != nethttp.MethodGet && h.method != nethttp.MethodHead {
			next.method = nethttp.MethodGet
		}
	case nethttp.StatusTemporaryRedirect, nethttp.StatusPermanentRedirect:
	default:
		return hop{}, false, nil
	}
	location := resp.Header.Get("Location")
	if location == "" {
		return hop{}, false, nil
	}
	if followed >= r.options.GetMaxRedirects() {
		return hop{}, false, probe.Failf(a, meshv1.Result_PROTOCOL, "stopped after %d redirects, the last one from %s to %s; raise http.max_redirects if that is right",
			followed, h.url.Redacted(), short(location))
	}
	next.url, err = h.url.Parse(location)
	if err != nil {
		return hop{}, false, probe.Failf(a, meshv1.Result_PROTOCOL, "the redirect to %s cannot be followed: it is not a URI", short(location))
	}
	if next.url.Scheme != "http" && next.url.Scheme != "https" || next.url.Host == "" {
		return hop{}, false, probe.Failf(a, meshv1.Result_PROTOCOL, "the redirect to %s cannot be followed: it is neither http nor https", short(location))
	}
	next.url.User, next.url.Fragment = nil, ""
	next.own = r.isOwn(next.url)
	return next, true, nil
}

// isOwn tells whether a URL is of the host of the check: there alone go its credentials, and never in the clear when the check is https.
func (r *runner) isOwn(u *url.URL) bool {
	return strings.EqualFold(u.Hostname(), r.url.Hostname()) && port(u) == port(r.url) && u.Scheme == r.url.Scheme ||
		strings.EqualFold(u.Hostname(), r.url.Hostname()) && r.url.Scheme == "http" && u.Scheme == "https" && port(r.url) == "80" && port(u) == "443"
}

// port is the port of a URL, with the default of its scheme.
func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// wrongVersion is the failure of an answer in another version than the check asks for.
func (r *runner) wrongVersion(a *probe.Attempt, resp *nethttp.Response) *probe.Failure {
	if r.options.GetVersion() != meshv1.HttpProbe_HTTP2 || resp.ProtoMajor == 2 {
		return nil
	}
	return probe.Failf(a, meshv1.Result_PROTOCOL, "the server speaks %s, not HTTP/2 as the check asks for", resp.Proto)
}

// read reads the body up to its limit. All of it is kept only when an expectation looks at it.
func (r *runner) read(got *answer, resp *nethttp.Response, evidence bool) error {
	limit := r.options.GetBodyLimit()
	if r.plan.Expect.Reads("body") || r.plan.Expect.Reads("json") {
		return got.readAll(resp, limit)
	}
	bad := resp.StatusCode < 200 || resp.StatusCode > 299
	return got.readHead(resp, limit, evidence || bad || r.plan.Expect.Len() > 0)
}

// wireError makes a failure of what the transport says in words of its own, which it has no types for.
func wireError(err error, a *probe.Attempt) error {
	m := err.Error()
	if strings.Contains(m, "response headers exceeded") {
		return probe.Failf(a, meshv1.Result_PROTOCOL, "read the answer of %s: its headers are longer than %d KiB", a.Remote(), maxResponseHeaders>>10)
	}
	for _, closed := range []string{"server closed idle connection", "http2: client conn could not be established", "http2: client connection lost", "http2: server sent GOAWAY"} {
		if strings.Contains(m, closed) {
			return fmt.Errorf("%w: %s", io.ErrUnexpectedEOF, closed)
		}
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
