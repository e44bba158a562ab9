package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/scheduler/referee"
)

type simulateOptions struct {
	seed           uint64
	rounds, checks int
	plot, output   string
}

func (a *app) simulateCommand() *cobra.Command {
	var o simulateOptions
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Play the rules of other systems and ours on the same faults",
		Long: `Plays the rules by which monitoring systems call a target down, and ours at several settings, on the same simulated targets, probers, datacenters, providers,
resolvers and builds, each with faults of their own. Prints for each rule how fast it finds outages, how often it is wrong, what it misses and how many probes it
sends, and what fools it. Nothing of ours is modelled: it is the code that decides in a server. No server is asked, and nothing is written but the plot.

What is simulated, and how false alerts are counted, is in the documentation of the package scheduler/referee. Equal flags give equal figures.
Exits with 1 when a rule is both faster and less often wrong than each of ours at equal or lower cost.`,
		Example: `  probemesh simulate
  probemesh simulate --rounds 1000 --plot rules.svg
  probemesh simulate --seed 7 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(o.output, "table", formatJSON); err != nil {
				return err
			}
			if o.rounds < 1 || o.rounds > 100_000 {
				return usagef("--rounds is %d; it must be 1 to 100000", o.rounds)
			}
			if o.checks < 1 || o.checks > 1000 {
				return usagef("--checks is %d; it must be 1 to 1000", o.checks)
			}
			return a.simulate(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&o.seed, "seed", 1, "`NUMBER` that decides everything that happens")
	f.IntVar(&o.rounds, "rounds", 50, "`NUMBER` of rounds of 50 simulated minutes for each of the eleven kinds of fault; 50 take about two minutes of two cores")
	f.IntVar(&o.checks, "checks", 30, "`NUMBER` of checks that a round watches; a fault of the probers meets all of them")
	f.StringVar(&o.plot, "plot", "", "SVG `FILE` to write, with speed against error; none by default")
	outputFlag(cmd, &o.output, "table", formatJSON)
	return cmd
}

func (a *app) simulate(ctx context.Context, o simulateOptions) error {
	shown := -1
	lines, err := referee.Play(ctx, referee.Options{Seed: o.seed, Rounds: o.rounds, Checks: o.checks, Progress: func(done, all int) {
		if p := 10 * done / all; p != shown {
			shown = p
			fmt.Fprintf(a.env.Err, "%d of %d rounds played\n", done, all)
		}
	}})
	if err != nil {
		return err
	}
	if o.plot != "" {
		if err := writePlot(o.plot, lines); err != nil {
			return fmt.Errorf("the plot could not be written: %w; name another file with --plot", err)
		}
	}
	write := referee.Table
	if o.output == formatJSON {
		write = referee.JSON
	}
	if err := write(a.env.Out, lines); err != nil {
		return err
	}
	return judged(a.env.Err, lines)
}

func writePlot(path string, lines []referee.Line) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := referee.Plot(f, lines); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// judged says whether ours holds against the others.
func judged(w io.Writer, lines []referee.Line) error {
	challenges := referee.Dominated(lines)
	for _, c := range challenges {
		fmt.Fprintf(w, "%s %s\n", c.Rule, c.How)
	}
	if len(challenges) > 0 {
		return fmt.Errorf("%d of the rules hold their own against ours", len(challenges))
	}
	fmt.Fprintln(w, "No rule is both faster and less often wrong than ours at equal or lower cost.")
	return nil
}
