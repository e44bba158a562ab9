//go:build unix

package cli

import (
	"os"
	"syscall"
)

// restart replaces this process by a new run of the same command line. It returns only when that fails.
func restart() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}
