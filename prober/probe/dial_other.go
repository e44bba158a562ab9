//go:build !linux

package probe

import "syscall"

// AddressOnly makes a socket that is bound to an address of this machine get its port by connect; for [net.Dialer.Control]. It does nothing where the system does not know that.
func AddressOnly(string, string, syscall.RawConn) error { return nil }
