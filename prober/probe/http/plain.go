package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	nethttp "net/http"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http/wire"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// isPlain tells whether requests need nothing that only a transport has: no proxy, and HTTP/1.1, or TLS that may negotiate it.
func (r *runner) isPlain() bool {
	switch r.options.GetVersion() {
	case meshv1.HttpProbe_HTTP2, meshv1.HttpProbe_HTTP3:
		return false
	}
	return r.options.GetProxyUrl() == ""
}

// newConnection tells whether the visit asks for a new connection for each request.
func (v *visit) newConnection() bool { return !v.options.GetKeepAlive() || v.a.Options().Fresh }

// plain sends a request without a transport, unless TLS negotiates HTTP/2, which is left to one. A nil req is the request of the hop as it was prepared.
func (v *visit) plain(h hop, req *nethttp.Request) (*nethttp.Response, error) {
	conn, err := v.reach(v.base, v.a, "tcp", hostPort(h.url))
	if err != nil {
		return nil, err
	}
	v.stops = append(v.stops, probe.Watch(v.base, conn))
	var state *tls.ConnectionState
	if h.url.Scheme == "https" {
		secure, err := v.handshake(conn, h.url, h.own)
		if err != nil {
			conn.Close()
			return nil, err
		}
		negotiated := secure.ConnectionState()
		if negotiated.NegotiatedProtocol == "h2" {
			return v.hand(h, req, secure)
		}
		conn, state = secure, &negotiated
	}
	raw := h.raw
	if req != nil {
		if raw, err = wire.Prepare(req); err != nil {
			conn.Close()
			return nil, err
		}
	}
	v.a.Enter(meshv1.Result_PROCESSING)
	resp, err := wire.Do(conn, raw, h.method, func() { v.a.Restart(meshv1.Result_PROCESSING) }, func() { v.a.Enter(meshv1.Result_TRANSFER) })
	if err != nil {
		return nil, err
	}
	resp.TLS = state
	return resp, nil
}

// hand leaves a request, as in plain, to a transport that sends it by HTTP/2 over conn, which is closed with the body of the answer, or before hand returns an error.
func (v *visit) hand(h hop, req *nethttp.Request, conn net.Conn) (*nethttp.Response, error) {
	if req == nil {
		req = v.message(h)
	}
	ctx := context.WithValue(tracedContext(v.base, v.a, false), connectionKey{}, conn)
	resp, err := v.single(v.handed(), req.WithContext(ctx))
	if err != nil {
		conn.Close()
	}
	return resp, err
}

// single sends a request over a connection of its own, which ends when the body of the answer is closed. The transport's pool knows hosts alone: there, probes that run at the same time, of
// several addresses of one name for instance, would be answered over each other's connections.
func (v *visit) single(t *nethttp.Transport, req *nethttp.Request) (*nethttp.Response, error) {
	conn, err := t.NewClientConn(req.Context(), req.URL.Scheme, hostPort(req.URL))
	if err != nil {
		return nil, err
	}
	v.a.Enter(meshv1.Result_PROCESSING)
	resp, err := conn.RoundTrip(req)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	resp.Body = &singleBody{ReadCloser: resp.Body, conn: conn}
	return resp, nil
}

// singleBody ends its connection when it is closed.
type singleBody struct {
	io.ReadCloser
	conn *nethttp.ClientConn
}

// Close implements io.Closer.
func (b *singleBody) Close() error {
	return errors.Join(b.ReadCloser.Close(), b.conn.Close())
}

// connectionKey is the context key of the connection that a request is to be sent over.
type connectionKey struct{}

// handed is a transport that does not connect: requests bring their connections along. It is made when a server first chooses HTTP/2, and closed by Close.
func (r *runner) handed() *nethttp.Transport {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bare != nil {
		return r.bare
	}
	r.bare = r.transport(nil, false)
	r.bare.DialContext = nil
	r.bare.DialTLSContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		conn, ok := ctx.Value(connectionKey{}).(net.Conn)
		if !ok {
			return nil, fmt.Errorf("dial %s without a connection", address)
		}
		return conn, nil
	}
	return r.bare
}

// alpn are the protocols that TLS may negotiate.
func (r *runner) alpn() []string {
	if r.options.GetVersion() == meshv1.HttpProbe_HTTP1 {
		return []string{"http/1.1"}
	}
	return []string{"h2", "http/1.1"}
}

// unwatch ends the watches over connections.
func (v *visit) unwatch() {
	for _, stop := range v.stops {
		stop()
	}
}
