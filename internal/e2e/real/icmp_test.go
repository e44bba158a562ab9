//go:build linux

package real

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// testICMP pings another network namespace: the prober is 10.98.1.1, the target 10.98.1.2.
func testICMP(t *testing.T, b *table) {
	needsRoot(t, "a network namespace")
	prober, target := fmt.Sprintf("real%dp", os.Getpid()), fmt.Sprintf("real%dt", os.Getpid())
	ip := func(line string) error {
		line = strings.NewReplacer("PROBER", prober, "TARGET", target).Replace(line)
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return errors.New(line + ": " + err.Error() + ": " + string(out))
		}
		return nil
	}
	t.Cleanup(func() { _, _ = ip("netns del PROBER"), ip("netns del TARGET") })
	for i, line := range []string{"netns add PROBER", "netns add TARGET", "-n PROBER link add one type veth peer name two netns TARGET", "-n PROBER addr add 10.98.1.1/24 dev one", "-n TARGET addr add 10.98.1.2/24 dev two",
		"-n PROBER link set lo up", "-n PROBER link set one up", "netns exec PROBER sysctl -qw net.ipv4.neigh.one.retrans_time_ms=50", "-n TARGET link set two up", "-n TARGET link set lo up"} {
		if err := ip(line); err != nil && i < 3 {
			t.Skip("this machine makes no network namespaces (apt-get install iproute2; root with CAP_NET_ADMIN): ", err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	with := func(p *meshv1.IcmpProbe) func(*meshv1.Check) { return func(c *meshv1.Check) { c.Icmp = p } }
	const uri = "icmp://10.98.1.2"
	for _, c := range []struct {
		change string
		probed
	}{
		{"", probed{"icmp", "up", uri, nil, probetest.OK()}},
		{"", probed{"icmp", "wrong: comes over fewer hops", uri, with(&meshv1.IcmpProbe{Expect: []string{"response.icmp.hop_limit < 64"}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")}},
		{"netns exec TARGET sysctl -qw net.ipv4.icmp_echo_ignore_all=1", probed{"icmp", "hanging (does not answer)", uri, nil, probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "")}},
		{"-n TARGET addr flush dev two; -n PROBER neigh flush dev one", probed{"icmp", "down (nobody has the address)", uri, nil, probetest.Fail(meshv1.Result_UNREACHABLE, meshv1.Result_PROCESSING, "")}},
		{"-n PROBER route add unreachable 10.98.2.0/24", probed{"icmp", "down (no route)", "icmp://10.98.2.1", nil, probetest.Fail(meshv1.Result_UNREACHABLE, meshv1.Result_CONNECT, "")}},
	} {
		for line := range strings.SplitSeq(c.change, "; ") {
			if line == "" {
				continue
			}
			if err := ip(line); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		var r *meshv1.Result
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
			done <- func() error {
				ns, err := os.Open("/var/run/netns/" + prober)
				if err != nil {
					return err
				}
				defer ns.Close()
				if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
					return err
				}
				r = c.probe(t, 2*short)
				return nil
			}()
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.want.Match(t, r)
		b.add(row{kind: c.kind, server: "the kernel", state: c.state, result: r})
	}
}
