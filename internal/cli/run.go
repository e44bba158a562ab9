package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func (a *app) runCommand() *cobra.Command {
	var probers []string
	var output string
	cmd := &cobra.Command{
		Use:   "run check NAME",
		Short: "Run a check at once, and show each result as it comes",
		Long: `Asks the probers of a check, or those given by --prober, to run it at once, and shows each result as it comes.
Exits with 1 unless every asked prober answered with OK. --timeout bounds the whole run; it must be longer than the
timeout of the check.`,
		Example: `  probemesh run check shop
  probemesh run check shop --prober fra-1 --prober iad-2`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeOne(checkResource()),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(output, "text", formatJSON); err != nil {
				return err
			}
			req := &meshv1.RunCheckRequest{}
			var err error
			if req.Name, err = oneName(cmd, spec.Checks, args); err != nil {
				return err
			}
			for _, p := range probers {
				name, err := nameOf(spec.Probers, p)
				if err != nil {
					return err
				}
				req.Probers = append(req.Probers, name)
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.runCheck(cmd.Context(), c, req, output)
		},
	}
	cmd.Flags().StringSliceVar(&probers, "prober", nil, "`PROBER` to run it, may be repeated; the default is those that the check is placed on")
	_ = cmd.RegisterFlagCompletionFunc("prober", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return a.completeNames(cmd, proberResource(), prefix), cobra.ShellCompDirectiveNoFileComp
	})
	outputFlag(cmd, &output, "text", formatJSON)
	return cmd
}

// runCheck streams the results of one run.
func (a *app) runCheck(ctx context.Context, c *client, req *meshv1.RunCheckRequest, output string) error {
	// The server ends the stream 5 s after the check's own timeout at the latest, which is 60 s at most.
	ctx, cancel := context.WithTimeout(ctx, max(a.timeout, 70*time.Second))
	defer cancel()
	stream, err := c.checks.RunCheck(ctx, req)
	if err != nil {
		return a.explain(err)
	}
	var asked, good, bad int
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return a.explain(err)
		}
		asked += len(m.GetAsked())
		switch {
		case m.GetResult() == nil:
			bad += len(m.GetFailures())
		case m.GetResult().GetOutcome() == meshv1.Result_OK:
			good++
		case m.GetResult().GetOutcome() != meshv1.Result_SLOW:
			bad++
		}
		if output == formatJSON {
			line, err := toJSON(m, false)
			if err != nil {
				return err
			}
			a.print(string(line))
			continue
		}
		a.printRun(m)
	}
	if output != formatJSON {
		a.print(a.out.paint(bold, fmt.Sprintf("%d of %d OK", good, asked)))
	}
	if bad > 0 || good < asked {
		return answerNo()
	}
	return nil
}

// printRun prints one message of a run.
func (a *app) printRun(m *meshv1.RunCheckResponse) {
	if len(m.GetAsked()) > 0 {
		a.note("asked %s: %s", count(len(m.GetAsked()), "prober"), strings.ReplaceAll(list(m.GetAsked()), ",", ", "))
	}
	if r := m.GetResult(); r != nil {
		o := outcomeCell(r.GetOutcome())
		line := a.out.paint(o.colour, fmt.Sprintf("%-5s", o.text)) + fmt.Sprintf("  %-12s %7s  ", spec.ID(r.GetProber()), brief(r.GetDuration()))
		if r.GetError() != "" {
			line += clean(r.GetErrorClass().String() + ": " + r.GetError())
		} else if r.GetDegraded() != "" {
			line += a.out.paint(yellow, "degraded: ") + clean(r.GetDegraded())
		} else {
			line += a.out.paint(dim, phases(r.GetTimings()))
		}
		a.print(strings.TrimRight(line, " "))
		for _, part := range a.parts(r) {
			a.print("       " + part)
		}
	}
	for _, f := range m.GetFailures() {
		a.print(a.out.paint(magenta, "-    ") + fmt.Sprintf("  %-12s %7s  %s", spec.ID(f.GetProber()), "", clean(f.GetReason())))
	}
}

// phases lists the phases of a probe that happened, in their order.
func phases(t *meshv1.Timings) string {
	var out []string
	for _, p := range phaseList(t) {
		out = append(out, p.name+" "+briefly(p.took))
	}
	return strings.Join(out, ", ")
}

// phase is a stretch of a probe.
type phase struct {
	name string
	took time.Duration
}

func phaseList(t *meshv1.Timings) []phase {
	var out []phase
	add := func(name string, d interface{ AsDuration() time.Duration }, set bool) {
		if set {
			out = append(out, phase{name, d.AsDuration()})
		}
	}
	add("resolve", t.GetResolve(), t.GetResolve() != nil)
	add("connect", t.GetConnect(), t.GetConnect() != nil)
	add("handshake", t.GetHandshake(), t.GetHandshake() != nil)
	add("processing", t.GetProcessing(), t.GetProcessing() != nil)
	add("transfer", t.GetTransfer(), t.GetTransfer() != nil)
	return out
}
