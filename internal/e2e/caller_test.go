//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// callerIs tells whether the request comes from the process with that id, a child of this one: whether one of its sockets has the request's remote address. The caller waits for the answer
// meanwhile, so the socket is there. The system's table of sockets, which is slow to read while other tests leave tens of thousands of them behind, is asked only where this process may not
// look at sockets of its children, as in some containers.
func callerIs(r *http.Request, pid int) bool {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(process)
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, f := range files {
		to, _ := os.Readlink(f)
		number, err := strconv.Atoi(filepath.Base(f))
		if err != nil || !strings.HasPrefix(to, "socket:") {
			continue
		}
		socket, err := unix.PidfdGetfd(process, number, 0)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
			if ok && to == "socket:["+socketOf(r.RemoteAddr, local.String())+"]" {
				return true
			}
		}
		if err == nil && addressOf(socket) == r.RemoteAddr {
			return true
		}
	}
	return false
}

// addressOf is the local address of an IPv4 socket, which it closes; "" for anything else.
func addressOf(socket int) string {
	defer unix.Close(socket)
	own, err := unix.Getsockname(socket)
	if a, ok := own.(*unix.SockaddrInet4); err == nil && ok {
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	}
	return ""
}

// socketOf is the inode of the TCP socket with these two addresses, empty when there is none.
func socketOf(local, remote string) string {
	want := [2]string{kernelAddress(local), kernelAddress(remote)}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[1] == want[0] && f[2] == want[1] {
			return f[9]
		}
	}
	return ""
}

// kernelAddress writes an IPv4 address and port as /proc/net/tcp does: the address as a little-endian word, in hex.
func kernelAddress(address string) string {
	a, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil || a.IP.To4() == nil {
		return ""
	}
	ip := a.IP.To4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], a.Port)
}

// refusing is a handler that answers 503 to the processes it is told to refuse, and counts whom it served.
type refusing struct {
	refused [2]atomic.Int64 // process ids; 0 is nobody
	counts  [2]atomic.Int64 // requests that were served, and that were refused
}

func (h *refusing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for i := range h.refused {
		if pid := h.refused[i].Load(); pid != 0 && callerIs(r, int(pid)) {
			h.counts[1].Add(1)
			http.Error(w, "not for you", http.StatusServiceUnavailable)
			return
		}
	}
	h.counts[0].Add(1)
	fmt.Fprintln(w, "fine")
}
