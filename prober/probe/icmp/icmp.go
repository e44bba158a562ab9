// Package icmp is the kind icmp: echo requests and their round trips, over IPv4 and IPv6.
//
// It uses an unprivileged datagram socket where the system allows one (net.ipv4.ping_group_range on Linux), else a raw socket, which needs
// CAP_NET_RAW. Where neither can be opened the check is refused and another prober may run it; see [Available].
//
// Every probe has a socket of its own, connected to its target, and an id of its own, which is random: a firewall that has taken a dislike to one id drops one
// probe and not all of a prober. One shared socket would save the opening and closing, about half of the 45 microseconds of CPU that a probe costs (see BenchmarkSocket), but an unprivileged socket
// has one id, and a raw one sees every ICMP packet of the machine; blackbox_exporter spends 840 microseconds on the same probe.
//
// A packet is believed when it comes from the target and has the id, the number and the token (128 random bits in the payload) of a request that still waits. A
// message of a router is believed when it quotes the same. The second reply to a request, one that comes too late and one whose payload has changed are counted
// and do not count as received. A target that floods the prober is read no further than [maxArrivals] packets.
package icmp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// defaultInterval is the time between two requests, unless that would not fit into half of the timeout.
const defaultInterval = 100 * time.Millisecond

// maxArrivals is how many packets a probe looks at besides ten for each request.
const maxArrivals = 1000

// runner runs one check of kind icmp.
type runner struct {
	plan     *probe.Plan
	options  *meshv1.IcmpProbe
	target   *spec.Target
	dialer   probe.Dialer
	settings settings
	interval time.Duration
	within   time.Duration // how long a reply may take
}

// Compile makes a runner of a check of kind icmp whose defaults are resolved. The error is a *probe.Refusal where the prober cannot send echo requests.
// There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	if !env.Can(string(spec.ICMP)) {
		return nil, &probe.Refusal{Capability: string(spec.ICMP), Reason: Unavailable}
	}
	o := c.GetIcmp()
	plan, err := probe.NewPlan(c, o.GetExpect())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: o, target: t, dialer: probe.Dialer{Family: o.GetIpFamily()},
		settings: settings{hopLimit: int(o.GetHopLimit()), dontFragment: o.GetDontFragment(), payload: int(o.GetPayloadSize())}}
	if o.GetSourceAddress() != "" {
		if r.settings.source, err = netip.ParseAddr(o.SourceAddress); err != nil {
			return nil, fmt.Errorf("icmp.source_address: %w", err)
		}
	}
	r.interval = min(defaultInterval, plan.Timeout/2/time.Duration(o.GetCount()))
	if o.Interval != nil {
		r.interval = o.Interval.AsDuration()
	}
	r.within = plan.Timeout
	if o.ReplyWithin != nil {
		r.within = o.ReplyWithin.AsDuration()
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
	a.Meeting(r.target.Host)
	addrs, err := r.dialer.Resolve(ctx, a, r.target.Host)
	if err != nil {
		return nil, err
	}
	a.Enter(meshv1.Result_CONNECT)
	to, err := r.choose(addrs)
	if err != nil {
		return nil, err
	}
	a.Connecting(to.String())
	if err := a.Options().Fence.Permits(to); err != nil {
		return nil, err
	}
	s := r.settings
	s.to = to
	conn, err := open(s)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	stop := context.AfterFunc(ctx, conn.close) // ends a wait at once when the probe is cancelled
	defer stop()
	x := &exchange{runner: r, attempt: a, socket: conn, requests: newRequests(conn.v4, int(r.options.GetCount()), int(r.options.GetPayloadSize())),
		answer: &answer{options: r.options, timeout: a.Timeout(), v4: conn.v4, trips: make([]time.Duration, r.options.GetCount())}}
	x.requests.id = conn.id
	err = x.run(ctx)
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = ctx.Err()
	}
	return x.answer, err
}

// choose is the first address that the source address can send to.
func (r *runner) choose(addrs []netip.Addr) (netip.Addr, error) {
	if !r.settings.source.IsValid() {
		return addrs[0].Unmap(), nil
	}
	v4 := r.settings.source.Unmap().Is4()
	for _, to := range addrs {
		if to.Unmap().Is4() == v4 {
			return to.Unmap(), nil
		}
	}
	return netip.Addr{}, &probe.Failure{Class: meshv1.Result_NAME_NOT_FOUND, Phase: meshv1.Result_RESOLVE,
		Sentence: fmt.Sprintf("resolve %s: it has no address of the IP family of icmp.source_address %s", r.target.Host, r.settings.source)}
}

// exchange is the sending and receiving of one probe.
type exchange struct {
	runner   *runner
	attempt  *probe.Attempt
	socket   *socket
	requests *requests
	answer   *answer
	settled  int // requests that need not be waited for any more
	arrivals int
}

// run sends the requests at their times and reads replies in between, until all are settled or the time is up.
func (x *exchange) run(ctx context.Context) error {
	count, begin := len(x.requests.states), time.Now()
	deadline, _ := ctx.Deadline()
	var got arrival
	for x.settled < count {
		now := time.Now()
		next := begin.Add(time.Duration(x.answer.sent) * x.runner.interval)
		if x.answer.sent < count && !now.Before(next) {
			if err := x.send(now); err != nil {
				return err
			}
			continue
		}
		until := next
		if x.answer.sent == count {
			until = x.requests.sent[count-1].Add(x.runner.within)
		}
		if deadline.Before(until) {
			until = deadline
		}
		ok, err := x.socket.receive(until, &got)
		switch {
		case ctx.Err() != nil:
			return nil // the caller tells a cancelled probe from one whose time is up
		case err != nil:
			return err
		case ok:
			x.took(&got, time.Now())
		case x.answer.sent == count && !time.Now().Before(until):
			return nil
		}
		if x.arrivals > maxArrivals+10*count {
			return probe.Failf(x.attempt, meshv1.Result_PROTOCOL, "the target sent more than %d packets for %d echo requests", maxArrivals+10*count, x.answer.sent)
		}
	}
	return nil
}

// send sends the next request.
func (x *exchange) send(now time.Time) error {
	i := x.answer.sent
	packet := x.requests.request(i)
	x.requests.sent[i], x.requests.states[i] = now, waiting
	if err := x.socket.send(packet); err != nil {
		if errors.Is(err, syscall.EMSGSIZE) {
			return x.tooLong()
		}
		return err
	}
	if x.answer.sent++; i == 0 {
		x.attempt.Enter(meshv1.Result_PROCESSING)
	}
	return nil
}

// tooLong is the failure of a packet that the prober's own link cannot carry. It is the prober's fault: nothing is known of the target.
func (x *exchange) tooLong() error {
	size := x.runner.options.GetPayloadSize()
	if !x.runner.options.GetDontFragment() {
		return &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT,
			Sentence: fmt.Sprintf("this prober's network cannot send %d bytes of payload; lower icmp.payload_size", size)}
	}
	mtu := ""
	if m := x.socket.linkMTU(); m > 0 {
		mtu = fmt.Sprintf(", of MTU %d (%d bytes of payload)", m, max(0, m-overhead(x.socket.v4)))
	}
	return &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT,
		Sentence: fmt.Sprintf("this prober's own link%s cannot send %d bytes of payload unfragmented (message too long); lower icmp.payload_size, or run the check where links are larger", mtu, size)}
}

// overhead is how many bytes of a packet are not payload.
func overhead(v4 bool) int {
	if v4 {
		return 20 + headerLen
	}
	return 40 + headerLen
}

// took looks at a packet.
func (x *exchange) took(p *arrival, now time.Time) {
	x.arrivals++
	q, g := x.requests, x.answer
	if p.error {
		if i, ok := q.quoted(p.packet); ok && q.states[i] == waiting {
			q.states[i] = sentBack
			x.settled++
			g.refused(p)
		}
		return
	}
	i, intact, ok := q.reply(p.packet)
	if !ok {
		return
	}
	trip := now.Sub(q.sent[i])
	if p.aged < trip { // else the clock has been set since
		trip -= p.aged
	}
	switch {
	case q.states[i] == answered || q.states[i] == expired:
		g.duplicates++
	case !intact:
		g.corrupted++
	case trip > x.runner.within:
		g.late++
		x.settle(i, expired)
	default:
		x.settle(i, answered)
		g.replied(i, trip, p.hops)
		if g.received == 1 {
			x.attempt.Enter(meshv1.Result_TRANSFER)
		}
	}
}

// settle notes what became of a request.
func (x *exchange) settle(i int, s state) {
	if x.requests.states[i] == waiting {
		x.settled++
	}
	x.requests.states[i] = s
}
