// Package tls is the kind tls: connect and complete a TLS handshake. The chain must verify unless the check says otherwise; what else is expected of it
// (days left, version, names) is up to the check's expectations over `response.tls`.
package tls

import (
	"context"
	stdtls "crypto/tls"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// runner runs one check of kind tls.
type runner struct {
	plan   *probe.Plan
	target *spec.Target
	config *stdtls.Config
	dialer probe.Dialer
}

// Compile makes a runner of a check of kind tls whose defaults are resolved. There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, _ probe.Env) (probe.Runner, error) {
	plan, err := probe.NewPlan(c, c.GetTls().GetExpect())
	if err != nil {
		return nil, err
	}
	config, err := probe.TLSConfig(c.GetTls().GetTls(), t.Host)
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, target: t, config: config, dialer: probe.Dialer{Family: c.GetTls().GetIpFamily()}}
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
	if _, err := probe.Handshake(ctx, a, conn, r.config); err != nil {
		return nil, err
	}
	return answer{}, nil
}

// answer is a completed handshake, of which the attempt knows everything.
type answer struct{}

// Record implements probe.Answer.
func (answer) Record(*meshv1.Result) {}

// Respond implements probe.Answer.
func (answer) Respond(*meshv1.Response, *expect.Program) {}

// Judge implements probe.Answer.
func (answer) Judge(bool) *probe.Failure { return nil }

// Evidence implements probe.Answer.
func (answer) Evidence(*meshv1.Evidence) {}
