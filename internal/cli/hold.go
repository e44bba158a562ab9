package cli

import (
	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/drill/hang"
)

// holdFlushesCommand is the step between a drill and a process whose disk it lets hang: see package hang.
func (a *app) holdFlushesCommand() *cobra.Command {
	var fd int
	var writes bool
	cmd := &cobra.Command{
		Use:    hang.Command + " --fd N -- PROGRAM [ARGUMENT...]",
		Short:  "Run a program whose flushes to disk are held by the drill that started this",
		Long:   "Used by `probemesh drill`: runs a program whose flushes to disk (fsync and its like) are answered by whoever holds the other end of the socket --fd.",
		Hidden: true,
		Args:   cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if fd < 3 {
				return usagef("--fd %d: it must be the number of a socket inherited from a drill, 3 or more; this command is for `probemesh drill` alone", fd)
			}
			if err := hang.Supported(); err != nil {
				return err
			}
			return hang.Exec(fd, writes, args)
		},
	}
	cmd.Flags().IntVar(&fd, "fd", 0, "`NUMBER` of the inherited socket that the listener is handed over by")
	cmd.Flags().BoolVar(&writes, "writes", false, "hold writes too")
	return cmd
}
