// Package udp is the kind udp: send datagrams, and see which of them are answered, how fast and by what; or hold a dialogue of datagrams.
//
// Each datagram has a socket of its own, connected to the target, so that the kernel takes answers from the target alone, an answer is never taken for another
// datagram's, and an ICMP message that the port is unreachable is that datagram's refusal. With `steps`, one socket holds a dialogue (see [dialogue]) in which each datagram is one line.
//
// Silence is not an answer: it is what a dead host says too. Unless the check says that its service never answers, a probe without an answer fails.
package udp

import (
	"context"
	"errors"
	"regexp"
	"sync"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/dialogue"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// maxDatagram is the largest payload of UDP over IPv4.
	maxDatagram = 65_507
	// maxUnmatched is how many answers to one datagram are passed over.
	maxUnmatched = 16
	// maxKept is how much of an answer is kept for the expectations and the evidence.
	maxKept = 64 << 10
	// refusal is how long is waited for an ICMP message where no answer is needed.
	refusal = time.Second
)

// runner runs one check of kind udp.
type runner struct {
	plan     *probe.Plan
	options  *meshv1.UdpProbe
	target   *spec.Target
	dialer   probe.Dialer
	payload  []byte
	match    *regexp.Regexp
	dialogue *dialogue.Dialogue
	buffers  sync.Pool
}

// Compile makes a runner of a check of kind udp whose defaults are resolved. There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, _ probe.Env) (probe.Runner, error) {
	o := c.GetUdp()
	plan, err := probe.NewPlan(c, o.GetExpect())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: o, target: t, dialer: probe.Dialer{Family: o.GetIpFamily()}, payload: o.GetSendBytes()}
	if o.GetSend() != "" {
		r.payload = []byte(o.GetSend())
	}
	if o.GetMatch() != "" {
		if r.match, err = spec.Regexp(o.GetMatch()); err != nil {
			return nil, err
		}
	}
	if len(o.GetSteps()) > 0 {
		steps, err := dialogue.Compile(o.GetSteps())
		if err != nil {
			return nil, err
		}
		r.dialogue = &dialogue.Dialogue{Steps: steps, ReadLimit: maxKept, LineLimit: maxKept, Datagrams: true}
	}
	r.buffers.New = func() any { return new([maxDatagram]byte) }
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
	conn, err := r.dialer.Dial(ctx, a, "udp", r.target.Host, r.target.Port)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	a.Connecting(conn.RemoteAddr().String())
	if r.dialogue != nil {
		defer probe.Watch(ctx, conn)()
		record, err := r.dialogue.Hold(ctx, a, conn)
		return &spoken{record}, err
	}
	got := &answer{options: r.options, timeout: a.Timeout(), patience: a.Timeout()}
	if r.options.GetAnswerOptional() {
		got.patience = min(refusal, a.Timeout()/2)
	}
	shots := r.volley(ctx, a, conn, got.patience)
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return got, err
	}
	for _, s := range shots {
		if err := got.add(s); err != nil {
			return got, err
		}
	}
	if got.failed != nil && len(got.trips) == 0 && got.refused == 0 {
		return got, got.failed
	}
	return got, nil
}
