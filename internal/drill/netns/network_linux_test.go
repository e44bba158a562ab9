package netns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const role = "NETNS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "launcher": // PROGRAM --fd N -- ARGV...
		fd, err := strconv.Atoi(os.Args[2])
		if err == nil {
			os.Setenv(role, "server")
			err = Exec(fd, os.Args[4:])
		}
		fmt.Println(err)
		os.Exit(1)
	case "server": // PROGRAM ADDRESS
		l, err := net.Listen("tcp", os.Args[1])
		if err == nil {
			fmt.Println("ready")
			echo(l)
		}
		fmt.Println(err)
		os.Exit(1)
	}
	if os.Getenv(role) == "holder" {
		if _, err := New(slog.Default(), "a", "b", "c"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		select {}
	}
	if done, code, err := Isolate(context.Background()); err != nil && done {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	} else if done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// echo gives back each line.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// one network serves all tests: a process can be on one wire only. So they are not parallel.
func network(t testing.TB) *Network {
	t.Helper()
	if !Isolated() {
		t.Skip(Supported())
	}
	n, err := New(slog.New(slog.NewTextHandler(t.Output(), nil)), "a", "b", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func listen(t testing.TB, n *Network, name string) string {
	t.Helper()
	l, err := n.Listen(name, "tcp", net.JoinHostPort(n.Host(name), "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go echo(l)
	return l.Addr().String()
}

// talk is a connection on which each line comes back.
type talk struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

// dial connects from a site, or from this process when from is empty.
func dial(t *testing.T, n *Network, from, to string) *talk {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var c net.Conn
	var err error
	if from == "" {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", to)
	} else {
		c, err = n.Dial(ctx, from, "tcp", to)
	}
	if err != nil {
		t.Fatalf("from %q to %s: %v", from, to, err)
	}
	t.Cleanup(func() { c.Close() })
	return &talk{t, c, bufio.NewReader(c)}
}

// say sends a line and waits for it to come back; false when it did not within d.
func (k *talk) say(line string, d time.Duration) bool {
	k.t.Helper()
	if _, err := fmt.Fprintln(k.c, line); err != nil {
		k.t.Fatal(err)
	}
	_ = k.c.SetReadDeadline(time.Now().Add(d))
	for {
		got, err := k.r.ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			k.t.Fatal(err)
		}
		if got == line+"\n" {
			return true
		}
	}
}

const soon, shortly = 20 * time.Second, 300 * time.Millisecond

func set(t *testing.T, n *Network, name string, f Fault) {
	t.Helper()
	if err := n.Set(name, f); err != nil {
		t.Fatal(err)
	}
}

func TestSitesReachEachOtherUntilOneIsCutOff(t *testing.T) {
	n := network(t)
	a, b := listen(t, n, "a"), listen(t, n, "b")
	toA, toB, inA, outer := dial(t, n, "b", a), dial(t, n, "c", b), dial(t, n, "a", a), dial(t, n, "", a)
	for _, k := range []*talk{toA, toB, inA, outer} {
		if !k.say("hello", soon) {
			t.Fatal("a sound connection lost a line")
		}
	}
	set(t, n, "a", Cut())
	if toA.say("x", shortly) || outer.say("x", shortly) {
		t.Error("a line came through the cut")
	}
	if !toB.say("others", soon) {
		t.Error("the cut of a site cut another off")
	}
	if !inA.say("inside", soon) {
		t.Error("the cut of a site cut it off from itself")
	}
	if s := n.Stats("a"); s.CutIn == 0 || s.In == 0 || s.Out == 0 {
		t.Errorf("%+v: the cut and the carried packets are not counted", s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), shortly)
	defer cancel()
	if c, err := n.Dial(ctx, "b", "tcp", a); err == nil {
		c.Close()
		t.Error("a connection was made through the cut")
	}
	set(t, n, "a", Fault{})
	if !toA.say("again", soon) || !outer.say("again", soon) {
		t.Error("a connection did not go on after the cut")
	}
}

func TestACutOfOneDirectionLeavesTheOther(t *testing.T) {
	n := network(t)
	a := listen(t, n, "a")
	k := dial(t, n, "b", a)
	if !k.say("hello", soon) {
		t.Fatal("a sound connection lost a line")
	}
	before := n.Stats("a")
	set(t, n, "a", Fault{Out: Path{Drop: true}})
	if k.say("x", shortly) {
		t.Error("an answer came out of a site that nothing gets out of")
	}
	s := n.Stats("a")
	if s.In == before.In || s.CutIn != before.CutIn || s.CutOut == before.CutOut || s.Out != before.Out {
		t.Errorf("%+v after %+v: want packets in, and none out", s, before)
	}
	set(t, n, "a", Fault{In: Path{Drop: true}})
	before = n.Stats("a")
	if k.say("y", shortly) {
		t.Error("a line came into a site that nothing gets into")
	}
	if s = n.Stats("a"); s.In != before.In || s.CutIn == before.CutIn {
		t.Errorf("%+v after %+v: want no packets in", s, before)
	}
	set(t, n, "a", Fault{})
	if !k.say("again", soon) {
		t.Error("the connection did not go on after the cut")
	}
}

func TestASlowSiteAnswersLate(t *testing.T) {
	n := network(t)
	k := dial(t, n, "b", listen(t, n, "a"))
	set(t, n, "a", Slow(150*time.Millisecond, 0))
	begin := time.Now()
	if !k.say("hello", soon) {
		t.Fatal("a slow connection lost a line")
	}
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("the answer took %s through 150ms each way", took)
	}
}

func TestAProcessRunsInsideASite(t *testing.T) {
	n := network(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort(n.Host("c"), "80")
	cmd := exec.Command(self, address)
	cmd.Env = append(os.Environ(), role+"=launcher")
	if err := n.Wrap("c", cmd, []string{self}); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the process said %q, %v", line, err)
	}
	if !dial(t, n, "a", address).say("hello", soon) || !dial(t, n, "", address).say("hello", soon) {
		t.Error("the process is not reached")
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process that was started is not the one that runs: %v", err)
	}
	ours, _ := os.Readlink("/proc/self/ns/net")
	if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)); err != nil || theirs == ours {
		t.Errorf("the process is in network %q, %v; this one in %q", theirs, err, ours)
	}
}

func TestNothingIsLeftBehindAfterSIGKILL(t *testing.T) {
	if !Isolated() {
		t.Skip(Supported())
	}
	before := held(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"=holder")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the process said %q, %v", line, err)
	}
	if during := held(t); during <= before {
		t.Fatalf("%d networks and interfaces with a network, %d without: this test sees nothing", during, before)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(soon); held(t) > before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d networks and interfaces 20s after SIGKILL, %d before", held(t), before)
		}
	}
}

// held counts the networks that copies of this program keep by threads or files, and the interfaces of its own network.
func held(t *testing.T) int {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	ours, _ := os.Readlink("/proc/self/ns/net")
	networks := map[string]bool{}
	for _, pattern := range []string{"/proc/[0-9]*/task/*/ns/net", "/proc/[0-9]*/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			environment, _ := os.ReadFile(filepath.Join("/proc", strings.Split(p, "/")[2], "environ"))
			ns, err := os.Readlink(p)
			if err == nil && strings.HasPrefix(ns, "net:") && ns != ours && strings.Contains(string(environment), role) {
				networks[ns] = true
			}
		}
	}
	return len(networks) + len(interfaces)
}

// BenchmarkWire measures a round trip of one line between two sites.
func BenchmarkWire(b *testing.B) {
	n := network(b)
	address := listen(b, n, "a")
	c, err := n.Dial(context.Background(), "b", "tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for b.Loop() {
		if _, err := c.Write([]byte("x\n")); err != nil {
			b.Fatal(err)
		}
		if _, err := r.ReadString('\n'); err != nil {
			b.Fatal(err)
		}
	}
}
