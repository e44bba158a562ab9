// Package icmp is the kind icmp: echo requests and their round trips, over IPv4 and IPv6.
//
// It uses an unprivileged datagram socket where the system allows one (net.ipv4.ping_group_range on Linux), else a raw socket, which needs
// CAP_NET_RAW. Where neither can be opened the check is refused and another prober may run it; see [Available].
package icmp

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxGap is the time between two requests, unless that would not fit into half of the timeout.
const maxGap = 100 * time.Millisecond

// runner runs one check of kind icmp.
type runner struct {
	plan    *probe.Plan
	options *meshv1.IcmpProbe
	target  *spec.Target
	dialer  probe.Dialer
}

// Compile makes a runner of a check of kind icmp whose defaults are resolved. The error is a *probe.Refusal where the prober cannot send echo requests.
// There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	if !env.Can(string(spec.ICMP)) {
		return nil, &probe.Refusal{Capability: string(spec.ICMP), Reason: Unavailable}
	}
	plan, err := probe.NewPlan(c, c.GetIcmp().GetExpect())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: c.GetIcmp(), target: t, dialer: probe.Dialer{Family: c.GetIcmp().GetIpFamily()}}
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
	a.Meeting(r.target.Host)
	addrs, err := r.dialer.Resolve(ctx, a, r.target.Host)
	if err != nil {
		return nil, err
	}
	a.Enter(meshv1.Result_CONNECT)
	a.Connecting(addrs[0].String())
	s, err := open(addrs[0], int(r.options.GetPayloadSize()))
	if err != nil {
		return nil, err
	}
	defer s.close()
	stop := context.AfterFunc(ctx, s.close) // ends a read at once when the probe is cancelled
	defer stop()
	got := &answer{timeout: a.Timeout()}
	if err := r.exchange(ctx, a, s, got); err != nil {
		return got, err
	}
	return got, nil
}

// exchange sends the requests at their times and reads replies in between, until all are back or the time is up.
func (r *runner) exchange(ctx context.Context, a *probe.Attempt, s *socket, got *answer) error {
	count := int(r.options.GetCount())
	gap := min(maxGap, a.Timeout()/2/time.Duration(count))
	deadline, _ := ctx.Deadline()
	begin := time.Now()
	for {
		if next := begin.Add(time.Duration(got.sent) * gap); got.sent < count && !time.Now().Before(next) {
			if err := s.send(got.sent); err != nil {
				return err
			}
			got.sent++
			if got.sent == 1 {
				a.Enter(meshv1.Result_PROCESSING)
			}
			continue
		}
		until := deadline
		if next := begin.Add(time.Duration(got.sent) * gap); got.sent < count && next.Before(until) {
			until = next
		}
		reply, err := s.receive(until)
		switch {
		case ctx.Err() != nil || !time.Now().Before(deadline):
			if ctx.Err() == context.Canceled { //nolint:errorlint // Err returns the value itself
				return ctx.Err()
			}
			return nil
		case err != nil:
			return err
		case reply == nil: // time to send the next one
		case reply.unreachable:
			got.unreachable++
		default:
			got.add(reply)
			if len(got.trips) == 1 {
				a.Enter(meshv1.Result_TRANSFER)
			}
		}
		if len(got.trips)+got.unreachable >= count {
			return nil
		}
	}
}

// answer is what came back.
type answer struct {
	timeout     time.Duration
	sent        int
	unreachable int
	trips       []time.Duration
	hopLimit    int
}

func (g *answer) add(r *reply) {
	g.trips = append(g.trips, r.trip)
	if r.hopLimit > 0 {
		g.hopLimit = r.hopLimit
	}
}

// span is the shortest, mean and longest round trip, nil without any.
func (g *answer) span() (least, mean, most *durationpb.Duration) {
	if len(g.trips) == 0 {
		return nil, nil, nil
	}
	low, high, sum := g.trips[0], g.trips[0], time.Duration(0)
	for _, t := range g.trips {
		low, high, sum = min(low, t), max(high, t), sum+t
	}
	return durationpb.New(low), durationpb.New(sum / time.Duration(len(g.trips))), durationpb.New(high)
}

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	least, mean, most := g.span()
	r.Icmp = &meshv1.IcmpResult{Sent: int32(g.sent), Received: int32(len(g.trips)), RttMin: least, RttAvg: mean, RttMax: most, HopLimit: int32(g.hopLimit)}
}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, _ *expect.Program) {
	least, mean, most := g.span()
	r.Icmp = &meshv1.ResponseIcmp{Sent: int64(g.sent), Received: int64(len(g.trips)), RttMin: least, RttAvg: mean, RttMax: most}
	if g.sent > 0 {
		r.Icmp.Loss = float64(g.sent-len(g.trips)) / float64(g.sent)
	}
}

// Judge implements probe.Answer.
func (g *answer) Judge(expected bool) *probe.Failure {
	switch {
	case expected || len(g.trips) > 0:
		return nil
	case g.unreachable > 0:
		return &probe.Failure{Class: meshv1.Result_UNREACHABLE, Phase: meshv1.Result_PROCESSING,
			Sentence: fmt.Sprintf("a router says that the destination is unreachable (%d of %d echo requests)", g.unreachable, g.sent)}
	}
	return &probe.Failure{Class: meshv1.Result_TIMEOUT, Phase: meshv1.Result_PROCESSING,
		Sentence: fmt.Sprintf("none of %d echo requests was answered within %s", g.sent, g.timeout)}
}

// Evidence implements probe.Answer.
func (g *answer) Evidence(e *meshv1.Evidence) {
	e.StatusLine = fmt.Sprintf("%d echo requests sent, %d replies, %d unreachable", g.sent, len(g.trips), g.unreachable)
}
