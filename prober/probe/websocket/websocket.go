// Package websocket is the kind websocket: the upgrade of an HTTP/1.1 connection (RFC 6455), and messages that are sent and expected, step by step.
//
//	dial, CONNECT through a proxy, TLS -> upgrade (status, headers, subprotocol, compression) -> steps -> close frame
//
// Frames are those of github.com/coder/websocket, over connections of this prober's own dialer, whose phases are timed. A goroutine reads messages while the steps go on, so that pings are answered and pongs
// are seen; it ends with the probe.
//
// What a peer may send is bounded: headers by 64 KiB, a message after decompression by message_limit, everything on the wire and all messages together by read_limit, and all of it by the time of the probe.
package websocket

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	nethttp "net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	ws "github.com/coder/websocket"

	"github.com/probemesh/probemesh/internal/capture"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// runner runs one check of kind websocket.
type runner struct {
	plan    *probe.Plan
	options *meshv1.WebsocketProbe
	target  *spec.Target
	dialer  probe.Dialer
	tls     *tls.Config // nil without TLS
	fresh   *tls.Config // the same, and never resumes a session
	proxy   *url.URL    // nil without a proxy
	header  nethttp.Header
	host    string
	steps   []step
}

// step is one step, compiled.
type step struct {
	*meshv1.WebsocketStep
	name           string
	text           spec.Template
	expect, reject *regexp.Regexp
	capture        *capture.Program
	timeout        time.Duration
}

// awaits tells whether the step waits for a message.
func (s *step) awaits() bool {
	return s.expect != nil || len(s.GetExpectBytes()) > 0 || s.GetExpectType() != 0
}

// Compile makes a runner of a check of kind websocket whose defaults are resolved. There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	o := c.GetWebsocket()
	plan, err := probe.NewPlan(c, o.GetExpect())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: o, target: t, dialer: probe.Dialer{Family: o.GetIpFamily()}}
	if t.Secure {
		if r.tls, err = env.TLSConfig(o.GetTls(), t.Host); err != nil {
			return nil, err
		}
		r.tls.NextProtos = []string{"http/1.1"}
		r.fresh = r.tls.Clone()
		r.fresh.ClientSessionCache = nil
	}
	if o.GetProxyUrl() != "" {
		if r.proxy, err = url.Parse(o.GetProxyUrl()); err != nil {
			return nil, err
		}
	}
	for i, s := range o.GetSteps() {
		compiled, err := compile(s)
		if err != nil {
			return nil, fmt.Errorf("step %d %w", i+1, err)
		}
		if compiled.name == "" {
			compiled.name = strconv.Itoa(i + 1)
		}
		r.steps = append(r.steps, compiled)
	}
	r.headers(env)
	plan.Talk = r.talk
	return r, nil
}

func compile(s *meshv1.WebsocketStep) (out step, err error) {
	out = step{WebsocketStep: s, name: s.GetName(), timeout: s.GetTimeout().AsDuration()}
	if out.text, err = spec.ParseTemplate(s.GetSend(), false); err != nil {
		return out, err
	}
	for _, p := range []struct {
		text string
		into **regexp.Regexp
	}{{s.GetExpect(), &out.expect}, {s.GetReject(), &out.reject}} {
		if p.text == "" {
			continue
		}
		if *p.into, err = spec.Regexp(p.text); err != nil {
			return out, err
		}
	}
	var faults []capture.Fault
	if out.capture, faults = capture.Compile(s.GetCapture(), false); len(faults) > 0 {
		return out, fmt.Errorf("capture %d %s", faults[0].Index+1, faults[0].Problem)
	}
	return out, nil
}

// headers makes the headers of the upgrade request, besides those of the WebSocket itself.
func (r *runner) headers(env probe.Env) {
	o := r.options
	r.header = make(nethttp.Header, len(o.GetHeaders())+3)
	for k, v := range o.GetHeaders() {
		switch {
		case strings.EqualFold(k, "host"):
			r.host = v
		case strings.EqualFold(k, "proxy-authorization") && r.proxy != nil: // for the proxy
		default:
			r.header.Set(k, v)
		}
	}
	if r.header.Get("User-Agent") == "" {
		r.header.Set("User-Agent", env.UserAgent)
	}
	if o.GetOrigin() != "" {
		r.header.Set("Origin", o.GetOrigin())
	}
	switch basic := o.GetBasicAuth(); {
	case basic != nil:
		r.header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(basic.GetUsername()+":"+basic.GetPassword())))
	case o.GetBearerToken() != "":
		r.header.Set("Authorization", "Bearer "+o.GetBearerToken())
	}
}

// Probe implements probe.Runner.
func (r *runner) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	return r.plan.Run(ctx, o)
}

// Close implements probe.Runner.
func (r *runner) Close() {}

func (r *runner) talk(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
	got := &answer{}
	up := &upgrader{runner: r, attempt: a, answer: got}
	defer up.close()
	conn, err := r.open(ctx, a, up)
	if err != nil {
		if got.status == 0 || got.status == nethttp.StatusSwitchingProtocols {
			return got.orNil(), upgradeError(err, a)
		}
		if len(r.steps) == 0 && r.plan.Expect.Reads("status") {
			return got, nil // the expectations decide
		}
		return got, refused(a, got)
	}
	got.subprotocol = conn.Subprotocol()
	got.compressed = strings.Contains(strings.ToLower(got.header.Get("Sec-Websocket-Extensions")), "permessage-deflate")
	s := newSession(ctx, a, r, conn, up)
	defer s.end()
	for i := range r.steps {
		st := &r.steps[i]
		err := a.Step(st.name, func() error {
			if f := s.run(ctx, st); f != nil {
				return f
			}
			return nil
		})
		if err != nil {
			got.failed = st.name
			return got, err
		}
		got.done++
	}
	if captured := s.memory.Captures(); captured != nil {
		a.Captured(captured)
	}
	s.leave()
	return got, nil
}

// open connects and upgrades.
func (r *runner) open(ctx context.Context, a *probe.Attempt, up *upgrader) (*ws.Conn, error) {
	header := r.header
	if t := a.Options().Traceparent; t != "" {
		header = header.Clone()
		header.Set("Traceparent", t)
	}
	options := &ws.DialOptions{
		HTTPClient:     &nethttp.Client{Transport: up, CheckRedirect: func(*nethttp.Request, []*nethttp.Request) error { return nethttp.ErrUseLastResponse }},
		OnPingReceived: func(context.Context, []byte) bool { return up.control() }, OnPongReceived: func(context.Context, []byte) { up.control() },
		HTTPHeader: header, Host: r.host, Subprotocols: r.options.GetSubprotocols(),
	}
	if r.options.GetCompression() {
		options.CompressionMode = ws.CompressionNoContextTakeover
	}
	conn, _, err := ws.Dial(ctx, r.target.URL.String(), options)
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(r.options.GetMessageLimit())
	return conn, nil
}

// refused is the failure of an upgrade that the server answered with another status than 101.
func refused(a *probe.Attempt, got *answer) error {
	hint := ""
	if location := got.header.Get("Location"); location != "" && got.status/100 == 3 {
		hint = " (to " + quote([]byte(location)) + ", which is not followed)"
	}
	return probe.Failf(a, meshv1.Result_PROTOCOL, "the server answered the upgrade with %s%s, not with 101", got.statusText, hint)
}

// upgradeError takes off what the packages below have put around an error.
func upgradeError(err error, a *probe.Attempt) error {
	var failure *probe.Failure
	if errors.As(err, &failure) {
		return failure
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var netError net.Error
	var limit *limitError
	switch {
	case errors.As(err, &limit):
		return probe.Failf(a, meshv1.Result_PROTOCOL, "%v", limit)
	case errors.As(err, &netError), a.Phase() <= meshv1.Result_HANDSHAKE:
		return err
	}
	text := strings.TrimPrefix(err.Error(), "failed to WebSocket dial: ")
	text = strings.TrimPrefix(strings.TrimPrefix(text, "WebSocket protocol violation: "), "WebSocket protcol violation: ")
	if f := probe.Classify(err, a); f.Class != meshv1.Result_PROTOCOL {
		return f
	}
	return probe.Failf(a, meshv1.Result_PROTOCOL, "the answer to the upgrade breaks the protocol: %s", text)
}

// quote shows bytes of the peer in a sentence.
func quote(b []byte) string {
	const most = 120
	if len(b) > most {
		return strconv.Quote(string(b[:most])) + "..."
	}
	return strconv.Quote(string(b))
}
