package icmp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// idTries is how often a random id that another process has taken is replaced by another one.
const idTries = 8

// socket is a socket of one probe, connected to its target, so that the kernel itself drops what others send. Error messages come by its error queue, whether it is
// raw or not. The owner closes it; close may be called at any time and more than once.
type socket struct {
	file *os.File
	conn syscall.RawConn
	v4   bool
	raw  bool
	id   uint16
	to   netip.Addr
	mtu  int // of the prober's own link, once a packet was too big for it
	data []byte
	oob  [256]byte
}

// open opens a socket: unprivileged if it can, raw if it must.
func open(o settings) (*socket, error) {
	o.to, o.source = o.to.Unmap(), o.source.Unmap()
	s := &socket{v4: o.to.Is4(), to: o.to, data: make([]byte, o.payload+256)}
	domain, protocol := unix.AF_INET6, unix.IPPROTO_ICMPV6
	if s.v4 {
		domain, protocol = unix.AF_INET, unix.IPPROTO_ICMP
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		s.raw = true
		fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return nil, &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT, Sentence: Unavailable}
	case err != nil:
		return nil, os.NewSyscallError("socket", err)
	}
	if err := s.prepare(fd, o); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s.file = os.NewFile(uintptr(fd), "icmp")
	if s.conn, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

// prepare sets the options, binds and connects.
func (s *socket) prepare(fd int, o settings) error {
	type option struct{ level, name, value int }
	options := []option{{unix.SOL_IPV6, unix.IPV6_RECVERR, 1}, {unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1}}
	switch {
	case s.v4 && o.dontFragment:
		options = []option{{unix.SOL_IP, unix.IP_RECVERR, 1}, {unix.SOL_IP, unix.IP_RECVTTL, 1}, {unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE}}
	case s.v4:
		options = []option{{unix.SOL_IP, unix.IP_RECVERR, 1}, {unix.SOL_IP, unix.IP_RECVTTL, 1}, {unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT}}
	case o.dontFragment:
		options = append(options, option{unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE}, option{unix.SOL_IPV6, unix.IPV6_DONTFRAG, 1})
	}
	if o.hopLimit > 0 && s.v4 {
		options = append(options, option{unix.SOL_IP, unix.IP_TTL, o.hopLimit})
	} else if o.hopLimit > 0 {
		options = append(options, option{unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, o.hopLimit})
	}
	// The time of the kernel makes a round trip what the network took, without the wait for this process to be scheduled. It costs 3 % of a probe's CPU.
	options = append(options, option{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1})
	for _, x := range options {
		if err := unix.SetsockoptInt(fd, x.level, x.name, x.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := s.bind(fd, o.source); err != nil {
		return err
	}
	to, err := sockaddr(o.to, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, to); err != nil {
		return os.NewSyscallError("connect", err)
	}
	return nil
}

// bind gives the socket its id and its source address. On an unprivileged socket the id is the port that it is bound to.
func (s *socket) bind(fd int, source netip.Addr) error {
	if !source.IsValid() {
		source = netip.IPv6Unspecified()
		if s.v4 {
			source = netip.IPv4Unspecified()
		}
	}
	for try := 0; ; try++ {
		s.id = uint16(rand.Uint32())
		if s.raw {
			if source.IsUnspecified() {
				return nil
			}
		} else if s.id == 0 {
			continue // as a port it would leave the choice to the kernel
		}
		port := s.id
		if s.raw {
			port = 0
		}
		from, err := sockaddr(source, int(port))
		if err != nil {
			return err
		}
		switch err := unix.Bind(fd, from); {
		case errors.Is(err, unix.EADDRINUSE) && try < idTries:
			continue
		case errors.Is(err, unix.EADDRNOTAVAIL):
			return &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT, Sentence: fmt.Sprintf("this prober does not have the address %s to send from; mend icmp.source_address, or run the check elsewhere", source)}
		case err != nil:
			return os.NewSyscallError("bind", err)
		}
		return nil
	}
}

// sockaddr is an address in the form of the kernel.
func sockaddr(a netip.Addr, port int) (unix.Sockaddr, error) {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: a.As4()}, nil
	}
	to := &unix.SockaddrInet6{Port: port, Addr: a.As16()}
	if zone := a.Zone(); zone != "" {
		if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
			to.ZoneId = uint32(n)
		} else if i, err := net.InterfaceByName(zone); err == nil {
			to.ZoneId = uint32(i.Index)
		} else {
			return nil, &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT, Sentence: fmt.Sprintf("this prober has no network interface %q", zone)}
		}
	}
	return to, nil
}

// close ends everything that is waiting on the socket.
func (s *socket) close() { s.file.Close() }

// send sends a packet. An error that the socket still holds of a packet before is not one of this packet: it is left to receive.
func (s *socket) send(packet []byte) error {
	for try := 0; ; try++ {
		var sendErr error
		err := s.conn.Write(func(fd uintptr) bool {
			_, sendErr = unix.Write(int(fd), packet)
			return !errors.Is(sendErr, unix.EAGAIN)
		})
		if err == nil {
			err = sendErr
		}
		// With IP_RECVERR, each error message that has come in makes one call fail. At most one for each request can have.
		if err == nil || try >= 2 || !pending(err) {
			return err
		}
	}
}

// pending tells whether an error is one that an error message from the network may have left on the socket.
func pending(err error) bool {
	for _, e := range []unix.Errno{unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ECONNREFUSED, unix.EPROTO, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET, unix.EOPNOTSUPP, unix.EACCES} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// receive waits for a packet until the given time. ok is false when none came.
func (s *socket) receive(until time.Time, into *arrival) (ok bool, err error) {
	if err := s.file.SetReadDeadline(until); err != nil {
		return false, err
	}
	var readErr error
	err = s.conn.Read(func(fd uintptr) bool {
		ok, readErr = s.read(int(fd), into)
		return ok || readErr != nil
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	case err != nil:
		return false, err
	}
	return ok, readErr
}

// read reads one packet or one error message, be it of use or not, so that the caller can count them. ok is false when nothing is there.
func (s *socket) read(fd int, into *arrival) (ok bool, err error) {
	for range 64 { // each turn takes an error off the socket, or is repeated after a signal
		n, oobn, _, from, err := unix.Recvmsg(fd, s.data, s.oob[:], 0)
		switch {
		case err == nil:
			s.took(n, oobn, from, into)
			return true, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EBADF):
			return false, err
		}
		// Nothing there, or word of an error: the message itself is in the error queue.
		n, oobn, _, _, queueErr := unix.Recvmsg(fd, s.data, s.oob[:], unix.MSG_ERRQUEUE)
		switch {
		case queueErr == nil:
			s.tookError(n, oobn, into)
			return true, nil
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		}
	}
	*into = arrival{}
	return true, nil // not false: the poller tells of each change once, and would not tell again of what is left
}

// took makes an arrival of a packet; one without a packet if it is not the target's.
func (s *socket) took(n, oobn int, from unix.Sockaddr, into *arrival) {
	*into = arrival{packet: s.data[:n]}
	if s.v4 && s.raw {
		into.packet = stripIPv4(into.packet)
	}
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		into.from = netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		into.from = netip.AddrFrom16(a.Addr)
	}
	for rest := s.oob[:oobn]; len(rest) >= unix.CmsgLen(0); {
		h, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			break
		}
		rest = next
		ttl := h.Level == unix.SOL_IP && h.Type == unix.IP_TTL || h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_HOPLIMIT
		switch {
		case ttl && len(data) >= 4:
			into.hops = int(int32(binary.NativeEndian.Uint32(data)))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_TIMESTAMPNS && len(data) >= 16: // shorter only on 32-bit machines
			at := time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:])))
			into.aged = max(0, time.Since(at))
		}
	}
	if into.from != s.to.WithZone("") {
		into.packet = nil
	}
}

// tookError makes an arrival of an entry of the error queue, whose data is what the message quotes from the ICMP header on; one without a packet if it is
// not of the network.
func (s *socket) tookError(n, oobn int, into *arrival) {
	*into = arrival{error: true}
	const size = int(unsafe.Sizeof(unix.SockExtendedErr{}))
	for rest := s.oob[:oobn]; len(rest) >= unix.CmsgLen(0); {
		h, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return
		}
		rest = next
		isError := h.Level == unix.SOL_IP && h.Type == unix.IP_RECVERR || h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVERR
		if !isError || len(data) < size {
			continue
		}
		// struct sock_extended_err (ip(7)): errno, origin, type, code, pad, info, data; then the address of who sent the message.
		origin, info := data[4], int(binary.NativeEndian.Uint32(data[8:]))
		if origin == unix.SO_EE_ORIGIN_LOCAL {
			s.mtu = info
			return
		}
		into.says = refusal{kind: data[5], code: data[6]}
		if into.says.tooBig(s.v4) {
			into.says.mtu = info
		}
		into.from = offender(data[size:])
		if origin == unix.SO_EE_ORIGIN_ICMP || origin == unix.SO_EE_ORIGIN_ICMP6 {
			into.packet = s.data[:n]
		}
	}
}

// offender is the address in a struct sockaddr_in or sockaddr_in6; the zero one when it is neither.
func offender(b []byte) netip.Addr {
	switch {
	case len(b) >= 8 && binary.NativeEndian.Uint16(b) == unix.AF_INET:
		return netip.AddrFrom4([4]byte(b[4:8]))
	case len(b) >= 24 && binary.NativeEndian.Uint16(b) == unix.AF_INET6:
		return netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	}
	return netip.Addr{}
}

// linkMTU is the MTU of the prober's own link, after a packet that was too long for it; 0 when it is not known.
func (s *socket) linkMTU() int {
	var scratch arrival
	_ = s.conn.Control(func(fd uintptr) { _, _ = s.read(int(fd), &scratch) })
	return s.mtu
}
