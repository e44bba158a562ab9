// Package http is the kind http: one request over HTTP/1.1 or HTTP/2, and the redirects that follow it.
//
// What is the same for every probe of a check (the URL taken apart, headers, TLS configuration, transport) is made once. A probe opens a new
// connection, unless the check asks for keep_alive, so that it sees the whole way that a new visitor would take.
//
// An answer is bounded in every direction: headers by 64 KiB, the body by the body limit after decompression, redirects by their number, and all
// of it by the timeout of the check.
package http

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	nethttp "net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxResponseHeaders is the most bytes of headers that an answer may have.
const maxResponseHeaders = 64 << 10

// Buffers of a connection, half of what a probe allocates at net/http's 4 KiB each: most requests and heads of answers fit into less, and a body is read past
// the buffer.
const (
	readBuffer  = 2 << 10
	writeBuffer = 1 << 10
)

// runner runs one check of kind http.
type runner struct {
	plan    *probe.Plan
	options *meshv1.HttpProbe
	url     *url.URL
	host    string // value of the Host header, empty for the URL's
	header  nethttp.Header
	safe    nethttp.Header // what other hosts than the check's own are sent

	usual   *nethttp.Transport // as the check asks for
	fresh   *nethttp.Transport // never keeps a connection; the same as usual unless the check asks for keep_alive
	foreign *nethttp.Transport // for redirects to other hosts: without server name and client certificate; the same as fresh when it has neither
}

// Compile makes a runner of a check of kind http whose defaults are resolved. The caller closes it.
func Compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	o := c.GetHttp()
	plan, err := probe.NewPlan(c, o.GetExpect())
	if err != nil {
		return nil, err
	}
	own, err := probe.TLSConfig(o.GetTls(), "")
	if err != nil {
		return nil, err
	}
	others, err := probe.TLSConfig(&meshv1.TlsConfig{CaPem: o.GetTls().GetCaPem(), MinVersion: o.GetTls().GetMinVersion(),
		InsecureSkipVerify: o.GetTls().GetInsecureSkipVerify()}, "")
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: o, url: t.URL}
	r.headers(env.UserAgent)
	r.fresh = r.transport(own, false)
	r.usual, r.foreign = r.fresh, r.fresh
	if own.ServerName != "" || len(own.Certificates) > 0 {
		r.foreign = r.transport(others, false)
	}
	if o.GetKeepAlive() {
		r.usual = r.transport(own, true)
		r.usual.IdleConnTimeout = c.GetInterval().AsDuration() + time.Minute
	}
	plan.Talk = r.talk
	return r, nil
}

// Probe implements probe.Runner.
func (r *runner) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	return r.plan.Run(ctx, o)
}

// Close implements probe.Runner.
func (r *runner) Close() {
	r.usual.CloseIdleConnections()
	r.fresh.CloseIdleConnections()
	r.foreign.CloseIdleConnections()
}

// headers prepares what every request is sent with.
func (r *runner) headers(userAgent string) {
	r.header, r.safe = make(nethttp.Header), make(nethttp.Header)
	r.header.Set("User-Agent", userAgent)
	for k, v := range r.options.GetHeaders() {
		if strings.EqualFold(k, "host") {
			r.host = v
			continue
		}
		r.header.Set(k, v)
	}
	if b := r.options.GetBasicAuth(); b != nil {
		r.header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(b.Username+":"+b.Password)))
	}
	if token := r.options.GetBearerToken(); token != "" {
		r.header.Set("Authorization", "Bearer "+token)
	}
	for k, v := range r.header {
		if k == "User-Agent" || strings.HasPrefix(k, "Accept") {
			r.safe[k] = v
		}
	}
}

// transport makes a transport as the check asks for.
func (r *runner) transport(config *tls.Config, keep bool) *nethttp.Transport {
	dialer := &probe.Dialer{Family: r.options.GetIpFamily()}
	t := &nethttp.Transport{
		TLSClientConfig:        config,
		DisableKeepAlives:      !keep,
		MaxIdleConnsPerHost:    1,
		MaxResponseHeaderBytes: maxResponseHeaders,
		ReadBufferSize:         readBuffer,
		WriteBufferSize:        writeBuffer,
		Protocols:              protocols(r.options.GetVersion()),
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			a, _ := ctx.Value(attemptKey{}).(*probe.Attempt)
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			if a == nil {
				return nil, fmt.Errorf("dial %s outside of a probe", address)
			}
			number, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return nil, err
			}
			return dialer.Dial(ctx, a, network, host, uint16(number))
		},
	}
	if text := r.options.GetProxyUrl(); text != "" {
		if u, err := url.Parse(text); err == nil {
			t.Proxy = nethttp.ProxyURL(u)
			t.ProxyConnectHeader = nethttp.Header{"User-Agent": r.header["User-Agent"]}
			if v := r.header["Proxy-Authorization"]; v != nil {
				t.ProxyConnectHeader["Proxy-Authorization"] = v
			}
			t.OnProxyConnectResponse = proxyAnswer
		}
	}
	return t
}

// proxyAnswer turns a refusal of the proxy into a failure.
func proxyAnswer(ctx context.Context, proxy *url.URL, _ *nethttp.Request, resp *nethttp.Response) error {
	if resp.StatusCode == nethttp.StatusOK {
		return nil
	}
	a, _ := ctx.Value(attemptKey{}).(*probe.Attempt)
	if a == nil {
		return fmt.Errorf("proxy %s answered CONNECT with %s", proxy.Host, resp.Status)
	}
	return probe.Failf(a, meshv1.Result_PROTOCOL, "proxy %s answered CONNECT with %s", proxy.Host, resp.Status)
}

// protocols is the set of HTTP versions to speak.
func protocols(v meshv1.HttpProbe_Version) *nethttp.Protocols {
	p := &nethttp.Protocols{}
	switch v {
	case meshv1.HttpProbe_HTTP1:
		p.SetHTTP1(true)
	case meshv1.HttpProbe_HTTP2:
		p.SetHTTP2(true)
		p.SetUnencryptedHTTP2(true)
	default:
		p.SetHTTP1(true)
		p.SetHTTP2(true)
	}
	return p
}

// attemptKey is the context key of the attempt that a dial belongs to.
type attemptKey struct{}

// traced is the context of one probe: the attempt, and the hooks that tell it of phases.
func (r *runner) traced(ctx context.Context, a *probe.Attempt) context.Context {
	trace := &httptrace.ClientTrace{
		WroteRequest:         func(httptrace.WroteRequestInfo) { a.Restart(meshv1.Result_PROCESSING) },
		GotFirstResponseByte: func() { a.Enter(meshv1.Result_TRANSFER) },
		GotConn: func(info httptrace.GotConnInfo) {
			if info.Reused {
				a.Connecting(info.Conn.RemoteAddr().String())
			}
			a.Enter(meshv1.Result_PROCESSING)
		},
	}
	if r.url.Scheme == "https" || r.options.GetFollowRedirects() {
		trace.TLSHandshakeStart = func() { a.Enter(meshv1.Result_HANDSHAKE) }
		trace.TLSHandshakeDone = func(_ tls.ConnectionState, err error) {
			if err != nil {
				probe.NoteHandshakeError(a, err)
			}
		}
	}
	return httptrace.WithClientTrace(context.WithValue(ctx, attemptKey{}, a), trace)
}
