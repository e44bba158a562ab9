// Package tls is the kind tls: connect, speak a plain dialogue of STARTTLS if the check asks for one, and complete a TLS handshake.
//
// The chain must verify unless the check says otherwise, and the peer must meet all that the check's TLS options demand: how long certificates are still valid, versions, cipher suites, keys, stapled OCSP
// responses, signed certificate timestamps, pins ([github.com/probemesh/probemesh/prober/probe/tls/inspect] judges them, for every kind that speaks TLS). What else is expected is up to the check's
// expectations over `response.tls`.
//
// What a peer can send is bounded: the dialogue by the limits of [github.com/probemesh/probemesh/prober/probe/starttls], handshake messages to 64 KiB each and certificate messages to 256 KiB
// by crypto/tls, signatures verified for one chain to 100 and RSA keys to 8192 bits by crypto/x509 and crypto/tls, and all of it by the timeout of the check.
package tls

import (
	"context"
	stdtls "crypto/tls"
	"errors"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/starttls"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// runner runs one check of kind tls.
type runner struct {
	plan     *probe.Plan
	target   *spec.Target
	port     uint16
	config   *stdtls.Config
	fresh    *stdtls.Config // never resumes a session; the same as config unless the check asks for that
	dialer   probe.Dialer
	protocol string // of STARTTLS, empty without
	names    starttls.Options
}

// Compile makes a runner of a check of kind tls whose defaults are resolved. There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	o := c.GetTls()
	plan, err := probe.NewPlan(c, o.GetExpect())
	if err != nil {
		return nil, err
	}
	config, err := env.TLSConfig(o.GetTls(), t.Host)
	if err != nil {
		return nil, err
	}
	config.NextProtos = o.GetAlpn()
	resumes := config.ClientSessionCache != nil
	probe.Settling(config)
	r := &runner{plan: plan, target: t, port: t.Port, config: config, fresh: config, dialer: probe.Dialer{Family: o.GetIpFamily()}, protocol: o.GetStarttls(),
		names: starttls.Options{ClientName: o.GetEhloName(), ServerName: config.ServerName}}
	if resumes {
		r.fresh = config.Clone()
		r.fresh.ClientSessionCache = nil
		probe.Settling(r.fresh)
	}
	if port, ok := spec.StartTLSPort(r.protocol); ok && !t.PortGiven {
		r.port = port
	}
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
	conn, err := r.dialer.Dial(ctx, a, "tcp", r.target.Host, r.port)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer probe.Watch(ctx, conn)()
	a.Connecting(conn.RemoteAddr().String())
	if r.protocol != "" {
		a.Enter(meshv1.Result_PROCESSING)
		if err := starttls.Upgrade(ctx, conn, r.protocol, r.names); err != nil {
			return nil, StartTLSFailure(a, r.protocol, err)
		}
	}
	config := r.config
	if a.Options().Fresh {
		config = r.fresh
	}
	ctx = probe.Asking(ctx)
	secure, err := probe.Handshake(ctx, a, conn, config)
	if err != nil {
		return nil, err
	}
	a.Done()
	return answer{}, probe.Settle(ctx, secure, config)
}

// StartTLSFailure is the failure of a dialogue that did not come to TLS, in the phase that the attempt is in: of class TLS when the peer has none to offer, of class PROTOCOL when it speaks something else. What the network
// says is left as it is.
func StartTLSFailure(a *probe.Attempt, protocol string, err error) error {
	var e *starttls.Error
	if !errors.As(err, &e) {
		return err
	}
	class := meshv1.Result_PROTOCOL
	if e.NoTLS {
		class = meshv1.Result_TLS
	}
	return probe.Failf(a, class, "STARTTLS (%s) with %s: %s", protocol, a.Remote(), e.Sentence)
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
