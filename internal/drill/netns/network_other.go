//go:build !linux

package netns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os/exec"
	"runtime"
)

// MaxSites is the most sites that a Network can have.
const MaxSites = 200

// Network is sites and the wire between them; here it cannot be made.
type Network struct{}

// Supported says why datacenters cannot have networks of their own here.
func Supported() error {
	return errors.New("datacenters with networks of their own need Linux, and this is " + runtime.GOOS + "; run this drill there, for example in a virtual machine")
}

// Isolated is false here.
func Isolated() bool { return false }

// Isolate says why it cannot be had here.
func Isolate(context.Context) (done bool, code int, err error) { return false, 0, Supported() }

// Exec says why it cannot be had here.
func Exec(int, []string) error { return Supported() }

// New says why it cannot be had here.
func New(*slog.Logger, ...string) (*Network, error) { return nil, Supported() }

// Host is empty here.
func (*Network) Host(string) string { return "" }

// Outside is empty here.
func (*Network) Outside() string { return "" }

// Set says why it cannot be had here.
func (*Network) Set(string, Fault) error { return Supported() }

// Stats has counted nothing.
func (*Network) Stats(string) Stats { return Stats{} }

// Wrap says why it cannot be had here.
func (*Network) Wrap(string, *exec.Cmd, []string) error { return Supported() }

// Listen says why it cannot be had here.
func (*Network) Listen(string, string, string) (net.Listener, error) { return nil, Supported() }

// Dial says why it cannot be had here.
func (*Network) Dial(context.Context, string, string, string) (net.Conn, error) {
	return nil, Supported()
}

// Close has nothing to close.
func (*Network) Close() {}
