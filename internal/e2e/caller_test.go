//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// callerIs tells whether the request comes from the process with that id: its socket, found by the two addresses in /proc/net/tcp, is among the process's
// open files. The caller waits for the answer meanwhile, so the socket is there.
func callerIs(r *http.Request, pid int) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	inode := socketOf(r.RemoteAddr, local.String())
	if inode == "" {
		return false
	}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
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
