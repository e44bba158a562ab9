// Command brokenprober is a prober with a planted fault, for tests. It is a program of its own, so that no other one can have the fault.
//
//	brokenprober NAME DATACENTER SERVER DATA BUILD [FAULT]
//
// The faults:
//
//   - redirects, the default: it reports every target that redirects as down, as a build of a large monitoring service did in September 2012.
//   - fail, ok, random: it reports every target as down, none, or one in two.
//   - slow: it takes half a second longer than it should, and says that the target was slow.
//   - ahead, behind: it reports every target as down, and stamps its results with a time an hour ahead of, or behind, what it should.
//   - old: it probes each check as it was when it first heard of it, whatever has become of it since, and says that it is as it is now.
//   - protocol: it speaks another protocol than servers do.
//   - none: it has no fault of its own. Built with another wall clock, as the tests do, it is a sound prober on a machine whose clock is off.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 5 {
		args = append(args, "redirects")
	}
	if len(args) != 6 {
		return fmt.Errorf("usage: brokenprober NAME DATACENTER SERVER DATA BUILD [FAULT]")
	}
	spoil, ok := faults()[args[5]]
	if !ok {
		return fmt.Errorf("fault %q is none of redirects, fail, ok, random, slow, ahead, behind, old, protocol, none", args[5])
	}
	first := memory{}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	cfg := prober.Config{Name: args[0], Datacenter: args[1], Servers: []string{args[2]}, Data: args[3], Build: args[4]}
	env := probe.Env{UserAgent: "probemesh/" + cfg.Build, Capabilities: kinds.Capabilities()}
	p, err := prober.New(cfg, prober.Deps{
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Compile: func(c *meshv1.Check) (probe.Runner, error) {
			if args[5] == "old" {
				c = first.of(c)
			}
			r, err := kinds.Compile(c, env)
			if err != nil {
				return nil, err
			}
			return broken{r, spoil}, nil
		},
		DialOptions: []grpc.DialOption{grpc.WithStreamInterceptor(tamper(args[5]))},
	})
	if err != nil {
		return err
	}
	return p.Run(ctx)
}

// slowness is what the fault "slow" adds to each probe.
const slowness = 500 * time.Millisecond

// broken spoils the results of another runner.
type broken struct {
	probe.Runner
	spoil func(*meshv1.Result)
}

// Probe runs the check, and spoils the result.
func (b broken) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	r := b.Runner.Probe(ctx, o)
	b.spoil(r)
	return r
}

// faults are the ways to spoil a result, by name.
func faults() map[string]func(*meshv1.Result) {
	fail := func(r *meshv1.Result, why string) {
		if r.GetOutcome() == meshv1.Result_OK {
			r.Outcome, r.ErrorClass, r.Error = meshv1.Result_FAIL, meshv1.Result_EXPECTATION, why
		}
	}
	return map[string]func(*meshv1.Result){
		"redirects": func(r *meshv1.Result) {
			if r.GetHttp().GetRedirects() > 0 {
				fail(r, "the answer is a redirect")
			}
		},
		"fail":     func(r *meshv1.Result) { fail(r, "it is always down") },
		"ahead":    func(r *meshv1.Result) { fail(r, "it is always down") },
		"behind":   func(r *meshv1.Result) { fail(r, "it is always down") },
		"old":      func(*meshv1.Result) {},
		"protocol": func(*meshv1.Result) {},
		"none":     func(*meshv1.Result) {},
		"ok": func(r *meshv1.Result) {
			if r.GetOutcome() == meshv1.Result_FAIL {
				r.Outcome, r.ErrorClass, r.Error, r.FailedPhase, r.Evidence = meshv1.Result_OK, 0, "", 0, nil
			}
		},
		"slow": func(r *meshv1.Result) {
			time.Sleep(slowness)
			r.Duration = durationpb.New(r.GetDuration().AsDuration() + slowness)
			fail(r, "expectation response.duration < duration(\"400ms\") does not hold")
		},
		"random": func(r *meshv1.Result) {
			if rand.IntN(2) == 0 {
				fail(r, "the coin says so")
			}
		},
	}
}
