// Package tcp is the kind tcp: connect over TCP or to a Unix socket of this machine, and where the check says so begin TLS, hold a dialogue, or send something and read until its expectations hold.
//
// A connection that is accepted is a good answer when there is nothing to send or to expect. With `send` alone, writing it is enough. With `expect`, bytes are
// read until all expectations hold, the peer closes, the read limit is reached or the time is up, whichever comes first; the expectations are tried
// again as more comes. With `steps` a dialogue is held (see [dialogue]), and the expectations are evaluated once, after it.
package tcp

import (
	"context"
	stdtls "crypto/tls"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/dialogue"
	"github.com/probemesh/probemesh/prober/probe/starttls"
	"github.com/probemesh/probemesh/prober/probe/tls"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// runner runs one check of kind tcp.
type runner struct {
	plan     *probe.Plan
	options  *meshv1.TcpProbe
	target   *spec.Target
	dialer   probe.Dialer
	dialogue dialogue.Dialogue
	secure   *stdtls.Config // nil without TLS
	fresh    *stdtls.Config // never resumes a session; the same as secure unless the check asks for that
	send     string
	silent   bool // there is nothing to send and nothing to expect
}

// Compile makes a runner of a check of kind tcp whose defaults are resolved. There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	o := c.GetTcp()
	plan, err := probe.NewPlan(c, o.GetExpect())
	if err != nil {
		return nil, err
	}
	steps, err := dialogue.Compile(o.GetSteps())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: o, target: t, dialer: probe.Dialer{Family: o.GetIpFamily()}, send: o.GetSend()}
	r.dialogue = dialogue.Dialogue{Steps: steps, ReadLimit: int(o.GetReadLimit()), LineLimit: int(o.GetLineLimit())}
	if len(o.GetSendBytes()) > 0 {
		r.send = string(o.GetSendBytes())
	}
	r.silent = r.send == "" && len(steps) == 0 && plan.Expect.Len() == 0
	if o.GetTls() != nil {
		if err := r.encrypt(o.GetTls(), env); err != nil {
			return nil, err
		}
	}
	plan.Talk = r.talk
	return r, nil
}

// encrypt prepares TLS.
func (r *runner) encrypt(o *meshv1.TlsConfig, env probe.Env) (err error) {
	if r.secure, err = env.TLSConfig(o, r.target.Host); err != nil {
		return err
	}
	resumes := r.secure.ClientSessionCache != nil
	if r.silent {
		probe.Settling(r.secure)
	}
	if r.fresh = r.secure; resumes {
		r.fresh = r.secure.Clone()
		r.fresh.ClientSessionCache = nil
		if r.silent {
			probe.Settling(r.fresh)
		}
	}
	return nil
}

// Probe implements probe.Runner.
func (r *runner) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	return r.plan.Run(ctx, o)
}

// Close implements probe.Runner.
func (r *runner) Close() {}

func (r *runner) talk(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
	conn, err := r.dial(ctx, a)
	if err != nil {
		return nil, err
	}
	at := r.options.GetUseTls() || r.options.GetStarttls() != "" // whether TLS begins before anything else
	if r.silent && !at {
		conn.Close()
		return nil, nil
	}
	got := &answer{record: &dialogue.Record{Conn: conn}}
	defer func() { got.record.Conn.Close() }()
	defer probe.Watch(ctx, conn)()
	config := r.secure
	if a.Options().Fresh {
		config = r.fresh
	}
	if at {
		if err := r.upgrade(ctx, a, got.record, config); err != nil {
			return got, err
		}
	}
	if r.silent {
		return got, nil
	}
	if len(r.dialogue.Steps) > 0 {
		d := r.dialogue
		d.TLS = config
		got.record, err = d.Hold(ctx, a, got.record.Conn)
		return got, err
	}
	return got, r.single(ctx, a, got)
}

// upgrade begins TLS, after the dialogue of a protocol if there is one, and puts it in place of the connection.
func (r *runner) upgrade(ctx context.Context, a *probe.Attempt, record *dialogue.Record, config *stdtls.Config) error {
	if protocol := r.options.GetStarttls(); protocol != "" {
		a.Enter(meshv1.Result_PROCESSING)
		if err := starttls.Upgrade(ctx, record.Conn, protocol, starttls.Options{ServerName: config.ServerName}); err != nil {
			return tls.StartTLSFailure(a, protocol, err)
		}
	}
	if r.silent {
		ctx = probe.Asking(ctx)
	}
	secure, err := probe.Handshake(ctx, a, record.Conn, config)
	if err != nil {
		return err
	}
	record.Conn = secure
	if !r.silent {
		return nil
	}
	a.Enter(meshv1.Result_PHASE_UNSPECIFIED)
	if err := probe.Settle(ctx, secure, config); err != nil {
		a.Enter(meshv1.Result_HANDSHAKE)
		return err
	}
	return nil
}

// dial connects.
func (r *runner) dial(ctx context.Context, a *probe.Attempt) (net.Conn, error) {
	if r.target.Path == "" {
		conn, err := r.dialer.Dial(ctx, a, "tcp", r.target.Host, r.target.Port)
		if err == nil && !r.silent {
			a.Connecting(conn.RemoteAddr().String())
		}
		return conn, err
	}
	a.Meeting(r.target.Path)
	a.Enter(meshv1.Result_CONNECT)
	a.Connecting(r.target.Path)
	if err := a.Options().Fence.PermitsSocket(r.target.Path); err != nil {
		return nil, err
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", r.target.Path)
}

// single sends the one text there is and reads until the expectations hold or nothing more will come. That they do not hold is left to the plan to say.
func (r *runner) single(ctx context.Context, a *probe.Attempt, got *answer) error {
	reader := dialogue.Reader{Conn: got.record.Conn, Limit: r.dialogue.ReadLimit}
	reader.Await(a)
	if r.send != "" {
		n, err := io.WriteString(reader.Conn, r.send)
		got.record.Sent = int64(n)
		if err != nil {
			return err
		}
		a.Restart(meshv1.Result_PROCESSING)
	}
	if r.plan.Expect.Len() == 0 {
		return nil
	}
	deadline, _ := ctx.Deadline()
	err := reader.Until(ctx, a, deadline, 0, func(text []byte) bool {
		got.record.Bytes = text
		return r.plan.Holds(a, got)
	})
	got.record.Bytes, got.record.Received = reader.Bytes, int64(len(reader.Bytes))
	var limit *dialogue.LimitError
	switch {
	case err == nil, errors.As(err, &limit):
		return nil
	case errors.Is(err, io.EOF):
		got.closed = true
		return nil
	case len(reader.Bytes) > 0 && isTimeout(err):
		return nil // the expectations say what was missing
	}
	return err
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// answer is what was said.
type answer struct {
	record *dialogue.Record
	closed bool
}

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) { r.Tcp = g.record.Result() }

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, p *expect.Program) {
	if p.Reads("body") {
		r.Body = strings.ToValidUTF8(string(g.record.Bytes), "\uFFFD")
	}
}

// Judge implements probe.Answer.
func (g *answer) Judge(expected bool) *probe.Failure {
	if expected && g.closed && len(g.record.Bytes) == 0 {
		return &probe.Failure{Class: meshv1.Result_CONNECTION_RESET, Phase: meshv1.Result_PROCESSING,
			Sentence: "the peer closed the connection without sending anything"}
	}
	return nil
}

// Evidence implements probe.Answer. Of a dialogue that failed it shows what the failing step received, if that is anything.
func (g *answer) Evidence(e *meshv1.Evidence) {
	body := g.record.Bytes
	if newest := g.record.Newest(); g.record.Failed != "" && len(newest) > 0 {
		body = newest
	}
	probe.EvidenceBody(e, body, false)
}
