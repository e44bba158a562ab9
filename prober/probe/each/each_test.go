package each

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// behaviour is what an address does, by its last byte.
type behaviour func(ctx context.Context, a *probe.Attempt) error

func after(d time.Duration, err error) behaviour {
	return func(ctx context.Context, a *probe.Attempt) error {
		a.Enter(meshv1.Result_CONNECT)
		select {
		case <-time.After(d):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var (
	ok      = after(10*time.Millisecond, nil)
	slow    = after(100*time.Millisecond, nil)
	hang    = after(time.Hour, nil)
	refused = after(time.Millisecond, &probe.Failure{Class: meshv1.Result_CONNECTION_REFUSED, Phase: meshv1.Result_CONNECT, Sentence: "connection refused"})
	mine    = after(time.Millisecond, &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT, Sentence: "no IPv6 here"})
	panics  = behaviour(func(context.Context, *probe.Attempt) error { panic("boom") })
)

// run probes, in a bubble, a name that resolves within 20 ms to one address for each behaviour.
func run(t *testing.T, change func(*meshv1.Check), each ...behaviour) (r *meshv1.Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, target := probetest.Check(t, "tcp://pair.example.com:7", time.Second, func(c *meshv1.Check) {
			c.EachAddress = &meshv1.EachAddress{}
			if change != nil {
				change(c)
			}
		})
		plan, err := probe.NewPlan(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		dialer := &probe.Dialer{}
		plan.Talk = func(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
			got, err := dialer.Resolve(ctx, a, target.Host)
			if err != nil || len(got) != 1 {
				t.Errorf("the inner probe got %v, %v", got, err)
			}
			a.Connecting(netip.AddrPortFrom(got[0], 7).String())
			return nil, each[got[0].As4()[3]](ctx, a)
		}
		outer := Wrap(c, target.Host, meshv1.IpFamily_ANY, inner{plan}).(*runner)
		outer.resolve = func(_ context.Context, a *probe.Attempt, host string) (out []netip.Addr, err error) {
			a.Enter(meshv1.Result_RESOLVE)
			time.Sleep(20 * time.Millisecond)
			for i := range each {
				out = append(out, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
			}
			if len(each) == 0 {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			a.Resolved(out)
			return out, nil
		}
		r = outer.Probe(context.Background(), probe.Options{})
		probetest.Promises(t, r)
		if d := r.Duration.AsDuration(); d > time.Second {
			t.Errorf("it took %s", d)
		}
		outer.Close()
	})
	return r
}

// inner is a runner that is a plan alone.
type inner struct{ plan *probe.Plan }

func (i inner) Probe(ctx context.Context, o probe.Options) *meshv1.Result { return i.plan.Run(ctx, o) }
func (i inner) Close()                                                    {}

func outcomes(r *meshv1.Result) string {
	var out []string
	for _, a := range r.Addresses {
		out = append(out, fmt.Sprintf("%s %s", a.RemoteAddress, a.Outcome))
	}
	return strings.Join(out, ", ")
}

func TestADeadAddressBehindALivingOneIsSeen(t *testing.T) {
	r := run(t, nil, ok, refused)
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "1 of 2 addresses fails: 192.0.2.1: connection refused").Match(t, r)
	if got := outcomes(r); got != "192.0.2.0:7 OK, 192.0.2.1:7 FAIL" || r.RemoteAddress != "192.0.2.1:7" || len(r.Evidence.ResolvedAddresses) != 2 {
		t.Errorf("%s; remote %s, evidence %v", got, r.RemoteAddress, r.Evidence)
	}
	r = run(t, func(c *meshv1.Check) { c.EachAddress.MinHealthy = 1 }, ok, refused, slow)
	probetest.OK().Match(t, r)
	if r.Degraded != "1 of 3 addresses fails: 192.0.2.1: connection refused" || r.RemoteAddress != "192.0.2.2:7" {
		t.Errorf("degraded %q, remote %s", r.Degraded, r.RemoteAddress)
	}
	r = run(t, nil, ok, slow)
	probetest.OK().Match(t, r)
	if r.Degraded != "" || r.RemoteAddress != "192.0.2.1:7" || r.Timings.Resolve.AsDuration() != 20*time.Millisecond ||
		r.Timings.Connect.AsDuration() != 100*time.Millisecond || r.Duration.AsDuration() != 120*time.Millisecond {
		t.Errorf("degraded %q, remote %s, timings %v, %v", r.Degraded, r.RemoteAddress, r.Timings, r.Duration)
	}
}

func TestAHangingAddressEndsWithTheTimeoutAndHoldsUpNobody(t *testing.T) {
	r := run(t, func(c *meshv1.Check) { c.EachAddress.MinHealthy = 1 }, hang, hang, ok)
	probetest.OK().Match(t, r)
	if !strings.HasPrefix(r.Degraded, "2 of 3 addresses fail: 192.0.2.0: connect to 192.0.2.0:7: timed out") || r.Duration.AsDuration() != time.Second {
		t.Errorf("degraded %q after %s", r.Degraded, r.Duration.AsDuration())
	}
	if d := r.Addresses[2].Duration.AsDuration(); d != 10*time.Millisecond {
		t.Errorf("the good one took %s", d)
	}
}

func TestWhatTheProberItselfLacksSpeaksNeitherForNorAgainst(t *testing.T) {
	probetest.OK().Match(t, run(t, nil, ok, mine))
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "1 of 3 addresses fails").Match(t, run(t, nil, ok, mine, refused))
	for name, list := range map[string][]behaviour{"alone": {mine, mine}, "a fault of ours": {panics}} {
		if r := run(t, nil, list...); r.Outcome != meshv1.Result_ERROR {
			t.Errorf("%s: got %v", name, r)
		}
	}
	two := func(c *meshv1.Check) { c.EachAddress.MinHealthy = 2 }
	if r := run(t, two, ok, mine); r.Outcome != meshv1.Result_ERROR || !strings.Contains(r.Error, "1 of 2 addresses are OK, and this prober could not probe 1: no IPv6 here") {
		t.Errorf("not known to be enough: %v", r)
	}
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "2 of 3 addresses fail").Match(t, run(t, two, refused, refused, mine))
}

func TestFewerAddressesThanMustBeHealthyFail(t *testing.T) {
	r := run(t, func(c *meshv1.Check) { c.EachAddress.MinHealthy = 3 }, ok, ok)
	probetest.Fail(meshv1.Result_NAME_NOT_FOUND, meshv1.Result_RESOLVE, "the name has 2 addresses, and min_healthy asks for 3 that are OK").Match(t, r)
	probetest.Fail(meshv1.Result_NAME_NOT_FOUND, meshv1.Result_RESOLVE, "no such host").Match(t, run(t, nil))
}

func TestNoMoreAddressesAreProbedThanAsked(t *testing.T) {
	many := make([]behaviour, 12)
	for i := range many {
		many[i] = ok
	}
	many[11] = refused
	r := run(t, nil, many...)
	probetest.OK().Match(t, r)
	if len(r.Addresses) != 8 {
		t.Errorf("%d addresses", len(r.Addresses))
	}
	r = run(t, func(c *meshv1.Check) { c.EachAddress.MaxAddresses = 12 }, many...)
	if len(r.Addresses) != 12 || r.Outcome != meshv1.Result_FAIL {
		t.Errorf("%d addresses, %v", len(r.Addresses), r.Outcome)
	}
}

func TestBoundsHoldForEachAddressWithTheResolutionBeforeIt(t *testing.T) {
	limit := func(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
	r := run(t, func(c *meshv1.Check) { c.DegradedAbove = &meshv1.PhaseLimits{Total: limit(119 * time.Millisecond)} }, ok, slow)
	if r.Degraded != "192.0.2.1: the whole probe took 120ms, more than 119ms (degraded_above.total)" {
		t.Errorf("degraded %q", r.Degraded)
	}
	r = run(t, func(c *meshv1.Check) { c.FailAbove = &meshv1.PhaseLimits{Connect: limit(50 * time.Millisecond)} }, ok, slow)
	probetest.Fail(meshv1.Result_SLOW_PHASE, meshv1.Result_CONNECT, "1 of 2 addresses fails: 192.0.2.1: connect took 100ms").Match(t, r)
	r = run(t, func(c *meshv1.Check) { c.FailAbove = &meshv1.PhaseLimits{Resolve: limit(10 * time.Millisecond)} }, ok, ok)
	probetest.Fail(meshv1.Result_SLOW_PHASE, meshv1.Result_RESOLVE, "resolve took 20ms").Match(t, r)
	r = run(t, func(c *meshv1.Check) {
		c.FailAbove = &meshv1.PhaseLimits{Total: limit(200 * time.Millisecond)}
		c.EachAddress.MinHealthy = 1
	}, ok, hang)
	probetest.OK().Match(t, r)
}
