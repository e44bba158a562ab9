package blackbox

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxRedirects is how many redirects are followed.
const maxRedirects = 10

// errStay ends the following of redirects.
var errStay = errors.New("the redirect is not followed")

func probeHTTP(ctx context.Context, j *job) *meshv1.Result {
	for _, n := range []string{"probe_http_status_code", "probe_http_content_length", "probe_http_redirects", "probe_http_ssl", "probe_http_version",
		"probe_http_uncompressed_body_length", "probe_failed_due_to_regex"} {
		j.out.set(n, 0)
	}
	if j.module.HTTP.FailIfBodyJSONMatchesCEL != nil || j.module.HTTP.FailIfBodyJSONNotMatchesCEL != nil {
		j.out.set("probe_failed_due_to_cel", 0)
	}
	x := &exchange{job: j, o: &j.module.HTTP}
	result := j.run(ctx, x.talk)
	t := result.GetTimings()
	if x.located && t.GetResolve() != nil || x.redirects > 0 { // what a proxy's name took is not told
		j.out.phases("probe_http_duration_seconds", phase{"resolve", t.GetResolve().AsDuration()})
	}
	if x.made {
		j.out.set("probe_http_redirects", float64(x.redirects))
		j.out.phases("probe_http_duration_seconds", phase{"connect", t.GetConnect().AsDuration()}, phase{"tls", t.GetHandshake().AsDuration()},
			phase{"processing", t.GetProcessing().AsDuration()}, phase{"transfer", t.GetTransfer().AsDuration()})
	}
	return result
}

// exchange is one probe of prober http.
type exchange struct {
	*job
	o         *HTTP
	first     string // host of the first request, as the URL has it
	usual     nethttp.RoundTripper
	foreign   nethttp.RoundTripper // for redirects to other hosts: it verifies their names
	redirects int
	located   bool // an address was looked for
	made      bool // the request was
}

// talk makes the request, follows redirects, and judges the last answer.
func (x *exchange) talk(ctx context.Context, a *probe.Attempt) error {
	request, err := x.request(ctx, a)
	if err != nil {
		return err
	}
	jar, err := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List})
	if err != nil {
		return probe.Failf(a, meshv1.Result_PROBER, "%v", err)
	}
	client := nethttp.Client{Transport: x, Jar: jar, CheckRedirect: x.follow}
	resp, err := client.Do(request)
	if resp == nil {
		return err
	}
	defer resp.Body.Close()
	return x.judge(ctx, a, resp, err != nil)
}

// request is the first request.
func (x *exchange) request(ctx context.Context, a *probe.Attempt) (*nethttp.Request, error) {
	target, err := parseTarget(x.target)
	if err != nil {
		return nil, probe.Failf(a, meshv1.Result_PROBER, "%v", err)
	}
	host := cmp.Or(x.hostname, header(x.o.Headers, "Host"))
	name := cmp.Or(x.o.Client.TLSConfig.ServerName, host, target.Hostname())
	original := target.Host
	if err := x.locate(ctx, a, target); err != nil {
		return nil, err
	}
	x.first = target.Host
	if x.usual, err = x.clients.get(x.module, name); err != nil {
		return nil, probe.Failf(a, meshv1.Result_PROBER, "the module makes no client: %v", err)
	}
	if x.foreign, err = x.clients.get(x.module, ""); err != nil {
		return nil, probe.Failf(a, meshv1.Result_PROBER, "the module makes no client: %v", err)
	}
	body, err := x.body()
	if err != nil {
		return nil, probe.Failf(a, meshv1.Result_PROBER, "body_file: %v", err)
	}
	request, err := nethttp.NewRequestWithContext(httptrace.WithClientTrace(ctx, x.trace(a)), cmp.Or(x.o.Method, "GET"), target.String(), body)
	if err != nil {
		return nil, probe.Failf(a, meshv1.Result_PROBER, "%v", err)
	}
	x.made = true
	request.Host = cmp.Or(host, original)
	for k, v := range x.o.Headers {
		if textproto.CanonicalMIMEHeaderKey(k) != "Host" {
			request.Header.Set(k, v)
		}
	}
	if _, ok := request.Header["User-Agent"]; !ok {
		request.Header.Set("User-Agent", x.exporter.options.Env.UserAgent)
	}
	return request, nil
}

// locate puts the chosen address in place of the target's name, unless the proxy is to find it.
func (x *exchange) locate(ctx context.Context, a *probe.Attempt, target *url.URL) error {
	a.Meeting(target.Hostname())
	if p := x.o.Client.ProxyConfig; x.o.SkipResolvePhaseWithProxy && p.ProxyURL.URL != nil && !p.ProxyFromEnvironment {
		return nil
	}
	x.located = true
	ip, err := x.choose(ctx, a, x.o.Family, target.Hostname())
	if err != nil {
		return err
	}
	host := ip.String()
	switch {
	case target.Port() != "":
		host = net.JoinHostPort(host, target.Port())
	case ip.IP.To4() == nil:
		host = "[" + host + "]"
	}
	target.Host = host
	return nil
}

// body is the body of the request, nil without one.
func (x *exchange) body() (io.Reader, error) {
	switch {
	case x.o.Body != "":
		return strings.NewReader(x.o.Body), nil
	case x.o.BodyFile == "":
		return nil, nil
	}
	f, err := os.Open(x.o.BodyFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, requestBody+1))
	if err == nil && len(text) > requestBody {
		err = fmt.Errorf("%s is longer than %d MiB", x.o.BodyFile, requestBody>>20)
	}
	return strings.NewReader(string(text)), err
}

// trace tells the attempt of the phases.
func (x *exchange) trace(a *probe.Attempt) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart:             func(httptrace.DNSStartInfo) { a.Enter(meshv1.Result_RESOLVE) },
		ConnectStart:         func(_, address string) { a.Enter(meshv1.Result_CONNECT); a.Connecting(address) },
		TLSHandshakeStart:    func() { a.Enter(meshv1.Result_HANDSHAKE) },
		TLSHandshakeDone:     func(_ tls.ConnectionState, err error) { probe.NoteHandshakeError(a, err) },
		GotConn:              func(httptrace.GotConnInfo) { a.Enter(meshv1.Result_PROCESSING) },
		GotFirstResponseByte: func() { a.Enter(meshv1.Result_TRANSFER) },
	}
}

// RoundTrip implements http.RoundTripper.
func (x *exchange) RoundTrip(r *nethttp.Request) (*nethttp.Response, error) {
	x.log.Info("making HTTP request", "url", r.URL.Redacted(), "host", r.Host)
	if r.URL.Host != x.first {
		return x.foreign.RoundTrip(r)
	}
	return x.usual.RoundTrip(r)
}

// follow says whether to follow a redirect.
func (x *exchange) follow(r *nethttp.Request, via []*nethttp.Request) error {
	x.log.Info("received redirect", "location", r.Response.Header.Get("Location"))
	x.redirects = len(via)
	if x.redirects > maxRedirects || !x.o.Client.FollowRedirects {
		return errStay
	}
	return nil
}

// judge reads the last answer and says what is wrong with it. stayed tells that it is a redirect that is not followed, whose body is gone.
func (x *exchange) judge(ctx context.Context, a *probe.Attempt, resp *nethttp.Response, stayed bool) error {
	x.log.Info("received HTTP response", "status_code", resp.StatusCode)
	x.out.set("probe_http_status_code", float64(resp.StatusCode))
	x.out.set("probe_http_content_length", float64(resp.ContentLength))
	version, _ := strconv.ParseFloat(strings.TrimPrefix(resp.Proto, "HTTP/"), 64)
	x.out.set("probe_http_version", version)
	if t, err := nethttp.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		x.out.set("probe_http_last_modified_timestamp_seconds", unix(t))
	}
	if resp.TLS != nil {
		x.out.set("probe_http_ssl", 1)
		x.out.secured(resp.TLS)
	}
	fault := x.judgeHead(resp)
	why, err := x.judgeBody(ctx, a, resp, stayed, fault)
	if err != nil {
		return err
	}
	switch {
	case why != "":
	case resp.TLS != nil && x.o.FailIfSSL:
		why = "the last answer came over TLS, and fail_if_ssl is set"
	case resp.TLS == nil && x.o.FailIfNotSSL:
		why = "the last answer did not come over TLS, and fail_if_not_ssl is set"
	default:
		why = x.judgeVersion(resp)
	}
	if why != "" {
		return probe.Failf(a, meshv1.Result_EXPECTATION, "%s", why)
	}
	return nil
}
