package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/configfile"
	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/drill/catalog"
	"github.com/probemesh/probemesh/internal/drill/netns"
	"github.com/probemesh/probemesh/internal/nearest"
	"github.com/probemesh/probemesh/internal/version"
)

// allDrills is the name that runs every drill.
const allDrills = "all"

func (a *app) drillCommand() *cobra.Command {
	var o drill.Options
	var format string
	cmd := &cobra.Command{
		Use:   "drill [NAME|all]",
		Short: "Break a local mesh on purpose, and count what anybody would have noticed",
		Long: `Runs a drill: it starts a mesh of three datacenters on this machine, each a server with an etcd member and a prober, all of them
real processes, with targets and a webhook receiver of its own; breaks it as the drill says while targets go down and come back; and counts the
alerts that were lost, doubled, false or late. It touches no other mesh.

Without NAME it lists the drills. Each figure is shown with what it is held against; the exit code is 1 when one does not hold. With -o json the
result goes to standard output and the progress to standard error.`,
		Example: `  probemesh drill                        what there is
  probemesh drill leader-kill --times 20
  probemesh drill all --short -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("drills are run one at a time, or %q; write: probemesh drill %s", allDrills, args[0])
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return drillNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format, formatTable, formatJSON); err != nil {
				return err
			}
			if len(args) == 0 {
				return a.listDrills(format)
			}
			list, err := chosenDrills(args[0], o)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(list, func(s drill.Scenario) bool { return s.OwnNetworks() && s.Missing() == nil }) {
				// All of it, in a network of its own: this program again.
				if done, code, err := netns.Isolate(cmd.Context()); err != nil || code != 0 {
					return isolatedFailure(code, err)
				} else if done {
					return nil
				}
			}
			return a.runDrills(cmd.Context(), list, o, format)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Times, "times", 0, "how often what the drill does is repeated, 1 to 1000; 0 is as often as the drill says, enough to see a rare fault")
	f.BoolVar(&o.Short, "short", false, "a short form, for a first look and for CI: fewer repetitions, shorter absences")
	f.Uint64Var(&o.Seed, "seed", 0, "`NUMBER` that decides every random choice, to make them again; 0 draws one and reports it")
	f.DurationVar(&o.Interval, "interval", 2*time.Second, "interval of the checks, 1s to 1m; 2s keeps a drill short, and leaves a busy machine the time to probe")
	f.DurationVar(&o.LeaseTTL, "lease-ttl", 5*time.Second, "lease of the leader, whole seconds from 2s to 60s; 5s is what servers have by default")
	f.StringVar(&o.Data, "data", "", "`DIR` for data and logs of all processes, which is kept; by default a temporary one, which is kept when the drill fails")
	f.BoolVar(&o.Keep, "keep", false, "keep the temporary directory with data and logs, and say where it is")
	outputFlag(cmd, &format, formatTable, formatJSON)
	return cmd
}

// isolatedFailure is the failure of the run in a network of its own, which has printed what it has to say.
func isolatedFailure(code int, err error) error {
	if err != nil {
		return usagef("%v", err)
	}
	return &failure{code: code}
}

func drillNames() []string {
	names := []string{allDrills}
	for _, s := range catalog.Drills() {
		names = append(names, s.Name)
	}
	return names
}

// chosenDrills are the drills of that name, after a look at the options.
func chosenDrills(name string, o drill.Options) ([]drill.Scenario, error) {
	switch {
	case o.Times < 0 || o.Times > 1000:
		return nil, usagef("--times %d: choose 1 to 1000, or 0 for as often as the drill says", o.Times)
	case o.Interval < time.Second || o.Interval > time.Minute:
		return nil, usagef("--interval %s: choose 1s to 1m", o.Interval)
	case o.LeaseTTL < 2*time.Second || o.LeaseTTL > time.Minute || o.LeaseTTL%time.Second != 0:
		return nil, usagef("--lease-ttl %s: choose whole seconds from 2s to 60s", o.LeaseTTL)
	case name == allDrills:
		return catalog.Drills(), nil
	}
	s, ok := catalog.Named(name)
	if !ok {
		hint := "`probemesh drill` lists them"
		if near := nearest.To(name, drillNames()); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		return nil, usagef("there is no drill %q; %s", name, hint)
	}
	if err := s.Missing(); err != nil {
		return nil, usagef("%s cannot be run here: %s", name, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return []drill.Scenario{s}, nil
}

// listDrills shows what there is.
func (a *app) listDrills(format string) error {
	if format == formatJSON {
		return a.printJSON(struct {
			Drills []drillEntry `json:"drills"`
		}{drillEntries()})
	}
	for _, s := range catalog.Drills() {
		fmt.Fprintf(a.env.Out, "%s\n", a.out.paint(bold, s.Name))
		fmt.Fprintf(a.env.Out, "  does      %s\n  proves    %s\n  promise   %s\n", s.Summary, s.Proves, s.Promise)
		fmt.Fprintf(a.env.Out, "  takes     about %s, %s with --short\n", configfile.FormatDuration(s.About), configfile.FormatDuration(s.ShortAbout))
		needs := "nothing special"
		if texts := requirementTexts(s); len(texts) > 0 {
			needs = strings.Join(texts, ", ")
		}
		if err := s.Missing(); err != nil {
			needs += a.out.paint(yellow, " (not here: "+strings.ReplaceAll(err.Error(), "\n", "; ")+")")
		}
		fmt.Fprintf(a.env.Out, "  requires  %s\n\n", needs)
	}
	a.print("Run one with `probemesh drill NAME`, or all with `probemesh drill all`.")
	return nil
}

// drillEntry is a drill in the list of -o json.
type drillEntry struct {
	Name         string   `json:"name"`
	Summary      string   `json:"summary"`
	Proves       string   `json:"proves"`
	Promise      string   `json:"promise"`
	AboutSeconds float64  `json:"about_seconds"`
	ShortSeconds float64  `json:"short_about_seconds"`
	Requires     []string `json:"requires"`
	Missing      string   `json:"missing"`
}

func drillEntries() []drillEntry {
	var out []drillEntry
	for _, s := range catalog.Drills() {
		e := drillEntry{Name: s.Name, Summary: s.Summary, Proves: s.Proves, Promise: s.Promise, AboutSeconds: s.About.Seconds(), ShortSeconds: s.ShortAbout.Seconds(),
			Requires: requirementTexts(s)}
		if err := s.Missing(); err != nil {
			e.Missing = err.Error()
		}
		out = append(out, e)
	}
	return out
}

func requirementTexts(s drill.Scenario) []string {
	texts := []string{}
	for _, q := range s.Requires {
		texts = append(texts, q.Text)
	}
	return texts
}

func (a *app) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	a.print(string(b))
	return nil
}

// runDrills runs drills one after the other, and answers no when one of them does not pass.
func (a *app) runDrills(ctx context.Context, list []drill.Scenario, o drill.Options, format string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.Program, o.Version, o.Progress = self, version.Build(), io.Writer(a.env.Out)
	if format == formatJSON {
		o.Progress = a.env.Err
	}
	reports := []*drill.Report{}
	failed := false
	for _, s := range list {
		r := drill.Execute(ctx, s, o)
		if ctx.Err() != nil {
			left := "nothing is left behind"
			if r.Data != "" {
				left = "data and logs are kept in " + r.Data
			}
			fmt.Fprintf(o.Progress, "%s was interrupted; its processes have ended, %s\n", s.Name, left)
			return ctx.Err()
		}
		reports = append(reports, r)
		failed = failed || !r.Passed && r.Skipped == ""
		if format == formatTable {
			a.showReport(r)
		}
	}
	if format == formatJSON {
		if err := a.printJSON(struct {
			Drills []*drill.Report `json:"drills"`
		}{reports}); err != nil {
			return err
		}
	}
	if failed {
		return answerNo()
	}
	return nil
}

// showReport prints a report for people.
func (a *app) showReport(r *drill.Report) {
	out := a.env.Out
	if r.Skipped != "" {
		fmt.Fprintf(out, "\n%s  %s was not run: %s\n\n", a.out.paint(yellow, "SKIPPED"), r.Drill, strings.ReplaceAll(r.Skipped, "\n", "; "))
		return
	}
	t := &table{}
	for _, h := range []string{"FIGURE", "VALUE", "BOUND", ""} {
		t.column(h, false, false)
	}
	t.column("WHY", true, false)
	for _, f := range r.Figures {
		mark := cell{"", plainText}
		switch {
		case !f.Passed:
			mark = cell{"FAILED", red}
		case f.Bound != nil:
			mark = cell{"ok", green}
		}
		t.rows = append(t.rows, []cell{text(f.Name), text(f.ValueText()), text(f.BoundText()), mark, text(f.Why)})
	}
	fmt.Fprintln(out)
	if len(r.Figures) > 0 {
		for _, l := range t.lines(a.out) {
			a.print(l)
		}
	}
	for _, f := range r.Failed() {
		for _, d := range f.Details {
			fmt.Fprintf(out, "  %s: %s\n", f.Name, clean(d))
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(out, "  note: %s\n", clean(n))
	}
	if r.Error != "" {
		fmt.Fprintf(out, "%s %s did not come to its end: %s\n", a.out.paint(red, "error:"), r.Drill, clean(r.Error))
	}
	if r.Data != "" {
		fmt.Fprintf(out, "data and logs are kept in %s\n", r.Data)
	}
	took := configfile.FormatDuration(time.Duration(r.DurationSeconds * float64(time.Second)).Round(time.Second))
	fmt.Fprintf(out, "%s  %s (%s): %s\n\n", cmp.Or(map[bool]string{true: a.out.paint(green, "PASSED")}[r.Passed], a.out.paint(red, "FAILED")), r.Drill, took, r.Promise)
}
