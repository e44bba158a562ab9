package probe

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// AddressOnly makes a socket that is bound to an address of this machine get its port by connect; for [net.Dialer.Control]. It does nothing where the system does not know that.
func AddressOnly(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) })
}
