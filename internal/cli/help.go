package cli

import (
	"cmp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/nearest"
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
{{.LocalFlags.FlagUsagesWrapped WIDTH | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsagesWrapped WIDTH | trimTrailingWhitespaces}}{{end}}

A flag --some-flag can also be given as PROBEMESH_SOME_FLAG in the
environment, or as some_flag in the file of --config.{{if .Runnable}}

Exit codes: 0 done, or yes; 1 the answer is no; 2 bad usage or
configuration; 3 the server refused or cannot be reached.{{end}}{{if .HasAvailableSubCommands}}

` + "`{{.CommandPath}} COMMAND --help`" + ` tells more about a command.{{end}}
`

// helpWidth is how wide help is: as the terminal, and 100 cells at most, since longer lines are hard to read.
func helpWidth(s screen) int {
	if s.width == 0 {
		return 100
	}
	return max(40, min(s.width, 100))
}

// fitHelp lays out the help of a command and of those below it for a width.
func fitHelp(cmd *cobra.Command, width int) {
	cmd.Long = reflow(cmd.Long, width)
	for _, sub := range cmd.Commands() {
		fitHelp(sub, width)
	}
}

// reflow breaks the lines of each paragraph anew. Lines that begin with a space stay as they are, as in lists and examples.
func reflow(s string, width int) string {
	var out []string
	var words []string
	flush := func() {
		line := ""
		for _, w := range words {
			if line != "" && cells(line)+1+cells(w) > width {
				out = append(out, line)
				line = ""
			}
			line = strings.TrimPrefix(line+" "+w, " ")
		}
		if line != "" {
			out = append(out, line)
		}
		words = nil
	}
	for _, line := range strings.Split(s, "\n") {
		if line == "" || strings.HasPrefix(line, " ") || strings.Contains(line, ":  ") {
			flush()
			out = append(out, line)
			continue
		}
		words = append(words, strings.Fields(line)...)
	}
	flush()
	return strings.Join(out, "\n")
}

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
				return usagef("there is no command or topic %q%s", strings.Join(args, " "), cmp.Or(nearest.Hint(strings.Join(args, " "), commandNames(cmd.Root())), "; `probemesh help` lists them"))
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
