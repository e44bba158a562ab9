// Command brokenprober is a prober with a planted fault, for tests: it reports every target that redirects as down, as a build of a large monitoring service did in
// September 2012. It is a program of its own, so that no other one can have the fault.
//
//	brokenprober NAME DATACENTER SERVER DATA BUILD
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

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
	if len(args) != 5 {
		return fmt.Errorf("usage: brokenprober NAME DATACENTER SERVER DATA BUILD")
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
			return broken{r}, nil
		},
	})
	if err != nil {
		return err
	}
	return p.Run(ctx)
}

// broken takes a redirect for a failure.
type broken struct{ probe.Runner }

// Probe runs the check, and spoils the result of one that was redirected.
func (b broken) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	r := b.Runner.Probe(ctx, o)
	if r.GetOutcome() == meshv1.Result_OK && r.GetHttp().GetRedirects() > 0 {
		r.Outcome, r.ErrorClass, r.Error = meshv1.Result_FAIL, meshv1.Result_EXPECTATION, "the answer is a redirect"
	}
	return r
}
