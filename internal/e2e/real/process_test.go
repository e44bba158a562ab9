//go:build linux

package real

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe/probetest"
)

// output collects what a server prints. It may be used concurrently.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// server is a process and those that it starts.
type server struct {
	name  string
	cmd   *exec.Cmd
	log   *output
	ended chan struct{}
	once  sync.Once
}

// start runs a server in the foreground until the test ends or it is stopped.
func start(t *testing.T, change func(*exec.Cmd), path string, args ...string) *server {
	t.Helper()
	s := &server{name: filepath.Base(path), cmd: exec.Command(path, args...), log: &output{}, ended: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.WaitDelay = time.Second
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if change != nil {
		change(s.cmd)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(s.ended); _ = s.cmd.Wait() }()
	t.Cleanup(s.stop)
	return s
}

// ready waits until each address accepts connections, and for greets also says something.
func (s *server) ready(t *testing.T, greets bool, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		s.await(t, a+" to answer", func() bool {
			conn, err := net.DialTimeout("tcp", a, time.Second)
			if err != nil {
				return false
			}
			defer conn.Close()
			if !greets {
				return true
			}
			_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			_, err = io.ReadFull(conn, make([]byte, 1))
			return err == nil
		})
	}
}

// await waits for a condition of the server.
func (s *server) await(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		select {
		case <-s.ended:
			t.Fatalf("%s ended: %s", s.name, s.log)
		case <-time.After(20 * time.Millisecond):
		}
		if ready() {
			return
		}
	}
	t.Fatalf("%s: waited for %s for 30s: %s", s.name, what, s.log)
}

// family is the process and all that descend from it.
func (s *server) family() []int {
	children := make(map[int][]int)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		rest := string(text)
		rest = rest[strings.LastIndex(rest, ")")+1:] // the name before it may have anything in it
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if fields := strings.Fields(rest); len(fields) > 1 {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], pid)
		}
	}
	out := []int{s.cmd.Process.Pid}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}

// freeze stops all processes of the server, parents first, until none is new and every thread of them stands still. The kernel goes on accepting connections for them.
func (s *server) freeze(t *testing.T) {
	t.Helper()
	stopped := make(map[int]bool)
	s.await(t, "all its threads to stand still", func() bool {
		still := true
		for _, pid := range s.family() {
			if !stopped[pid] {
				stopped[pid], still = true, false
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && err != syscall.ESRCH { //nolint:errorlint // errno
					t.Fatal(err)
				}
			}
			still = still && stands(pid)
		}
		return still
	})
}

// stands tells whether every thread of a process is stopped, or has ended.
func stands(pid int) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		if i := strings.LastIndex(string(text), ") "); i < 0 || !strings.ContainsAny(string(text[i+2:i+3]), "TtZX") {
			return false
		}
	}
	return true
}

// stop kills all processes of the server. It may be called again.
func (s *server) stop() {
	s.once.Do(func() {
		select {
		case <-s.ended:
			return // and the number of the process may be another's
		default:
		}
		for _, pid := range s.family() {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
		for _, pid := range s.family() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-s.ended
	})
}

// program is the path of a program, or the end of the test without it.
func program(t *testing.T, packages string, names ...string) string {
	t.Helper()
	for _, name := range names {
		for _, dir := range []string{"", "/usr/sbin/", "/usr/lib/postfix/sbin/"} {
			if path, err := exec.LookPath(dir + name); err == nil {
				return path
			}
		}
		if list, _ := filepath.Glob(name); len(list) > 0 {
			return list[len(list)-1]
		}
	}
	t.Skipf("%s is not installed: apt-get install --no-install-recommends %s", filepath.Base(names[0]), packages)
	return ""
}

// needsRoot skips the test without root.
func needsRoot(t *testing.T, who string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip(who + " needs root")
	}
}

// as makes a process run as the user, if this one is root and the user exists; directory is then theirs.
func as(t *testing.T, name, directory string) func(*exec.Cmd) {
	t.Helper()
	u, err := user.Lookup(name)
	if os.Getuid() != 0 || err != nil {
		return nil
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	err = filepath.Walk(directory, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *exec.Cmd) {
		c.Dir = directory
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
}

// directory is a temporary one that other users can enter.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "real")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // servers drop root and must enter
		t.Fatal(err)
	}
	return dir
}

// write writes a file of a configuration; NAME in the text is what the pairs say.
func write(t *testing.T, dir, name, text string, pairs ...string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(strings.NewReplacer(pairs...).Replace(text)), 0o644); err != nil { //nolint:gosec // read by servers that dropped root
		t.Fatal(err)
	}
	return path
}

// certificate writes a certificate and its key as NAME.pem and NAME.key.
func certificate(t *testing.T, ca *probetest.CA, dir, name string, life time.Duration, names ...string) {
	t.Helper()
	_, cert, key := ca.Issue(t, life, names...)
	write(t, dir, name+".pem", cert)
	write(t, dir, name+".key", key)
	if err := os.Chmod(filepath.Join(dir, name+".key"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// port is a port that was free for both UDP and TCP a moment ago.
func port(t *testing.T) string {
	t.Helper()
	for range 50 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := pc.LocalAddr().String()
		l, err := net.Listen("tcp", address)
		pc.Close()
		if err != nil {
			continue
		}
		l.Close()
		return strings.TrimPrefix(address, "127.0.0.1:")
	}
	t.Fatal("no port is free")
	return ""
}

// runs runs a command that ends.
func runs(t *testing.T, change func(*exec.Cmd), path string, args ...string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if change != nil {
		change(cmd)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("%s: %w: %s", path, err, out))
	}
}
