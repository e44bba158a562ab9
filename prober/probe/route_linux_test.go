package probe_test

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// The machine has an interface with an address and no way out of it: a laptop that is offline, with a bridge for its containers.
func TestWhereThisMachineHasNoRouteIsItsOwnError(t *testing.T) {
	skip := make(chan string)
	go func() {
		defer close(skip)
		runtime.LockOSThread() // for good: the thread ends with its network
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			skip <- err.Error()
			return
		}
		for _, args := range []string{"link add one type veth peer name two", "addr add 198.51.100.2/24 dev one", "link set one up", "link set two up"} {
			if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
				skip <- fmt.Sprintf("ip %s: %v: %s", args, err, out)
				return
			}
		}
		for remote, err := range map[string]error{
			"192.0.2.7:443":     syscall.ENETUNREACH,
			"[2001:db8::7]:443": syscall.ENETUNREACH,
			"":                  &net.DNSError{Err: "server misbehaving", Name: "a.example.com", Server: "192.0.2.53:53"},
		} {
			r := planned(t, 5*time.Second, nil, func(_ context.Context, a *probe.Attempt) (probe.Answer, error) {
				a.Meeting("a.example.com")
				if remote != "" {
					a.Connecting(remote)
				}
				return nil, err
			})
			if r.GetOutcome() != meshv1.Result_ERROR || r.GetErrorClass() != meshv1.Result_PROBER || !strings.Contains(r.GetError(), "this prober") {
				t.Errorf("%q: %v", remote, r)
			}
		}
	}()
	if why, ok := <-skip; ok {
		t.Skipf("a network of its own cannot be had (run it as root, with ip of iproute2): %s", why)
	}
}
