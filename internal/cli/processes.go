package cli

import "github.com/spf13/cobra"

// processCommands are the commands that run a part of the mesh until they are stopped: each is in the file of its name.
func (a *app) processCommands() []*cobra.Command {
	return []*cobra.Command{a.upCommand(), a.serverCommand(), a.proberRunCommand(), a.drillCommand()}
}
