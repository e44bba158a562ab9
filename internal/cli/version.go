package cli

import (
	"cmp"
	"encoding/json"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/nearest"
	"github.com/probemesh/probemesh/internal/version"
)

func (a *app) versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version, commit and Go version of this program",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := checkFormat(output, "text", formatJSON); err != nil {
				return err
			}
			if output == "text" {
				a.print(version.String())
				return nil
			}
			out, err := json.MarshalIndent(struct {
				Version  string `json:"version"`
				Commit   string `json:"commit"`
				Build    string `json:"build"`
				Protocol int    `json:"protocol"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version.Version, version.Commit(), version.Build(), version.Protocol, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}, "", "  ")
			if err != nil {
				return err
			}
			a.print(string(out))
			return nil
		},
	}
	outputFlag(cmd, &output, "text", formatJSON)
	return cmd
}

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a script that completes commands and names in your shell",
		Long: `Prints a script for bash, zsh or fish that completes commands, flags, and names that the server knows.

  bash   source <(probemesh completion bash)
  zsh    probemesh completion zsh > "${fpath[1]}/_probemesh"
  fish   probemesh completion fish > ~/.config/fish/completions/probemesh.fish`,
		Args:      cobra.ArbitraryArgs,
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("which shell? Write: probemesh completion bash (or zsh, fish)")
			}
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(a.env.Out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(a.env.Out)
			case "fish":
				return cmd.Root().GenFishCompletion(a.env.Out, true)
			}
			return usagef("there is no completion for %q%s", args[0], cmp.Or(nearest.Hint(args[0], []string{"bash", "zsh", "fish"}), "; use bash, zsh or fish"))
		},
	}
}
