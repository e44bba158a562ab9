package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/configfile"
	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// wish is what apply and diff are told: files, and what to do with the resources that they do not have.
type wish struct {
	files       []string
	prune       bool
	pruneLabels map[string]string
}

// flags defines the flags of a wish.
func (w *wish) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&w.files, "file", "f", nil, "`FILE` or directory with checks and receivers, - for standard input; may be repeated")
	cmd.Flags().BoolVar(&w.prune, "prune", false, "delete checks and receivers that the files do not have; off, so that several files may be applied one by one")
	pairsFlag(cmd.Flags(), &w.pruneLabels, "prune-label", "with --prune, delete only checks with this label, `KEY=VALUE`, and no receivers; may be repeated")
}

// load reads the files, and refuses them with every fault listed.
func (a *app) load(cmd *cobra.Command, w wish) (*configfile.Config, error) {
	if len(w.files) == 0 {
		return nil, usagef("which file? Write: %s -f FILE", cmd.CommandPath())
	}
	if len(w.pruneLabels) > 0 && !w.prune {
		return nil, usagef("--prune-label has no effect without --prune; add it")
	}
	c, err := configfile.Load(w.files, a.env.In)
	if err != nil {
		err = a.alsoRefused(cmd.Context(), c, err)
		return nil, &failure{code: ExitUsage, message: err.Error() + "\nNothing was changed.", cause: err}
	}
	return c, nil
}

// refusedTimeout is how long the server may take to say what else is wrong with files that are refused anyway.
const refusedTimeout = 2 * time.Second

// alsoRefused adds to the faults of files what only the server can tell, such as receivers that do not exist: otherwise these would come to light when the others are mended.
func (a *app) alsoRefused(ctx context.Context, config *configfile.Config, err error) error {
	var faulty *configfile.Error
	if !errors.As(err, &faulty) || !config.Understood() {
		return err
	}
	c, dialErr := a.connect()
	if dialErr != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, min(a.timeout, refusedTimeout))
	defer cancel()
	_, refused := c.checks.Apply(ctx, &meshv1.ApplyRequest{Checks: config.Config.GetChecks(), Receivers: config.Config.GetReceivers(), ValidateOnly: true, RequestId: rand.Text()})
	if e, ok := fault.From(refused); ok {
		return config.Also(faulty, e.Violations)
	}
	return err
}

// plan asks the server to make the wish true, or only what it would do.
func (a *app) plan(ctx context.Context, c *client, config *configfile.Config, w wish, validateOnly bool) (*meshv1.ApplyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	resp, err := c.checks.Apply(ctx, &meshv1.ApplyRequest{
		Checks: config.Config.GetChecks(), Receivers: config.Config.GetReceivers(),
		Prune: w.prune, PruneLabels: w.pruneLabels, ValidateOnly: validateOnly, RequestId: rand.Text(),
	})
	if err != nil {
		return nil, a.explainApply(err, config)
	}
	policy, err := a.planPolicy(ctx, c, config.Config.GetBuildPolicy(), validateOnly)
	if policy != nil {
		resp.Changes = append(resp.Changes, policy)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// explainApply is explain, with the place in the file for every violation that is about a resource of the files.
func (a *app) explainApply(err error, config *configfile.Config) error {
	e, ok := fault.From(err)
	if !ok || len(e.Violations) == 0 {
		return a.explain(err)
	}
	lines := []string{e.Message}
	for _, v := range e.Violations {
		if at, path, found := config.Locate(v.Field); found {
			lines = append(lines, fmt.Sprintf("%s: %s: %s", at, path, v.Problem))
		} else {
			lines = append(lines, v.String())
		}
	}
	return &failure{code: ExitServer, message: strings.Join(lines, "\n  "), cause: err}
}

func (a *app) applyCommand() *cobra.Command {
	var w wish
	var dryRun bool
	var output string
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make checks and receivers be as a file says",
		Long: `Makes checks and receivers be as files say: creates what is missing, changes what differs, and with --prune deletes what
the files do not have. Applying the same file again changes nothing.

The files are YAML or JSON with lists of checks and receivers. They are examined first, here and by the server: with one
fault nothing is changed, and every fault is listed with its place.`,
		Example: `  probemesh apply -f checks.yaml
  probemesh apply -f checks/ -f receivers.yaml --prune
  probemesh apply -f team.yaml --prune --prune-label team=payments
  probemesh apply -f checks.yaml --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(output, "text", formatJSON); err != nil {
				return err
			}
			config, err := a.load(cmd, w)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			resp, err := a.plan(cmd.Context(), c, config, w, dryRun)
			if err != nil {
				return err
			}
			if output == formatJSON {
				return a.printMessage(resp, formatJSON)
			}
			a.printChanges(resp.GetChanges(), dryRun)
			a.noteUntold(config.Config.GetChecks(), resp.GetChanges())
			a.noteWarnings(resp.GetWarnings(), config)
			return nil
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	outputFlag(cmd, &output, "text", formatJSON)
	return cmd
}

// printChanges prints a line for each resource, the fields of those that change, and a summary.
func (a *app) printChanges(changes []*meshv1.Change, dryRun bool) {
	totals := map[meshv1.Change_Action]int{}
	for _, ch := range changes {
		totals[ch.GetAction()]++
		word, c := actionWord(ch.GetAction())
		a.print(a.out.paint(c, fmt.Sprintf("%-9s", word)) + "  " + clean(ch.GetName()))
		for _, f := range ch.GetFields() {
			a.print(fmt.Sprintf("             %s: %s → %s", clean(f.GetPath()), a.out.paint(red, jsonOrUnset(f.GetBefore())), a.out.paint(green, jsonOrUnset(f.GetAfter()))))
		}
	}
	var parts []string
	for _, action := range []meshv1.Change_Action{meshv1.Change_CREATE, meshv1.Change_UPDATE, meshv1.Change_DELETE, meshv1.Change_UNCHANGED} {
		if n := totals[action]; n > 0 {
			word, _ := actionWord(action)
			parts = append(parts, fmt.Sprintf("%d %s", n, word))
		}
	}
	summary := "nothing to do"
	if len(parts) > 0 {
		summary = strings.Join(parts, ", ")
	}
	if dryRun {
		summary += " (a dry run: nothing was changed)"
	}
	a.print(a.out.paint(bold, summary))
}

// noteWarnings tells what the server warns of, with its place in the files.
func (a *app) noteWarnings(warnings []*meshv1.ApplyWarning, config *configfile.Config) {
	for _, w := range warnings {
		if at, path, found := config.Locate(w.GetField()); found {
			a.note("warning: %s: %s %s", at, path, w.GetProblem())
		} else {
			a.note("warning: %s %s", w.GetField(), w.GetProblem())
		}
	}
}

// noteUntold remarks on checks that were created or changed and name no receiver: one forgets that easily, and learns of it in the worst moment.
func (a *app) noteUntold(checks []*meshv1.Check, changes []*meshv1.Change) {
	changed := map[string]bool{}
	for _, ch := range changes {
		changed[ch.GetName()] = ch.GetAction() == meshv1.Change_CREATE || ch.GetAction() == meshv1.Change_UPDATE
	}
	var untold []string
	for _, c := range checks {
		if changed[c.GetName()] && len(c.GetReceivers()) == 0 && !c.GetPaused() {
			untold = append(untold, c.GetName())
		}
	}
	switch n := len(untold); {
	case n == 1:
		a.note("note: %s names no receiver, so nobody is told when it is down; see `receivers` in docs/checks/README.md", untold[0])
	case n > 1:
		a.note("note: %d checks name no receiver, so nobody is told when they are down, %s for example; see `receivers` in docs/checks/README.md", n, untold[0])
	}
}

func actionWord(a meshv1.Change_Action) (string, colour) {
	switch a {
	case meshv1.Change_CREATE:
		return "created", green
	case meshv1.Change_UPDATE:
		return "updated", yellow
	case meshv1.Change_DELETE:
		return "deleted", red
	}
	return "unchanged", dim
}

// jsonOrUnset shows a value of a field change; long ones are cut.
func jsonOrUnset(s string) string {
	if s == "" {
		return "(unset)"
	}
	return fit(clean(s), 200)
}

// noArgs refuses arguments with a sentence.
func noArgs(cmd *cobra.Command, args []string) error {
	if file := cmd.Flags().Lookup("file"); len(args) > 0 && file != nil && !file.Changed {
		return usagef("%s takes files by -f; write: %s -f %s", cmd.CommandPath(), cmd.CommandPath(), args[0])
	}
	if len(args) > 0 {
		return usagef("%s takes no argument, but was given %q; see `%s --help`", cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return nil
}
