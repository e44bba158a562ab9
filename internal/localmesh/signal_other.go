//go:build !unix

package localmesh

import "errors"

var errNoPause = errors.New("this system cannot pause a process; run it on Linux or macOS")

// Pause is not possible here: it needs SIGSTOP.
func (x *Member) Pause() error { return errNoPause }

// Resume is not possible here.
func (x *Member) Resume() error { return errNoPause }

func (x *Member) terminate() error {
	x.hangUp()
	return nil
}
