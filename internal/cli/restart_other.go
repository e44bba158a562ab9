//go:build !unix

package cli

import "errors"

// restart is for systems where a process can replace itself.
func restart() error {
	return errors.New("this system cannot start a process anew in its place; start it again")
}
