package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// usageTemplate is what --help prints after the description. It differs from cobra's own in saying how flags can be given otherwise, and how it ends.
const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}

Also:{{range $cmds}}{{if (and (eq .GroupID "") (or .IsAvailableCommand (eq .Name "help") .IsAdditionalHelpTopicCommand))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 110 | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsagesWrapped 110 | trimTrailingWhitespaces}}{{end}}

A flag --some-flag can also be given as PROBEMESH_SOME_FLAG in the environment, or as some_flag in the file of --config.{{if .Runnable}}
Exit codes: 0 done, or yes; 1 the answer is no; 2 bad usage or configuration; 3 the server refused or cannot be reached.{{end}}{{if .HasAvailableSubCommands}}

` + "`{{.CommandPath}} COMMAND --help`" + ` tells more about a command.{{end}}
`

// exitCodesTopic is `probemesh help exit-codes`.
func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp}
}

// helpCommand is `probemesh help [COMMAND]`.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about a command or a topic",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || found == nil || len(rest) > 0 {
				return usagef("there is no command or topic %q; `probemesh help` lists them", strings.Join(args, " "))
			}
			if found.IsAdditionalHelpTopicCommand() {
				cmd.Println(found.Long)
				return nil
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}
