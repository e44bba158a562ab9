package http

import (
	"net/url"

	nethttp "net/http"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http/wire"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// isPlain tells whether requests to a URL need nothing that only a transport has: HTTP/1.1 in the clear, without a proxy.
func (r *runner) isPlain(u *url.URL) bool {
	o := r.options
	return u.Scheme == "http" && o.GetProxyUrl() == "" && o.GetVersion() != meshv1.HttpProbe_HTTP2
}

// newConnection tells whether the visit asks for a new connection for each request.
func (v *visit) newConnection() bool { return !v.options.GetKeepAlive() || v.a.Options().Fresh }

// plain sends a request without a transport. raw is the request as it is sent; nil makes it.
func (v *visit) plain(req *nethttp.Request, raw []byte) (*nethttp.Response, error) {
	if raw == nil {
		var err error
		if raw, err = wire.Prepare(req); err != nil {
			return nil, err
		}
	}
	conn, err := v.reach(v.base, v.a, "tcp", hostPort(req.URL))
	if err != nil {
		return nil, err
	}
	stop := probe.Watch(v.base, conn)
	v.a.Enter(meshv1.Result_PROCESSING)
	resp, err := wire.Do(conn, raw, req, func() { v.a.Restart(meshv1.Result_PROCESSING) }, func() { v.a.Enter(meshv1.Result_TRANSFER) })
	if err != nil {
		stop()
		return nil, err
	}
	v.stops = append(v.stops, stop)
	return resp, nil
}

// unwatch ends the watches over connections.
func (v *visit) unwatch() {
	for _, stop := range v.stops {
		stop()
	}
}
