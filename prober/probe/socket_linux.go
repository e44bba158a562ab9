package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// againMax is how often connecting is tried again when the system finds no free port, as package net does: another socket may give one back meanwhile.
const againMax = 2

// socket is a connection that costs less than one of package net: nobody is asked for addresses that nobody wants to know, and the poller learns of it only when there is something to wait for,
// which for a target that is near and has nothing to say never happens. Its errors are those of package net.
type socket struct {
	network string // "tcp" or "udp"
	remote  netip.AddrPort

	mu     sync.Mutex // guards everything below
	fd     int        // while there is no file
	file   *os.File   // of fd, once it is read, written or bounded
	closed bool
}

// lean tells whether open can connect to an address; package net does what it cannot.
func lean(network string, to netip.AddrPort) bool {
	return (network == "tcp" || network == "udp") && !to.Addr().IsUnspecified() && to.Addr().Zone() == ""
}

// open connects to an address, until ctx ends.
func open(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	s := &socket{network: network, remote: to}
	for again := 0; ; again++ {
		err := ctx.Err()
		if err == nil {
			err = s.connect(ctx)
		}
		if err == nil {
			return s, nil
		}
		if again == againMax || !errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, s.fault("dial", err)
		}
	}
}

// connect makes the socket and connects it. Nothing is left open when it fails.
func (s *socket) connect(ctx context.Context) (err error) {
	domain, kind := unix.AF_INET6, unix.SOCK_STREAM
	to := unix.Sockaddr(nil)
	if addr := s.remote.Addr().Unmap(); addr.Is4() {
		domain, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(s.remote.Port()), Addr: addr.As4()}
	} else {
		to = &unix.SockaddrInet6{Port: int(s.remote.Port()), Addr: addr.As16()}
	}
	if s.network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	if s.fd, err = unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return os.NewSyscallError("socket", err)
	}
	err = unix.Connect(s.fd, to)
	if s.network == "udp" && errors.Is(err, unix.EACCES) { // a broadcast address, which has to be permitted
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
		err = unix.Connect(s.fd, to)
	}
	if underWay(err) {
		// On this machine it is done by now. To connect once more tells; it is done, fails, or is still under way.
		if err = established(unix.Connect(s.fd, to)); underWay(err) {
			err = s.wait(ctx, to)
		}
	}
	if err == nil && s.network == "tcp" && s.meetsItself() {
		err = unix.ECONNREFUSED
	}
	if err == nil {
		return nil
	}
	if s.file != nil {
		s.file.Close()
	} else {
		unix.Close(s.fd)
	}
	s.fd, s.file = 0, nil
	return os.NewSyscallError("connect", err)
}

// underWay tells whether connecting goes on.
func underWay(err error) bool {
	return errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EALREADY) || errors.Is(err, unix.EINTR)
}

// established makes nothing of the error of connecting a connected socket.
func established(err error) error {
	if errors.Is(err, unix.EISCONN) {
		return nil
	}
	return err
}

// wait waits until the connection is there or has failed, or until ctx ends.
func (s *socket) wait(ctx context.Context, to unix.Sockaddr) error {
	s.file = os.NewFile(uintptr(s.fd), s.network)
	if deadline, ok := ctx.Deadline(); ok {
		_ = s.file.SetWriteDeadline(deadline)
	}
	file := s.file
	stop := context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(time.Unix(1, 0)) })
	raw, err := s.file.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Write(func(fd uintptr) bool {
			failed = established(unix.Connect(int(fd), to))
			return !underWay(failed)
		})
		if err == nil {
			err = failed
		}
	}
	if !stop() {
		return ctx.Err()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.DeadlineExceeded // the deadline of ctx, a moment before ctx
	}
	_ = s.file.SetWriteDeadline(time.Time{})
	s.undelayed()
	return err
}

// meetsItself tells whether the system has chosen the port that was to be connected to, so that the socket is connected to itself. It proves that nobody listens there, since the port was free.
func (s *socket) meetsItself() bool {
	return s.local() == netip.AddrPortFrom(s.remote.Addr().Unmap(), s.remote.Port())
}

// local is this end's address; the zero value when it is not known.
func (s *socket) local() netip.AddrPort {
	own, err := unix.Getsockname(s.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch own := own.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(own.Addr), uint16(own.Port))
	}
	return netip.AddrPort{}
}

// undelayed has small writes leave at once, as package net does.
func (s *socket) undelayed() {
	if s.network == "tcp" {
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
}

// polled is the socket as the poller knows it.
func (s *socket) polled() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, net.ErrClosed
	case s.file == nil:
		s.undelayed()
		s.file = os.NewFile(uintptr(s.fd), s.network)
	}
	return s.file, nil
}

// fault is an error as package net makes it.
func (s *socket) fault(op string, err error) error {
	var inner *os.PathError
	if errors.As(err, &inner) {
		if err = inner.Err; errors.Is(err, os.ErrClosed) {
			err = net.ErrClosed
		}
		var number unix.Errno
		if errors.As(err, &number) {
			err = os.NewSyscallError(op, err)
		}
	}
	return &net.OpError{Op: op, Net: s.network, Addr: s.RemoteAddr(), Err: err}
}

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) {
	file, err := s.polled()
	if err != nil {
		return 0, s.fault("read", err)
	}
	n, err := file.Read(b)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && s.network == "udp":
		return 0, nil // a datagram with nothing in it
	case errors.Is(err, io.EOF):
		return n, io.EOF
	}
	return n, s.fault("read", err)
}

// Write implements net.Conn.
func (s *socket) Write(b []byte) (int, error) {
	file, err := s.polled()
	if err != nil {
		return 0, s.fault("write", err)
	}
	n, err := file.Write(b)
	if err != nil {
		err = s.fault("write", err)
	}
	return n, err
}

// Close implements net.Conn.
func (s *socket) Close() error {
	s.mu.Lock()
	file, closed := s.file, s.closed
	s.closed = true
	s.mu.Unlock()
	var err error
	switch {
	case closed:
		err = net.ErrClosed
	case file != nil:
		err = file.Close()
	default:
		err = os.NewSyscallError("close", unix.Close(s.fd))
	}
	if err != nil {
		err = s.fault("close", err)
	}
	return err
}

// bound sets a deadline.
func (s *socket) bound(set func(*os.File, time.Time) error, t time.Time) error {
	file, err := s.polled()
	if err == nil {
		err = set(file, t)
	}
	if err != nil {
		err = s.fault("set", err)
	}
	return err
}

// SetDeadline implements net.Conn.
func (s *socket) SetDeadline(t time.Time) error { return s.bound((*os.File).SetDeadline, t) }

// SetReadDeadline implements net.Conn.
func (s *socket) SetReadDeadline(t time.Time) error { return s.bound((*os.File).SetReadDeadline, t) }

// SetWriteDeadline implements net.Conn.
func (s *socket) SetWriteDeadline(t time.Time) error { return s.bound((*os.File).SetWriteDeadline, t) }

// LocalAddr implements net.Conn. After Close it tells no address.
func (s *socket) LocalAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.address(netip.AddrPort{})
	}
	return s.address(s.local())
}

// RemoteAddr implements net.Conn.
func (s *socket) RemoteAddr() net.Addr { return s.address(s.remote) }

func (s *socket) address(at netip.AddrPort) net.Addr {
	if s.network == "udp" {
		return net.UDPAddrFromAddrPort(at)
	}
	return net.TCPAddrFromAddrPort(at)
}
