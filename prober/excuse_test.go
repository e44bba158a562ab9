package prober

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// brokenRunner fails as a probe does whose packets get lost.
type brokenRunner struct{ class meshv1.Result_ErrorClass }

func (r brokenRunner) Probe(context.Context, probe.Options) *meshv1.Result {
	time.Sleep(100 * time.Millisecond)
	return &meshv1.Result{Check: "checks/c0", Outcome: meshv1.Result_FAIL, ErrorClass: r.class, Error: "no answer", RemoteAddress: "198.51.100.7:443",
		Duration: durationpb.New(100 * time.Millisecond)}
}

func (brokenRunner) Close() {}

func TestFailureIsTheProbersOwnWhileNoCanaryAnswers(t *testing.T) {
	inWorld(t, func(w *world) {
		var cut atomic.Bool
		s := w.server("192.0.2.1:7700")
		defer s.Stop()
		s.Want(false, assigned(1, 10*time.Second)...)
		compile := func(*meshv1.Check) (probe.Runner, error) { return brokenRunner{meshv1.Result_TIMEOUT}, nil }
		w.deps.DialCanary = func(ctx context.Context, _, _ string) (net.Conn, error) {
			if cut.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			a, b := net.Pipe()
			b.Close()
			return a, nil
		}
		w.startWith(compile, "192.0.2.1:7700")
		newest := func() *meshv1.Result {
			all := s.Seen().History()
			if len(all) == 0 {
				t.Fatal("nothing has come")
			}
			var last *meshv1.Result
			for _, r := range all {
				if last == nil || r.GetSequence() > last.GetSequence() {
					last = r
				}
			}
			return last
		}
		time.Sleep(25 * time.Second)
		if r := newest(); r.GetOutcome() != meshv1.Result_FAIL {
			t.Errorf("while canaries answer: %v", r)
		}
		cut.Store(true)
		time.Sleep(25 * time.Second)
		r := newest()
		if r.GetOutcome() != meshv1.Result_ERROR || r.GetErrorClass() != meshv1.Result_PROBER || !strings.HasPrefix(r.GetError(), "own network: no canary answers over IPv4 (192.0.2.1:7700)") ||
			!strings.Contains(r.GetError(), "no answer") {
			t.Errorf("while none answers: %v", r)
		}
		cut.Store(false)
		time.Sleep(25 * time.Second)
		if r := newest(); r.GetOutcome() != meshv1.Result_FAIL {
			t.Errorf("when they answer again: %v", r)
		}
	})
}
