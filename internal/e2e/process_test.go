//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program under test.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	log  output
}

// output keeps what a process writes.
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

func (o *output) has(s string) bool { return strings.Contains(o.String(), s) }

// lines are those that contain s.
func (o *output) lines(s string) []string {
	var found []string
	for l := range strings.Lines(o.String()) {
		if strings.Contains(l, s) {
			found = append(found, strings.TrimSpace(l))
		}
	}
	return found
}

// option changes a command before it is started.
type option func(*exec.Cmd)

func withEnv(kv ...string) option { return func(c *exec.Cmd) { c.Env = append(c.Env, kv...) } }

// wrapped runs the program through another one, for example unshare.
func wrapped(prefix ...string) option {
	return func(c *exec.Cmd) {
		args := append(append([]string{}, prefix...), c.Args...)
		path, err := exec.LookPath(args[0])
		if err != nil {
			path = args[0]
		}
		c.Path, c.Args = path, args
	}
}

// begin starts `probemesh args...`. It is killed at the end of the test at the latest.
func begin(t *testing.T, name string, args []string, options ...option) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(binary, args...), done: make(chan struct{})}
	p.cmd.Env = cleanEnv()
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	for _, o := range options {
		o(p.cmd)
	}
	started := make(chan error)
	launch <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the last lines of %s:\n%s", name, tail(p.log.String(), 40))
		}
	})
	return p
}

// kill sends SIGKILL and waits for the end. It may be called twice.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// alive says that it has not ended.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// interrupt sends SIGINT and returns the exit code and how long the end took.
func (p *process) interrupt() (code int, took time.Duration) {
	p.t.Helper()
	begin := time.Now()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
	return p.code(), time.Since(begin)
}

// code waits for the end and gives the exit code.
func (p *process) code() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.t.Fatalf("%s has not ended within %s", p.name, limit)
		return -1
	}
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// until waits until f says that it is so; f also says how things stand, for the message of a failure.
func until(t *testing.T, what string, f func() (ok bool, state string)) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		ok, state := f()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s; the last state: %s", what, limit, state)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
