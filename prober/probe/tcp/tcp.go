// Package tcp is the kind tcp: connect, and where the check says so send something and read until its expectations hold.
//
// A connection that is accepted is a good answer when there is nothing to send or to expect. With `send` alone, writing it is enough. With `expect`, bytes are
// read until all expectations hold, the peer closes, the read limit is reached or the time is up, whichever comes first; the expectations are tried
// again after each piece.
package tcp

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// runner runs one check of kind tcp.
type runner struct {
	plan    *probe.Plan
	options *meshv1.TcpProbe
	target  *spec.Target
	dialer  probe.Dialer
}

// Compile makes a runner of a check of kind tcp whose defaults are resolved. There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, _ probe.Env) (probe.Runner, error) {
	plan, err := probe.NewPlan(c, c.GetTcp().GetExpect())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: c.GetTcp(), target: t, dialer: probe.Dialer{Family: c.GetTcp().GetIpFamily()}}
	plan.Talk = r.talk
	return r, nil
}

// Probe implements probe.Runner.
func (r *runner) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	return r.plan.Run(ctx, o)
}

// Close implements probe.Runner.
func (r *runner) Close() {}

func (r *runner) talk(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
	conn, err := r.dialer.Dial(ctx, a, "tcp", r.target.Host, r.target.Port)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer probe.Watch(ctx, conn)()
	a.Connecting(conn.RemoteAddr().String())
	got := &answer{}
	if r.options.GetSend() == "" && r.plan.Expect.Len() == 0 {
		return got, nil
	}
	a.Enter(meshv1.Result_PROCESSING)
	if send := r.options.GetSend(); send != "" {
		if _, err := io.WriteString(conn, send); err != nil {
			return got, err
		}
		a.Restart(meshv1.Result_PROCESSING)
	}
	if r.plan.Expect.Len() == 0 {
		return got, nil
	}
	return got, r.read(a, conn, got)
}

// read reads until the expectations hold or nothing more will come. That they do not hold is left to the plan to say.
func (r *runner) read(a *probe.Attempt, conn net.Conn, got *answer) error {
	limit := int(r.options.GetReadLimit())
	buffer := make([]byte, 4<<10)
	tried := 0
	for {
		n, err := conn.Read(buffer[:min(len(buffer), limit-len(got.received))])
		if n > 0 && len(got.received) == 0 {
			a.Enter(meshv1.Result_TRANSFER)
		}
		got.received = append(got.received, buffer[:n]...)
		// Trying again costs in proportion to what there is: after a quarter more, the whole stays linear.
		due := len(got.received) < 64<<10 || len(got.received) >= tried+tried/4
		if n > 0 && due {
			tried = len(got.received)
			if r.plan.Holds(a, got) {
				return nil
			}
		}
		switch {
		case len(got.received) >= limit:
			return nil
		case err == nil:
		case errors.Is(err, io.EOF):
			got.closed = true
			return nil
		case len(got.received) > 0 && isTimeout(err):
			return nil // the expectations say what was missing
		default:
			return err
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// answer is what was received.
type answer struct {
	received []byte
	closed   bool
}

// Record implements probe.Answer.
func (g *answer) Record(*meshv1.Result) {}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, _ *expect.Program) {
	r.Body = strings.ToValidUTF8(string(g.received), "\uFFFD")
}

// Judge implements probe.Answer.
func (g *answer) Judge(expected bool) *probe.Failure {
	if expected && g.closed && len(g.received) == 0 {
		return &probe.Failure{Class: meshv1.Result_CONNECTION_RESET, Phase: meshv1.Result_PROCESSING,
			Sentence: "the peer closed the connection without sending anything"}
	}
	return nil
}

// Evidence implements probe.Answer.
func (g *answer) Evidence(e *meshv1.Evidence) { probe.EvidenceBody(e, g.received, false) }
