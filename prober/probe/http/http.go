// Package http is the kind http: requests over HTTP/1.1, HTTP/2 or HTTP/3, and the redirects that follow them.
//
// What is the same for every probe of a check (URL, headers, body, TLS configuration, transports) is made once, by [Compile], or when it is first needed: a plain check of http meets TLS
// only if it is redirected to it. A probe is a visit: it sends the
// request of the check, or its steps one after the other, answers challenges for credentials, follows redirects, keeps cookies meanwhile, and reads the last
// answer. Each request opens a new connection, unless the check asks for keep_alive, so that a probe sees the whole way that a new visitor would take.
//
// An answer is bounded in every direction: headers by 64 KiB, the body by the body limit before and after decompression, informational answers and redirects by
// their number, cookies by 64 KiB in all, and all of it by the timeout of the check.
//
// Credentials, cookies aside, go to the host of the check alone; what other hosts are sent is User-Agent and Accept headers. To a host that only the target named, by a redirect or by what
// was captured of its answers, no body goes either, unless the check says so.
package http

import (
	"context"
	"net"
	nethttp "net/http"
	"net/url"
	"sync"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http/wire"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxResponseHeaders is the most bytes of headers that an answer may have.
const maxResponseHeaders = wire.MaxHeader

// Buffers of a connection, half of what a probe allocates at net/http's 4 KiB each: most requests and heads of answers fit into less, and a body is read past
// the buffer.
const (
	readBuffer  = 2 << 10
	writeBuffer = 1 << 10
)

// runner runs one check of kind http.
type runner struct {
	*manner
	plan    *probe.Plan
	url     *url.URL
	raw     []byte          // the request of the manner as it is sent to the check's own host without a transport; nil where that cannot be known before
	steps   []step          // in place of the request of the manner
	origins map[string]bool // that the steps name without captured values
	whole   bool            // the whole body is needed, by an expectation or by the kind's own judgement
	tokens  *tokens         // OAuth 2.0; nil without
	connect string          // host:port to connect to in place of the check's own; empty for that

	// Transports; nil where the check has no use for them.
	usual   *nethttp.Transport // as the check asks for
	fresh   *nethttp.Transport // never keeps a connection; the same as usual unless the check asks for keep_alive
	foreign *nethttp.Transport // for redirects to other hosts: without server name and client certificate; the same as fresh when it has neither
	// In place of fresh and foreign for probes with full handshakes; nil unless the check resumes sessions.
	full, fullForeign *nethttp.Transport

	mu      sync.Mutex         // guards what is made when it is first needed: see security and handed
	secured *security          // nil until then
	bare    *nethttp.Transport // nil until then
}

// Compile makes a runner of a check of kind http whose defaults are resolved. The caller closes it.
func Compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	o := c.GetHttp()
	plan, err := probe.NewPlan(c, o.GetExpect())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, url: t.URL}
	if r.manner, err = mannerOf(o, env); err != nil {
		return nil, err
	}
	if !r.mayStayClear() {
		if r.secured, err = r.newSecurity(env); err != nil {
			return nil, err
		}
	}
	if r.isPlain() {
		if r.raw, err = wire.Prepare(r.message(hop{request: r.request(), own: true})); err != nil {
			return nil, err
		}
	}
	if r.steps, err = r.compileSteps(c); err != nil {
		return nil, err
	}
	if o.GetResolveTo() != "" {
		r.connect = resolveTo(o.GetResolveTo(), port(r.url))
	}
	r.whole = plan.Expect.Reads("body") || plan.Expect.Reads("json") || o.GetGraphql() != nil
	r.transports(c.GetInterval().AsDuration())
	if o.GetOauth2() != nil {
		if r.tokens, err = newTokens(r, o.GetOauth2(), env); err != nil {
			return nil, err
		}
	}
	plan.Talk = r.talk
	return r, nil
}

// transports makes those transports that the check needs.
func (r *runner) transports(interval time.Duration) {
	if r.isPlain() && !r.options.GetKeepAlive() {
		return
	}
	own, others := r.secured.own, r.secured.others
	r.fresh = r.transport(own, false)
	r.usual, r.foreign = r.fresh, r.fresh
	if others != own {
		r.foreign = r.transport(others, false)
	}
	if r.options.GetTls().GetResumeSessions() {
		r.full, r.fullForeign = r.transport(probe.Anew(own), false), r.transport(probe.Anew(others), false)
	}
	if r.options.GetKeepAlive() {
		r.usual = r.transport(own, true)
		r.usual.IdleConnTimeout = interval + time.Minute
	}
}

// resolveTo completes a host, or a host and a port, with the port.
func resolveTo(text, port string) string {
	if host, own, err := net.SplitHostPort(text); err == nil {
		return net.JoinHostPort(host, own)
	}
	if len(text) > 1 && text[0] == '[' && text[len(text)-1] == ']' {
		text = text[1 : len(text)-1]
	}
	return net.JoinHostPort(text, port)
}

// Probe implements probe.Runner.
func (r *runner) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	return r.plan.Run(ctx, o)
}

// Close implements probe.Runner.
func (r *runner) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range []*nethttp.Transport{r.usual, r.fresh, r.foreign, r.full, r.fullForeign, r.bare} {
		if t != nil {
			t.CloseIdleConnections()
		}
	}
	if r.tokens != nil {
		r.tokens.close()
	}
}
