//go:build unix

package localmesh

import "syscall"

// Pause stops the process from running (SIGSTOP) without its noticing, until Resume.
func (x *Member) Pause() error { return x.Signal(syscall.SIGSTOP) }

// Resume lets a paused process run on (SIGCONT). One that is not paused does not notice.
func (x *Member) Resume() error { return x.Signal(syscall.SIGCONT) }

func (x *Member) terminate() error { return x.Signal(syscall.SIGTERM) }
