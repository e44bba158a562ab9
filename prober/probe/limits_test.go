package probe_test

import (
	"context"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// bounded runs, in a bubble, a probe that resolves for 20 ms, connects for 30 ms and waits 50 ms for its answer.
func bounded(t *testing.T, fail, degraded *meshv1.PhaseLimits, pin probe.Pin, answer probe.Answer) (r *meshv1.Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, _ := probetest.Check(t, "tcp://a.example.com:1", time.Second, func(c *meshv1.Check) { c.FailAbove, c.DegradedAbove = fail, degraded })
		p, err := probe.NewPlan(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.Talk = func(_ context.Context, a *probe.Attempt) (probe.Answer, error) {
			for phase, d := range map[meshv1.Result_Phase]time.Duration{meshv1.Result_RESOLVE: 20, meshv1.Result_CONNECT: 30, meshv1.Result_PROCESSING: 50} {
				a.Enter(phase)
				time.Sleep(d * time.Millisecond)
			}
			return answer, nil
		}
		r = p.Run(context.Background(), probe.Options{Pin: pin})
		probetest.Promises(t, r)
	})
	return r
}

func ms(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Millisecond) }

func TestAPhaseThatExceedsItsBoundFailsOrDegrades(t *testing.T) {
	for name, c := range map[string]struct {
		limits *meshv1.PhaseLimits
		phase  meshv1.Result_Phase
		want   string
	}{
		"within":           {&meshv1.PhaseLimits{Total: ms(100), Resolve: ms(20), Connect: ms(30), Processing: ms(50)}, 0, ""},
		"did not happen":   {&meshv1.PhaseLimits{Handshake: ms(1), Transfer: ms(1)}, 0, ""},
		"one phase":        {&meshv1.PhaseLimits{Connect: ms(29)}, meshv1.Result_CONNECT, "connect took 30ms, more than 29ms (%.connect)"},
		"first of several": {&meshv1.PhaseLimits{Total: ms(1), Processing: ms(1), Resolve: ms(1)}, meshv1.Result_RESOLVE, "resolve took 20ms, more than 1ms (%.resolve)"},
		"the whole":        {&meshv1.PhaseLimits{Total: ms(99)}, 0, "the whole probe took 100ms, more than 99ms (%.total)"},
	} {
		t.Run(name, func(t *testing.T) {
			r := bounded(t, c.limits, nil, probe.Pin{}, nil)
			if want := strings.Replace(c.want, "%", "fail_above", 1); want == "" {
				probetest.OK().Match(t, r)
			} else if probetest.Fail(meshv1.Result_SLOW_PHASE, c.phase, want).Match(t, r); r.Degraded != "" {
				t.Errorf("a failure is degraded too: %s", r.Degraded)
			}
			r = bounded(t, nil, c.limits, probe.Pin{}, nil)
			probetest.OK().Match(t, r)
			if want := strings.Replace(c.want, "%", "degraded_above", 1); r.Degraded != want {
				t.Errorf("degraded %q, want %q", r.Degraded, want)
			}
		})
	}
}

func TestWhatItTookToFindAPinnedAddressCountsIntoTheWhole(t *testing.T) {
	pin := probe.Pin{Host: "a.example.com", Addr: netip.MustParseAddr("192.0.2.7"), Took: 5 * time.Millisecond}
	r := bounded(t, nil, &meshv1.PhaseLimits{Total: ms(104)}, pin, nil)
	if !strings.HasPrefix(r.Degraded, "the whole probe took 105ms") {
		t.Errorf("degraded %q", r.Degraded)
	}
}

func TestAPinnedAddressIsUsedForItsHostAlone(t *testing.T) {
	c, _ := probetest.Check(t, "tcp://a.example.com:1", time.Second, nil)
	p, err := probe.NewPlan(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Talk = func(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
		got, err := (&probe.Dialer{}).Resolve(ctx, a, "A.example.com")
		if err != nil || len(got) != 1 || got[0].String() != "192.0.2.7" || a.Phase() != 0 {
			t.Errorf("got %v, %v in %v", got, err, a.Phase())
		}
		if _, err := (&probe.Dialer{}).Resolve(ctx, a, "localhost"); err != nil || a.Phase() != meshv1.Result_RESOLVE {
			t.Errorf("another host: %v in %v", err, a.Phase())
		}
		return nil, nil
	}
	p.Run(context.Background(), probe.Options{Pin: probe.Pin{Host: "a.example.com", Addr: netip.MustParseAddr("192.0.2.7")}})
}

// weak is an answer that is good and degraded.
type weak struct{ judged *probe.Failure }

func (weak) Record(*meshv1.Result)                     {}
func (weak) Respond(*meshv1.Response, *expect.Program) {}
func (w weak) Judge(bool) *probe.Failure               { return w.judged }
func (weak) Evidence(*meshv1.Evidence)                 {}
func (weak) Degraded() string                          { return "two of three answered" }

func TestAnAnswerMayBeDegradedByItsKindUnlessItFails(t *testing.T) {
	if r := bounded(t, nil, nil, probe.Pin{}, weak{}); r.Degraded != "two of three answered" {
		t.Errorf("degraded %q", r.Degraded)
	}
	r := bounded(t, nil, nil, probe.Pin{}, weak{&probe.Failure{Class: meshv1.Result_PROTOCOL, Phase: meshv1.Result_TRANSFER, Sentence: "odd"}})
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "odd").Match(t, r)
}

func TestStepsAreToldUpToTheOneThatFailed(t *testing.T) {
	r := planned(t, time.Second, []string{`response.captures["id"] == "7"`}, func(_ context.Context, a *probe.Attempt) (probe.Answer, error) {
		a.Captured(map[string]string{"id": "7"})
		return nil, a.Step("login", func() error { return nil })
	})
	probetest.OK().Match(t, r)
	if len(r.Steps) != 1 || r.Steps[0].Name != "login" || r.Steps[0].Outcome != meshv1.Result_OK || r.Steps[0].Duration == nil {
		t.Errorf("steps %v", r.Steps)
	}
	r = planned(t, time.Second, nil, func(_ context.Context, a *probe.Attempt) (probe.Answer, error) {
		for range 40 {
			_ = a.Step("again", func() error { return nil })
		}
		a.Connecting("192.0.2.7:443")
		a.Enter(meshv1.Result_TRANSFER)
		return nil, a.Step("order", func() error { return syscall.ECONNRESET })
	})
	probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_TRANSFER, "step order: read the answer of 192.0.2.7:443: connection reset by peer").Match(t, r)
	if len(r.Steps) != 32 || r.Steps[31].Error != "read the answer of 192.0.2.7:443: connection reset by peer" {
		t.Errorf("%d steps, the last %v", len(r.Steps), r.Steps[len(r.Steps)-1])
	}
}
