//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Two probers in datacenters a and b, which must agree. While only b's cannot reach the target, the check is DEGRADED and names b, for as long as one
// likes, and is never DOWN; when a's cannot either, it is DOWN.
func TestOneDatacenterCannotOpenAnIncident(t *testing.T) {
	t.Parallel()
	// The target looks up which process is calling, and answers 503 to the prober of b.
	t.Run("the target refuses it", func(t *testing.T) {
		t.Parallel()
		m := startMesh(t, "up", []string{"--datacenter", "a"})
		prober, _ := startProber(t, m, "b-1", "b")
		h := &refusing{}
		target := startWebTarget(t, h.ServeHTTP)
		oneDatacenter(t, m, target.url(),
			func() { h.refused[1].Store(int64(prober.cmd.Process.Pid)) },
			func() { h.refused[0].Store(int64(m.proc.cmd.Process.Pid)) })
		if served, refused := h.counts[0].Load(), h.counts[1].Load(); served == 0 || refused == 0 {
			t.Errorf("the target served %d and refused %d requests: it did not tell its callers apart", served, refused)
		}
	})
	// The prober of b is in a network of its own, and the packets it sends to the target are lost on the way.
	t.Run("its network loses the packets", func(t *testing.T) {
		t.Parallel()
		link := newLink(t, 0)
		m := startMesh(t, "up", []string{"--datacenter", "a"})
		address := link.forward(t, link.here, m.grpc)
		target := startWebTarget(t, nil)
		_, port, _ := net.SplitHostPort(link.forward(t, link.target, target.address))
		launchProber(t, address, "b-1", "b", t.TempDir(), link.inside())
		m.awaitProber("b-1")
		oneDatacenter(t, m, "http://"+link.target+":"+port+"/", func() { link.cut(t) }, target.stop)
	})
}

// oneDatacenter plays the claim: break b, look for a while, break a too.
func oneDatacenter(t *testing.T, m *mesh, uri string, breakB, breakA func()) {
	t.Helper()
	const interval = pace
	hook := startReceiver(t)
	m.apply(hook.yaml("ops") + webCheck("shop", uri, interval, 2, 2, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 2)
	seen := watchVerdicts(t, m)
	breakB()
	broken := time.Now()
	s := m.awaitVerdict("shop", meshv1.CheckStatus_DEGRADED, 2)
	shown := time.Since(broken)
	if got := s.GetFailingDatacenters(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("the failing datacenters are %v, want b alone", got)
	}
	// Long enough for many rounds of probes and of confirmations; the watch sees every change in between.
	rounds := 6 * interval
	for time.Since(broken) < rounds {
		if s := m.status("shop"); s.GetVerdict() == meshv1.CheckStatus_DOWN || s.GetIncident() != "" {
			t.Fatalf("one datacenter alone has opened an incident: %s", s.GetSummary())
		}
		time.Sleep(50 * time.Millisecond)
	}
	m.awaitVerdict("shop", meshv1.CheckStatus_DEGRADED, 2)
	if v := seen.list(); slices.Contains(v, meshv1.CheckStatus_DOWN) {
		t.Errorf("it was DOWN in between: %v", v)
	}
	if list, told := m.allIncidents(), hook.all(); len(list) != 0 || len(told) != 0 {
		t.Errorf("one datacenter alone led to incidents %v and notifications %s", list, story(told))
	}
	breakA()
	broken = time.Now()
	d := hook.await(t, 1, opened)
	m.awaitVerdict("shop", meshv1.CheckStatus_DOWN, 2)
	t.Logf("DEGRADED naming b %s after b was cut off, and only that for %s (%v); DOWN announced %s after a was cut off too: %s", shown.Round(time.Millisecond), rounds,
		seen.list(), d.at.Sub(broken).Round(time.Millisecond), d.note.GetSummary())
}

// verdicts are those that a watch has seen, in order, without repetition.
type verdicts struct {
	mu   sync.Mutex
	seen []meshv1.CheckStatus_Verdict
}

func (v *verdicts) list() []meshv1.CheckStatus_Verdict {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.seen)
}

func watchVerdicts(t *testing.T, m *mesh) *verdicts {
	t.Helper()
	stream, err := m.statuses.WatchStatuses(t.Context(), &meshv1.WatchStatusesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	v := &verdicts{}
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				return
			}
			v.mu.Lock()
			if s := resp.GetStatus(); s != nil && (len(v.seen) == 0 || v.seen[len(v.seen)-1] != s.GetVerdict()) {
				v.seen = append(v.seen, s.GetVerdict())
			}
			v.mu.Unlock()
		}
	}()
	return v
}

// link is a network of its own for one process, joined to this one by a veth pair with link-local addresses.
type link struct {
	holder       *exec.Cmd // a process that keeps the network alive
	device       string    // this end of the pair
	here, target string    // addresses of this end
	there        string    // address of the other end
}

// newLink makes the network, or skips the test and says why. Tests that have one at the same time give different numbers, 0 or 1.
func newLink(t *testing.T, number int) *link {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root; the same claim is tested by a target that refuses one prober")
	}
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%v; the same claim is tested by a target that refuses one prober", err)
		}
	}
	k := 60*number + os.Getpid()%60
	l := &link{device: fmt.Sprintf("pm%d-%d", os.Getpid(), number), here: fmt.Sprintf("169.254.%d.1", 100+k), target: fmt.Sprintf("169.254.%d.2", 100+k),
		there: fmt.Sprintf("169.254.%d.3", 100+k), holder: exec.Command("sleep", "infinity")}
	l.holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	launch <- func() { started <- l.holder.Start() }
	if err := <-started; err != nil {
		t.Skipf("no network namespace on this machine (%v); the same claim is tested by a target that refuses one prober", err)
	}
	// With the last process the network goes, and both ends of the pair with it.
	t.Cleanup(func() { _ = l.holder.Process.Kill(); _ = l.holder.Wait() })
	ns := fmt.Sprint(l.holder.Process.Pid)
	for _, c := range []string{
		"ip link add " + l.device + " type veth peer name eth0 netns " + ns,
		"ip addr add " + l.here + "/24 dev " + l.device, "ip addr add " + l.target + "/24 dev " + l.device, "ip link set " + l.device + " up",
	} {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s; the same claim is tested by a target that refuses one prober", c, err, out)
		}
	}
	l.run(t, "ip link set lo up", "ip addr add "+l.there+"/24 dev eth0", "ip link set eth0 up",
		"ip route add default via "+l.here) // link-local addresses alone are no IPv4 to a prober
	return l
}

// inside runs a process in the link's network.
func (l *link) inside() option {
	return wrapped("nsenter", "--net=/proc/"+fmt.Sprint(l.holder.Process.Pid)+"/ns/net")
}

// run runs commands in the link's network.
func (l *link) run(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		args := append([]string{"--net=/proc/" + fmt.Sprint(l.holder.Process.Pid) + "/ns/net"}, strings.Fields(c)...)
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c, err, out)
		}
	}
}

// cut makes the network send what is for the target to a machine that does not exist, so that nothing answers, not even with a refusal.
func (l *link) cut(t *testing.T) {
	l.run(t, "ip neigh replace "+l.target+" lladdr 02:00:00:00:00:01 dev eth0 nud permanent")
}

// forward listens on an address of the link and passes every connection on; so servers need not listen anywhere but on 127.0.0.1. A connection that
// cannot be passed on is reset.
func (l *link) forward(t *testing.T, host, to string) string {
	t.Helper()
	var listener net.Listener
	until(t, "the address "+host+" can be listened on", func() (bool, string) {
		var err error
		listener, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
		return err == nil, fmt.Sprint(err)
	})
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go pass(c.(*net.TCPConn), to)
		}
	}()
	return listener.Addr().String()
}

func pass(c *net.TCPConn, to string) {
	defer c.Close()
	d, err := net.Dial("tcp", to)
	if err != nil {
		_ = c.SetLinger(0)
		return
	}
	defer d.Close()
	go func() {
		_, _ = io.Copy(d, c)
		_ = d.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, d)
}
