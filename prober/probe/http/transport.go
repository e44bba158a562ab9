package http

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	nethttp "net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// transport makes a transport for HTTP/1.1 and HTTP/2 as the check asks for. It decompresses nothing: that is done where the limits are known.
func (r *runner) transport(config *tls.Config, keep bool) *nethttp.Transport {
	t := &nethttp.Transport{
		TLSClientConfig:        config.Clone(), // a transport adds to it
		DisableKeepAlives:      !keep,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    1,
		MaxResponseHeaderBytes: maxResponseHeaders,
		ReadBufferSize:         readBuffer,
		WriteBufferSize:        writeBuffer,
		Protocols:              protocols(r.options.GetVersion()),
		DialContext:            r.dial,
	}
	if r.options.GetProxyUrl() != "" {
		r.throughProxy(t)
	}
	return t
}

// throughProxy has a transport connect through the check's proxy.
func (r *runner) throughProxy(t *nethttp.Transport) {
	if u, err := url.Parse(r.options.GetProxyUrl()); err == nil {
		t.Proxy = nethttp.ProxyURL(u)
		t.ProxyConnectHeader = r.proxyHeader()
		t.OnProxyConnectResponse = proxyAnswer
	}
}

// dial connects for a transport, on behalf of the attempt in the context.
func (r *runner) dial(ctx context.Context, network, address string) (net.Conn, error) {
	a, _ := ctx.Value(attemptKey{}).(*probe.Attempt)
	if a == nil {
		return nil, fmt.Errorf("dial %s outside of a probe", address)
	}
	return r.reach(ctx, a, network, address)
}

// reach connects to host:port, or to where the check says that it is.
func (r *runner) reach(ctx context.Context, a *probe.Attempt, network, address string) (net.Conn, error) {
	if r.connect != "" && address == hostPort(r.url) {
		address = r.connect
	}
	return dial(ctx, a, probe.Dialer{Family: r.options.GetIpFamily()}, network, address)
}

// proxyHeader is what a proxy is sent with CONNECT.
func (r *runner) proxyHeader() nethttp.Header {
	h := make(nethttp.Header)
	if v := r.header["User-Agent"]; v != nil {
		h["User-Agent"] = v
	}
	if r.proxyAuth != nil {
		h["Proxy-Authorization"] = slices.Clone(r.proxyAuth)
	}
	for _, line := range r.options.GetProxyHeaders() {
		h.Add(line.GetName(), line.GetValue())
	}
	return h
}

// proxyAnswer turns a refusal of the proxy into a failure.
func proxyAnswer(ctx context.Context, proxy *url.URL, _ *nethttp.Request, resp *nethttp.Response) error {
	if resp.StatusCode == nethttp.StatusOK {
		return nil
	}
	a, _ := ctx.Value(attemptKey{}).(*probe.Attempt)
	if a == nil {
		return fmt.Errorf("proxy %s answered CONNECT with %s", proxy.Host, short(resp.Status))
	}
	return probe.Failf(a, meshv1.Result_PROTOCOL, "proxy %s answered CONNECT with %s", proxy.Host, short(resp.Status))
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

// dialFor is the dial of a transport that knows nothing of checks.
func dialFor(dialer probe.Dialer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		a, _ := ctx.Value(attemptKey{}).(*probe.Attempt)
		if a == nil {
			return nil, fmt.Errorf("dial %s outside of a probe", address)
		}
		return dial(ctx, a, dialer, network, address)
	}
}

// dial connects to host:port.
func dial(ctx context.Context, a *probe.Attempt, dialer probe.Dialer, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	return dialer.Dial(ctx, a, network, host, uint16(number))
}

// traced is the context of one probe.
func (r *runner) traced(ctx context.Context, a *probe.Attempt) context.Context {
	return tracedContext(ctx, a, r.url.Scheme == "https" || r.options.GetFollowRedirects())
}

// tracedContext is a context with the attempt, and the hooks that tell it of phases; those of handshakes only where one is possible.
func tracedContext(ctx context.Context, a *probe.Attempt, secure bool) context.Context {
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
	if secure {
		trace.TLSHandshakeStart = func() { a.Enter(meshv1.Result_HANDSHAKE) }
		trace.TLSHandshakeDone = func(_ tls.ConnectionState, err error) {
			if err != nil {
				probe.NoteHandshakeError(a, err)
			}
		}
	}
	return httptrace.WithClientTrace(context.WithValue(ctx, attemptKey{}, a), trace)
}

// hostPort is the host and the port of a URL, as a transport dials them.
func hostPort(u *url.URL) string { return net.JoinHostPort(u.Hostname(), port(u)) }

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
