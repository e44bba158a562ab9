// Package each probes every address of a name, instead of whichever connects first, so that a dead one behind a living one is seen.
//
// [Wrap] puts itself around the runner of any kind. One probe resolves the name once and lets that runner probe each address, pinned ([probe.Options.Pin]), all at the same
// time and within the timeout of the check, and makes one result of theirs:
//
//   - FAIL when fewer than min_healthy of them are OK (by default: when any fails), with the class and the evidence of the first that fails;
//   - OK and degraded when enough, but not all, are OK, or when one of them is degraded itself;
//   - ERROR when it is the prober's own fault that not enough are known to be OK. An address that this prober cannot reach by a fault of its own (such as IPv6, which it
//     lacks) speaks neither for nor against the target.
//
// The details of the result (timings, status, certificate) are those of the first address that fails, or of the slowest when none does; its duration is that of the whole.
package each

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// runner probes each address of one host by another runner.
type runner struct {
	inner   probe.Runner
	plan    *probe.Plan
	host    string
	resolve func(ctx context.Context, a *probe.Attempt, host string) ([]netip.Addr, error)
	most    int
	healthy int // 0 for all
}

// Wrap makes a runner of a check with each_address, whose defaults are resolved: it probes each address of the host by inner, which it owns from now on. Closing it closes inner.
func Wrap(c *meshv1.Check, host string, family meshv1.IpFamily_Preference, inner probe.Runner) probe.Runner {
	r := &runner{inner: inner, host: host, resolve: (&probe.Dialer{Family: family}).Resolve,
		most: int(c.GetEachAddress().GetMaxAddresses()), healthy: int(c.GetEachAddress().GetMinHealthy())}
	r.plan = &probe.Plan{Check: c.GetName(), Timeout: c.GetTimeout().AsDuration(), URI: c.GetUri(), Talk: r.talk,
		// The whole and the other phases are bounded address by address.
		FailAbove: resolveOnly(c.GetFailAbove()), DegradedAbove: resolveOnly(c.GetDegradedAbove())}
	return r
}

func resolveOnly(l *meshv1.PhaseLimits) *meshv1.PhaseLimits {
	if l.GetResolve() == nil {
		return nil
	}
	return &meshv1.PhaseLimits{Resolve: l.Resolve}
}

// Probe implements probe.Runner.
func (r *runner) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	return r.plan.Run(ctx, o)
}

// Close implements probe.Runner.
func (r *runner) Close() { r.inner.Close() }

func (r *runner) talk(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
	a.Meeting(r.host)
	addrs, err := r.resolve(ctx, a, r.host)
	if err != nil {
		return nil, err
	}
	took := time.Since(a.Start())
	a.Enter(meshv1.Result_PHASE_UNSPECIFIED) // the rest has phases of its own
	addrs = addrs[:min(len(addrs), r.most)]
	got := &answer{results: make([]*meshv1.Result, len(addrs)), addrs: addrs, all: r.healthy == 0, need: r.healthy}
	var all sync.WaitGroup
	for i, addr := range addrs {
		o := a.Options()
		o.Pin = probe.Pin{Host: r.host, Addr: addr, Took: took}
		all.Go(func() { got.results[i] = r.inner.Probe(ctx, o) })
	}
	all.Wait()
	if ctx.Err() == context.Canceled { //nolint:errorlint // Err returns the value itself
		return nil, ctx.Err()
	}
	got.count()
	return got, nil
}

// answer is what the addresses answered.
type answer struct {
	addrs   []netip.Addr
	results []*meshv1.Result
	all     bool // all whose result is not ERROR must be OK
	need    int  // how many must be OK

	ok, failed, unknown int
	chosen              *meshv1.Result // whose details stand for the whole
	worst               int            // its place
}

// count counts the outcomes and chooses the result that stands for the whole.
func (g *answer) count() {
	rank := map[meshv1.Result_Outcome]int{meshv1.Result_FAIL: 3, meshv1.Result_OK: 2, meshv1.Result_ERROR: 1}
	for i, r := range g.results {
		switch r.GetOutcome() {
		case meshv1.Result_OK:
			g.ok++
		case meshv1.Result_FAIL:
			g.failed++
		default:
			g.unknown++
		}
		longer := r.GetOutcome() == meshv1.Result_OK && r.GetDuration().AsDuration() > g.chosen.GetDuration().AsDuration()
		if a, b := rank[r.GetOutcome()], rank[g.chosen.GetOutcome()]; a > b || a == b && longer {
			g.chosen, g.worst = r, i
		}
	}
	if g.all {
		g.need = len(g.results) - g.unknown
	}
	if g.enough() && g.chosen.GetOutcome() == meshv1.Result_FAIL {
		g.chooseGood()
	}
}

// chooseGood lets the slowest address that is OK stand for the whole: the result is OK, and its details should be those of an answer.
func (g *answer) chooseGood() {
	g.chosen = nil
	for _, r := range g.results {
		if r.GetOutcome() == meshv1.Result_OK && r.GetDuration().AsDuration() >= g.chosen.GetDuration().AsDuration() {
			g.chosen = r
		}
	}
}

// enough tells whether enough addresses are OK.
func (g *answer) enough() bool { return g.ok > 0 && g.ok >= g.need }

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	for i, one := range g.results {
		remote := one.GetRemoteAddress()
		if remote == "" {
			remote = g.addrs[i].String()
		}
		r.Addresses = append(r.Addresses, &meshv1.AddressResult{RemoteAddress: remote, Outcome: one.GetOutcome(), ErrorClass: one.GetErrorClass(),
			Error: one.GetError(), Duration: one.GetDuration()})
	}
	c := g.chosen
	r.RemoteAddress, r.Steps = c.GetRemoteAddress(), c.GetSteps()
	r.Http, r.Tls, r.Icmp, r.Grpc, r.Udp, r.Websocket, r.Tcp = c.GetHttp(), c.GetTls(), c.GetIcmp(), c.GetGrpc(), c.GetUdp(), c.GetWebsocket(), c.GetTcp()
	if t := c.GetTimings(); t != nil && r.Timings != nil {
		resolve := r.Timings.Resolve
		r.Timings = &meshv1.Timings{Resolve: resolve, Connect: t.Connect, Handshake: t.Handshake, Processing: t.Processing, Transfer: t.Transfer}
	}
}

// Respond implements probe.Answer. The expectations are evaluated address by address, so there is nobody to respond to.
func (g *answer) Respond(*meshv1.Response, *expect.Program) {}

// Judge implements probe.Answer.
func (g *answer) Judge(bool) *probe.Failure {
	if g.enough() {
		return nil
	}
	c := g.chosen
	if g.unknown > 0 && (g.failed == 0 || !g.all && g.ok+g.unknown >= g.need) {
		return &probe.Failure{Class: meshv1.Result_PROBER, Phase: c.GetFailedPhase(),
			Sentence: fmt.Sprintf("%d of %d addresses are OK, and this prober could not probe %d: %s", g.ok, len(g.results), g.unknown, g.firstUnknown())}
	}
	if g.failed == 0 {
		return &probe.Failure{Class: meshv1.Result_NAME_NOT_FOUND, Phase: meshv1.Result_RESOLVE,
			Sentence: fmt.Sprintf("the name has %s, and min_healthy asks for %d that are OK", addresses(len(g.results)), g.need)}
	}
	return &probe.Failure{Class: c.GetErrorClass(), Phase: c.GetFailedPhase(), Expectation: c.GetFailedExpectation(),
		Sentence: fmt.Sprintf("%s: %s: %s", g.share(), g.addrs[g.worst], c.GetError())}
}

// share says how many addresses fail.
func (g *answer) share() string {
	s := fmt.Sprintf("%d of %s fail", g.failed, addresses(len(g.results)))
	if g.failed == 1 {
		s += "s"
	}
	return s
}

// Degraded implements probe.Degrader.
func (g *answer) Degraded() string {
	if g.failed > 0 {
		return fmt.Sprintf("%s: %s: %s", g.share(), g.addrs[g.worst], g.results[g.worst].GetError())
	}
	for i, r := range g.results {
		if r.GetDegraded() != "" {
			return g.addrs[i].String() + ": " + r.Degraded
		}
	}
	return ""
}

func (g *answer) firstUnknown() string {
	for _, r := range g.results {
		if r.GetOutcome() == meshv1.Result_ERROR {
			return r.GetError()
		}
	}
	return ""
}

// Evidence implements probe.Answer. The addresses that the name resolved to are those of all.
func (g *answer) Evidence(e *meshv1.Evidence) {
	own := g.chosen.GetEvidence()
	if own == nil {
		return
	}
	e.StatusLine, e.Headers, e.Body, e.BodyTruncated = own.StatusLine, own.Headers, own.Body, own.BodyTruncated
	e.Certificates, e.Records, e.Redirects = own.Certificates, own.Records, own.Redirects
}

func addresses(n int) string {
	if n == 1 {
		return "1 address"
	}
	return fmt.Sprintf("%d addresses", n)
}
