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
		Use:   "explain check|incident NAME",
		Short: "Explain how a verdict comes about, or what happened in an incident",
		Long: `Explains a verdict: where the check runs and why there, the newest vote of every prober, the arithmetic from votes to
verdict, and what would change it. Of an incident, it shows what the failing probes saw (status, headers, the start of the
body, certificates), what happened when, and who was told.`,
		Example: `  probemesh explain check shop
  probemesh explain incident 01m83dcevj706fw585f1kpsmaj`,
		Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 && isIncident(args[0]) {
				return a.completeOne(incidentResource())(cmd, args, prefix)
			}
			list, directive := a.completeOne(checkResource())(cmd, args, prefix)
			if len(args) == 0 {
				list = append(list, "incident")
			}
			return list, directive
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(output, "text", formatJSON, formatYAML); err != nil {
				return err
			}
			if len(args) > 0 && isIncident(args[0]) {
				name, err := oneName(cmd, spec.Incidents, args)
				if err != nil {
					return err
				}
				return a.explainIncident(cmd.Context(), name, output)
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

// isIncident tells whether the first argument means an incident: the kind, or a full name.
func isIncident(arg string) bool {
	return arg == "incident" || arg == spec.Incidents || strings.HasPrefix(arg, spec.Incidents+"/")
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
