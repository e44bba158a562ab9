package localmesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// stdinFlag is the hidden flag by which a process stops when its standard input ends.
const stdinFlag = "--stop-with-stdin"

// Kind is what a member is.
type Kind string

// The kinds of members; each is also the command that runs one.
const (
	KindServer Kind = "server"
	KindProber Kind = "prober"
)

// Member is one process of a mesh, which may be started and ended any number of times. Its exported fields do not change.
type Member struct {
	Kind       Kind
	Name       string
	Datacenter string
	// Data is its data directory, Log the file that its output is appended to.
	Data, Log string
	// GRPC, HTTP and EtcdClient are where a server listens; empty for a prober. EtcdClient is empty unless Options.EtcdClients.
	GRPC, HTTP, EtcdClient string

	mesh *Mesh
	args []string

	mu    sync.Mutex // guards all below
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{} // closed when the process has ended; nil before the first start
	err   error         // valid when done is closed
	begun int64         // how long its log was when it was started last
}

// String is "server a" or "prober a-1".
func (x *Member) String() string { return string(x.Kind) + " " + x.Name }

// Args are the arguments with which it is started, without the one that ties it to this process: what a person types to start it.
func (x *Member) Args() []string {
	args := append([]string{}, x.args...)
	if x.mesh.options.Args != nil {
		args = append(args, x.mesh.options.Args(x)...)
	}
	return args
}

// ErrRunning is returned by Start for a member that runs.
var ErrRunning = errors.New("it runs already")

// Start starts the process, on the ports and data of the start before if there was one. It does not wait until it is ready: [Mesh.Await] does.
func (x *Member) Start() error {
	if err := x.start(); err != nil {
		return fmt.Errorf("start %s: %w", x, err)
	}
	return x.mesh.WriteAddresses()
}

func (x *Member) start() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aliveLocked() {
		return ErrRunning
	}
	if x.Kind == KindServer { // from the run before: Await must not take it for this one's
		if err := os.Remove(filepath.Join(x.Data, AddressesFile)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	out, err := os.OpenFile(x.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if info, err := out.Stat(); err == nil {
		x.begun = info.Size()
	}
	cmd := exec.Command(x.mesh.options.Program, append(x.Args(), stdinFlag)...)
	cmd.Stdout, cmd.Stderr, cmd.Env = out, out, x.environment()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if x.mesh.options.DieWithParent {
		dieWithParent(cmd)
	}
	if f := x.mesh.options.Launcher; f != nil {
		if err := f(x, cmd); err != nil {
			return err
		}
	}
	if err := x.mesh.thread.do(cmd.Start); err != nil {
		return err
	}
	done := make(chan struct{})
	x.cmd, x.stdin, x.done, x.err = cmd, stdin, done, nil
	go func() { // ends with the process; Mesh.Stop waits for done
		err := cmd.Wait()
		x.mu.Lock()
		x.err = err
		x.mu.Unlock()
		close(done)
		select {
		case x.mesh.ended <- Ending{x, cmd.Process.Pid, err}:
		default: // nobody has taken the last 256
		}
	}()
	return nil
}

func (x *Member) environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !x.mesh.options.CleanEnv || !strings.HasPrefix(kv, "PROBEMESH_") && !strings.HasPrefix(kv, "OTEL_") {
			env = append(env, kv)
		}
	}
	if x.mesh.options.Env != nil {
		env = append(env, x.mesh.options.Env(x)...)
	}
	return env
}

// Done is closed when the process that was started last has ended; also when none ever was.
func (x *Member) Done() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done == nil {
		never := make(chan struct{})
		close(never)
		return never
	}
	return x.done
}

// Alive tells whether it has been started and has not ended. One that is paused is alive.
func (x *Member) Alive() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.aliveLocked()
}

func (x *Member) aliveLocked() bool {
	if x.done == nil {
		return false
	}
	select {
	case <-x.done:
		return false
	default:
		return true
	}
}

// Err is how the process ended: nil while it runs, and when it ended with code 0.
func (x *Member) Err() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// PID is the number of the process that was started last, also after its end; 0 when none was.
func (x *Member) PID() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cmd == nil || x.cmd.Process == nil {
		return 0
	}
	return x.cmd.Process.Pid
}

// Signal sends a signal. It fails when the process has ended.
func (x *Member) Signal(s os.Signal) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.aliveLocked() {
		return fmt.Errorf("signal %s: it does not run", x)
	}
	if err := x.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %s: %w", x, err)
	}
	return nil
}

// Kill ends the process with SIGKILL and waits for its end. One that has ended is no error.
func (x *Member) Kill() error {
	if err := x.Signal(os.Kill); err != nil && x.Alive() {
		return err
	}
	<-x.Done()
	return nil
}

// AskToStop tells the process to end as an operator does (SIGTERM; where there is no such signal, by the end of its standard input), and does not wait for it.
func (x *Member) AskToStop() error {
	if err := x.terminate(); err != nil && x.Alive() {
		return err
	}
	return nil
}

// Terminate is AskToStop, and waits for the end. When ctx ends first, the process goes on ending and the error is that of ctx.
func (x *Member) Terminate(ctx context.Context) error {
	if err := x.AskToStop(); err != nil {
		return err
	}
	select {
	case <-x.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", x, ctx.Err())
	}
}

// hangUp ends its standard input, which makes it stop; one that is paused goes on for that.
func (x *Member) hangUp() {
	_ = x.Resume()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stdin != nil {
		_ = x.stdin.Close()
	}
}
