package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func (a *app) explainCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "explain check NAME",
		Short: "Explain how the verdict of a check comes about",
		Long: `Explains a verdict: where the check runs and why there, the newest vote of every prober, the arithmetic from votes to
verdict, and what would change it.`,
		Example:           "  probemesh explain check shop",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeOne(checkResource()),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(output, "text", formatJSON, formatYAML); err != nil {
				return err
			}
			name, err := oneName(cmd, spec.Checks, args)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			resp, err := answer(cmd.Context(), a, c.checks.ExplainCheck, &meshv1.ExplainCheckRequest{Name: name})
			if err != nil {
				return err
			}
			if output != "text" {
				return a.printMessage(resp, output)
			}
			a.print(cleanText(strings.TrimRight(resp.GetText(), "\n")))
			return nil
		},
	}
	outputFlag(cmd, &output, "text", formatJSON, formatYAML)
	return cmd
}

// completeOne completes `KIND NAME` of one kind.
func (a *app) completeOne(kind *resource) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return []string{kind.singular}, cobra.ShellCompDirectiveNoFileComp
		case 1:
			return a.completeNames(cmd, kind, prefix), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}
