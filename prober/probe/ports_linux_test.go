package probe

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TestAPortThatIsTakenForOneTargetServesAnother connects to more targets than this machine has ports, in a network of its own that has two.
func TestAPortThatIsTakenForOneTargetServesAnother(t *testing.T) {
	runtime.LockOSThread() // and never unlocks it: the thread of the other network ends with the test
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		t.Skipf("no network of its own can be made: %v", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Skipf("its loopback does not come up: %v %s", err, out)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40001"), 0); err != nil {
		t.Skipf("its ports cannot be limited: %v", err)
	}
	for n, d := range []Dialer{{}, {Source: netip.MustParseAddr("127.0.0.1")}} {
		for i := range 6 {
			l, err := net.Listen("tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), uint16(7000+n)).String())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			a := &Attempt{start: time.Now(), timeout: 5 * time.Second}
			a.Enter(meshv1.Result_CONNECT)
			conn, err := d.dialOne(ctx, a, "tcp", netip.MustParseAddrPort(l.Addr().String()))
			if err != nil {
				t.Fatalf("target %d, from %v: %v", i+1, d.Source, err)
			}
			defer conn.Close()
		}
	}
}
