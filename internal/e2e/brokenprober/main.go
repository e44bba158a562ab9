// Command brokenprober is a prober with a planted fault, for tests. By default it reports every target that redirects as down, as a build of a large monitoring service
// did in September 2012; with FAULT "fail" it reports every target as down, with "ok" none, with "random" one in two, and with "slow" it takes half a second longer than it
// should and says that the target was slow. It is a program of its own, so that no other one can
// have the fault.
//
//	brokenprober NAME DATACENTER SERVER DATA BUILD [FAULT]
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
		return fmt.Errorf("fault %q is none of redirects, fail, ok, random, slow", args[5])
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	cfg := prober.Config{Name: args[0], Datacenter: args[1], Servers: []string{args[2]}, Data: args[3], Build: args[4]}
	env := probe.Env{UserAgent: "probemesh/" + cfg.Build, Capabilities: kinds.Capabilities()}
	p, err := prober.New(cfg, prober.Deps{
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Compile: func(c *meshv1.Check) (probe.Runner, error) {
			r, err := kinds.Compile(c, env)
			if err != nil {
				return nil, err
			}
			return broken{r, spoil}, nil
		},
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
		"fail": func(r *meshv1.Result) { fail(r, "it is always down") },
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
