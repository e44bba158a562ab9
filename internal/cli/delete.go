package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// deletable are the kinds that can be deleted.
func deletable() []*resource {
	return []*resource{checkResource(), receiverResource(), proberResource()}
}

func (a *app) deleteCommand() *cobra.Command {
	var w wish
	var allowMissing bool
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | delete -f FILE",
		Short: "Delete checks, receivers or probers",
		Long: `Deletes the named checks, receivers or probers, or the checks and receivers of files.

An open incident of a deleted check is resolved. A receiver can be deleted when no check names it, a prober when it is
offline. What can be deleted is deleted, also when something else in the same command cannot; then the exit code is 3.`,
		Example: `  probemesh delete check shop api
  probemesh delete -f checks.yaml`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeKindAndNames(deletable()),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := a.deletions(cmd, args, w)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.deleteAll(cmd.Context(), c, names, allowMissing)
		},
	}
	cmd.Flags().StringArrayVarP(&w.files, "file", "f", nil, "`FILE` or directory whose checks and receivers are deleted, - for standard input; may be repeated")
	cmd.Flags().BoolVar(&allowMissing, "allow-missing", false, "what does not exist is no error; off, so that a mistyped name is told")
	return cmd
}

// deletions lists the names to delete: checks before the receivers that they may name.
func (a *app) deletions(cmd *cobra.Command, args []string, w wish) ([]string, error) {
	if len(w.files) == 0 {
		kind, names, err := a.kindAndNames(cmd, args, deletable())
		if err == nil && len(names) == 0 {
			err = usagef("which %s? Write: probemesh delete %s NAME", kind.plural, kind.singular)
		}
		return names, err
	}
	if len(args) > 0 {
		return nil, usagef("-f and names exclude each other; give one of them")
	}
	config, err := a.load(cmd, w)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range config.Config.GetChecks() {
		names = append(names, c.GetName())
	}
	for _, r := range config.Config.GetReceivers() {
		names = append(names, r.GetName())
	}
	return names, nil
}

func (a *app) deleteAll(ctx context.Context, c *client, names []string, allowMissing bool) error {
	var problems []string
	for _, name := range names {
		err := a.deleteOne(ctx, c, name)
		switch {
		case err == nil:
			a.print(a.out.paint(red, "deleted") + "  " + name)
		case allowMissing && isNotFound(err):
			a.print(a.out.paint(dim, "missing") + "  " + name)
		default:
			problems = append(problems, about(name, a.explain(err).Error()))
			if ctx.Err() != nil || isUnreachable(err) {
				return joinProblems(problems)
			}
		}
	}
	return joinProblems(problems)
}

// about puts the name before a problem that does not begin with it.
func about(name, problem string) string {
	if strings.HasPrefix(problem, name+" ") {
		return problem
	}
	return name + ": " + problem
}

func (a *app) deleteOne(ctx context.Context, c *client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	collection, _, _ := strings.Cut(name, "/")
	var err error
	switch collection {
	case spec.Checks:
		// Without allow_missing, so that what was not there is told apart from what was deleted.
		_, err = c.checks.DeleteCheck(ctx, &meshv1.DeleteCheckRequest{Name: name})
	case spec.Receivers:
		_, err = c.receivers.DeleteReceiver(ctx, &meshv1.DeleteReceiverRequest{Name: name})
	case spec.Probers:
		_, err = c.probers.DeleteProber(ctx, &meshv1.DeleteProberRequest{Name: name})
	default:
		panic("cli: delete of " + name)
	}
	return err
}
