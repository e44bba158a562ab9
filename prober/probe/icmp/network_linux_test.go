package icmp_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/icmp"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// network is a prober, a router and a target in network namespaces of their own:
//
//	prober 10.99.1.1 --- MTU 1500 --- 10.99.1.2 router 10.99.2.1 --- MTU 1400 --- 10.99.2.2 target
//
// and the same with fd99:1:: and fd99:2::. The router says that 10.99.3.0/24 is unreachable and that 10.99.4.0/24 is prohibited; Linux
// says so once a second or less to one address.
type network struct{ prober string }

// newNetwork makes a network, and skips the test where that is not allowed.
func newNetwork(t *testing.T) *network {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	id := fmt.Sprintf("pm%d", os.Getpid())
	p, r, g := id+"p", id+"r", id+"t"
	ip := func(args string) error {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return nil
	}
	for _, n := range []string{p, r, g} {
		if err := ip("netns add " + n); err != nil {
			t.Skip("this machine makes no network namespaces: ", err)
		}
		t.Cleanup(func() { _ = ip("netns del " + n) })
	}
	for _, args := range []string{
		"-n P link set lo up", "-n R link set lo up", "-n T link set lo up",
		"-n P link add eth1 type veth peer name eth2 netns R", "-n R link add eth3 type veth peer name eth4 netns T",
		"-n P addr add 10.99.1.1/24 dev eth1", "-n P addr add fd99:1::1/64 dev eth1 nodad", "-n R addr add 10.99.1.2/24 dev eth2", "-n R addr add fd99:1::2/64 dev eth2 nodad",
		"-n R addr add 10.99.2.1/24 dev eth3", "-n R addr add fd99:2::1/64 dev eth3 nodad", "-n T addr add 10.99.2.2/24 dev eth4", "-n T addr add fd99:2::2/64 dev eth4 nodad",
		"-n R link set eth3 mtu 1400", "-n T link set eth4 mtu 1400",
		"-n P link set eth1 up", "-n R link set eth2 up", "-n R link set eth3 up", "-n T link set eth4 up",
		"-n P route add default via 10.99.1.2", "-n P route add default via fd99:1::2", "-n T route add default via 10.99.2.1", "-n T route add default via fd99:2::1",
		"-n R route add unreachable 10.99.3.0/24", "-n R route add prohibit 10.99.4.0/24",
		"netns exec R sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0",
	} {
		args = strings.NewReplacer("-n P", "-n "+p, "-n R", "-n "+r, "-n T", "-n "+g, "netns R", "netns "+r, "netns T", "netns "+g, "exec R", "exec "+r).Replace(args)
		switch err := ip(args); {
		case err != nil && strings.Contains(args, "link add"):
			t.Skip("this machine has no veth pairs: ", err)
		case err != nil:
			t.Fatal(err)
		}
	}
	return &network{prober: p}
}

// inside runs f in the prober's namespace, with unprivileged sockets or raw ones.
func (n *network) inside(t *testing.T, unprivileged bool, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		done <- func() error {
			ns, err := os.Open("/var/run/netns/" + n.prober)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			groups := "1\t0"
			if unprivileged {
				groups = "0\t0"
			}
			if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0o644); err != nil {
				return err
			}
			f()
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestWhatRoutersSayIsTold(t *testing.T) {
	n := newNetwork(t)
	bytes := func(size int32) *meshv1.IcmpProbe { return &meshv1.IcmpProbe{PayloadSize: proto.Int32(size)} }
	whole := func(size int32) *meshv1.IcmpProbe {
		return &meshv1.IcmpProbe{PayloadSize: proto.Int32(size), DontFragment: true}
	}
	mine := probetest.Want{Outcome: meshv1.Result_ERROR, Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT}
	saying := func(w probetest.Want, sentence string) probetest.Want { w.Error = sentence; return w }
	unreachable := probetest.Fail(meshv1.Result_UNREACHABLE, meshv1.Result_PROCESSING, "")
	cases := []struct {
		host    string
		options *meshv1.IcmpProbe
		want    probetest.Want
	}{
		{"10.99.2.2", nil, probetest.OK()},
		{"10.99.2.2", &meshv1.IcmpProbe{SourceAddress: "10.99.1.1", MaxLoss: proto.Float64(0), Expect: []string{"response.icmp.hop_limit == 63"}}, probetest.OK()},
		{"10.99.2.2", &meshv1.IcmpProbe{SourceAddress: "10.99.1.9"}, saying(mine, "does not have the address 10.99.1.9")},
		{"10.99.2.2", &meshv1.IcmpProbe{HopLimit: 1}, saying(unreachable, "the hop limit ran out at 10.99.1.2 (ICMP time exceeded, 3 of 3")},
		{"10.99.2.2", &meshv1.IcmpProbe{HopLimit: 1, Expect: []string{`response.icmp.error_from == "10.99.1.2"`, "response.icmp.errors == 3"}}, probetest.OK()},
		{"10.99.2.2", &meshv1.IcmpProbe{HopLimit: 2}, probetest.OK()},
		{"10.99.2.2", whole(1372), probetest.OK()},
		{"10.99.2.2", whole(1373), saying(unreachable, "10.99.1.2 says that 1373 bytes of payload are too big for its next link (fragmentation needed, 3 of 3 echo requests), whose MTU is 1400: at most 1372 bytes")},
		{"10.99.2.2", whole(2000), saying(mine, "this prober's own link, of MTU 1500 (1472 bytes of payload) cannot send 2000 bytes")},
		{"10.99.2.2", bytes(3000), probetest.OK()},
		{"10.99.3.1", nil, saying(unreachable, "10.99.1.2 says: host unreachable (")},
		{"10.99.4.1", nil, saying(unreachable, "10.99.1.2 says: communication prohibited by a filter (")},
		{"10.99.3.1", &meshv1.IcmpProbe{MaxLoss: proto.Float64(0.5), Expect: []string{"true"}}, saying(unreachable, "host unreachable")},
		{"[fd99:2::2]", nil, probetest.OK()},
		{"[fd99:2::2]", &meshv1.IcmpProbe{HopLimit: 1}, saying(unreachable, "the hop limit ran out at fd99:1::2")},
		{"[fd99:2::2]", whole(1352), probetest.OK()},
		{"[fd99:2::2]", whole(1353), saying(unreachable, "fd99:1::2 says that 1353 bytes of payload are too big for its next link (fragmentation needed, 3 of 3 echo requests), whose MTU is 1400: at most 1352")},
		{"[fd99:2::2]", whole(2000), saying(mine, "this prober's own link")},
		{"[fd99:3::1]", nil, saying(unreachable, "fd99:1::2 says: no route to destination")},
	}
	run := func(t *testing.T, unprivileged bool, timeout time.Duration, host string, o *meshv1.IcmpProbe) (got *meshv1.Result) {
		check, target := probetest.Check(t, "icmp://"+host, timeout, func(k *meshv1.Check) { k.Icmp = proto.CloneOf(o) })
		r, err := icmp.Compile(check, target, probetest.Env())
		if err != nil {
			t.Fatal(err)
		}
		n.inside(t, unprivileged, func() { got = r.Probe(t.Context(), probe.Options{}) })
		probetest.Promises(t, got)
		return got
	}
	for _, host := range []string{"10.99.2.2", "[fd99:2::2]"} { // until the links are up and the neighbours known
		probetest.OK().Match(t, run(t, false, 30*time.Second, host, nil))
	}
	for _, unprivileged := range []bool{false, true} {
		for _, c := range cases {
			t.Run(fmt.Sprintf("unprivileged %v/%s %v", unprivileged, c.host, c.options), func(t *testing.T) {
				timeout := 10 * time.Second
				if c.want.Class == meshv1.Result_UNREACHABLE {
					timeout = time.Second // a router that says so to one of three leaves the others to run into it
				}
				c.want.Match(t, run(t, unprivileged, timeout, c.host, c.options))
			})
		}
	}
}
