package cli

import (
	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/drill/netns"
)

// enterNetworkCommand is the step between a drill and a process that it runs in the network of a datacenter: see package netns.
func (a *app) enterNetworkCommand() *cobra.Command {
	var fd int
	cmd := &cobra.Command{
		Use:    netns.Command + " --fd N -- PROGRAM [ARGUMENT...]",
		Short:  "Run a program in a network of the drill that started this",
		Long:   "Used by `probemesh drill`: runs a program in the network namespace that the inherited file --fd refers to.",
		Hidden: true,
		Args:   cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if fd < 3 {
				return usagef("--fd %d: it must be the number of a file inherited from a drill, 3 or more; this command is for `probemesh drill` alone", fd)
			}
			return netns.Exec(fd, args)
		},
	}
	cmd.Flags().IntVar(&fd, "fd", 0, "`NUMBER` of the inherited file of the network")
	return cmd
}
