//go:build !linux

package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// lean tells whether open can connect to an address; package net does what it cannot.
func lean(string, netip.AddrPort) bool { return false }

// open connects to an address, until ctx ends.
func open(context.Context, string, netip.AddrPort) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
