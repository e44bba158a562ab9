//go:build !linux || !(amd64 || arm64)

package hang

import (
	"context"
	"errors"
	"log/slog"
	"os/exec"
	"runtime"
)

// Disk is the flushes of one process; here it cannot be made.
type Disk struct{}

// Supported says why flushes cannot be held here.
func Supported() error {
	return errors.New("holding a process's flushes needs Linux on amd64 or arm64, and this is " + runtime.GOOS + " on " + runtime.GOARCH + "; run this drill there, for example in a virtual machine")
}

// New says why flushes cannot be held here.
func New(*slog.Logger) (*Disk, error) { return nil, Supported() }

// Wrap says why flushes cannot be held here.
func (*Disk) Wrap(*exec.Cmd, []string) error { return Supported() }

// HoldWrites has nothing to hold.
func (*Disk) HoldWrites() {}

// Hold says why flushes cannot be held here.
func (*Disk) Hold(...string) error { return Supported() }

// Fail says why flushes cannot be held here.
func (*Disk) Fail(...string) error { return Supported() }

// Release has nothing to release.
func (*Disk) Release() {}

// Stats has counted nothing.
func (*Disk) Stats() Stats { return Stats{} }

// Waiting lists nothing.
func (*Disk) Waiting() []Flush { return nil }

// Stuck says why flushes cannot be held here.
func (*Disk) Stuck(context.Context, int) error { return Supported() }

// Run says why flushes cannot be held here.
func (*Disk) Run(context.Context) error { return Supported() }

// Close has nothing to close.
func (*Disk) Close() {}

// Exec says why flushes cannot be held here.
func Exec(int, bool, []string) error { return Supported() }
