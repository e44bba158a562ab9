package http

import (
	"errors"
	nethttp "net/http"
	"net/url"
	"strings"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// hop is one request of a probe.
type hop struct {
	request
	own   bool // to the host of the check, and so with its credentials
	named bool // by the check itself, not by a redirect
}

// redirect is the request that resp asks for. ok is false when resp is the last answer.
func (v *visit) redirect(h hop, resp *nethttp.Response) (next hop, ok bool, err error) {
	if !h.follow {
		return hop{}, false, nil
	}
	next = h
	next.named = false
	switch resp.StatusCode {
	case nethttp.StatusMovedPermanently, nethttp.StatusFound, nethttp.StatusSeeOther:
		next.body, next.content, next.request.own = nil, nil, withoutContent(h.request.own)
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
	if v.got.redirects-v.got.redirectsBefore >= v.options.GetMaxRedirects() {
		return hop{}, false, probe.Failf(v.a, meshv1.Result_PROTOCOL, "stopped after %d redirects, the last one from %s to %s; raise http.max_redirects if that is right",
			v.options.GetMaxRedirects(), short(h.url.Redacted()), short(location))
	}
	next.url, err = h.url.Parse(location)
	if err != nil {
		return hop{}, false, probe.Failf(v.a, meshv1.Result_PROTOCOL, "the redirect to %s cannot be followed: it is not a URI", short(location))
	}
	if next.url.Scheme != "http" && next.url.Scheme != "https" || next.url.Host == "" {
		return hop{}, false, probe.Failf(v.a, meshv1.Result_PROTOCOL, "the redirect to %s cannot be followed: it is neither http nor https", short(location))
	}
	if next.url.Scheme == "http" && v.options.GetVersion() == meshv1.HttpProbe_HTTP3 {
		return hop{}, false, probe.Failf(v.a, meshv1.Result_PROTOCOL, "the redirect to %s cannot be followed: HTTP/3 needs https", short(location))
	}
	next.url.User, next.url.Fragment = nil, ""
	next.own = v.isOwn(next.url)
	if len(next.body) > 0 && !next.own && !keepsTo(h.url, next.url) && !v.options.GetSendBodyToOtherHosts() {
		return hop{}, false, probe.Failf(v.a, meshv1.Result_PROTOCOL,
			"the redirect from %s to %s with status %d asks for the body of the request, which is not sent to another host, nor from https to http, since it may hold secrets; probe the other one itself, or set http.send_body_to_other_hosts",
			short(h.url.Redacted()), short(next.url.Redacted()), resp.StatusCode)
	}
	return next, true, nil
}

// blame makes it the target's fault, and not the prober's, when it was the target that chose a host to which the prober may not connect.
func (v *visit) blame(to *url.URL, err error) error {
	var f *probe.Failure
	if !errors.As(err, &f) || !f.Fenced || strings.EqualFold(to.Hostname(), v.url.Hostname()) || v.origins[origin(to)] {
		return err
	}
	led := *f
	led.Class, led.Sentence = meshv1.Result_PROTOCOL, "the target leads to "+short(origin(to))+": "+f.Sentence
	return &led
}

// withoutContent is a header without what describes a body.
func withoutContent(h nethttp.Header) nethttp.Header {
	if h["Content-Type"] == nil && h["Content-Encoding"] == nil {
		return h
	}
	out := h.Clone()
	out.Del("Content-Type")
	out.Del("Content-Encoding")
	return out
}

// isOwn tells whether a URL is of the host of the check: there alone go its credentials, and never in the clear when the check is https.
func (r *runner) isOwn(u *url.URL) bool { return keepsTo(r.url, u) }

// keepsTo tells whether a request that was meant for one URL may as well go to another with all that it carries: to the same scheme, host and port, or from http to https of the same
// host, both on their usual ports.
func keepsTo(from, to *url.URL) bool {
	return strings.EqualFold(to.Hostname(), from.Hostname()) && (port(to) == port(from) && to.Scheme == from.Scheme ||
		from.Scheme == "http" && to.Scheme == "https" && port(from) == "80" && port(to) == "443")
}

// origin is the scheme, host and port of a URL.
func origin(u *url.URL) string { return u.Scheme + "://" + strings.ToLower(hostPort(u)) }

// writtenOrigin is the origin that the URL of a step leads to whatever is captured; false when captured values have a say in it.
func writtenOrigin(base *url.URL, text string) (string, bool) {
	written, _, captured := strings.Cut(text, "${")
	if _, rest, absolute := strings.Cut(written, "//"); captured && (!absolute || !strings.ContainsAny(rest, "/?#")) {
		return "", false
	}
	u, err := base.Parse(written)
	if err != nil || u.Host == "" {
		return "", false
	}
	return origin(u), true
}
