//go:build linux && (amd64 || arm64)

package hang

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is the flushes of one process, and of those that it starts. Its methods may be called concurrently. Make one for every start of a process.
type Disk struct {
	log *slog.Logger
	// ours and theirs are the two ends of the socket that the listener comes over; theirs goes to the process.
	ours, theirs *os.File
	// wake interrupts Run's wait when the rules have changed or it is to end.
	wake int
	// writes: the process's writes are held too; set before it starts.
	writes bool

	mu      sync.Mutex // guards everything below
	rules   rules
	waiting []waiting
	stats   Stats
	changed chan struct{} // closed and replaced whenever a flush begins or ceases to wait
	closed  bool
}

// waiting is a flush that waits for its answer, with the kernel's name for it.
type waiting struct {
	Flush
	id uint64
}

// Supported says why flushes cannot be held here, or nil: it needs Linux on amd64 or arm64 and a kernel with seccomp's user notification (5.0).
func Supported() error {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	if err := seccomp(unix.SECCOMP_GET_ACTION_AVAIL, 0, &action); err != nil {
		return fmt.Errorf("this kernel cannot hand system calls to a supervisor (%w); holding a process's flushes needs Linux 5.0 or later with CONFIG_SECCOMP_FILTER, and a container runtime that lets processes install filters", err)
	}
	return nil
}

// New makes the flushes of a process that is not started yet. Close it, or run it to its end, to free its files.
func New(log *slog.Logger) (*Disk, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make the socket to the process whose flushes are to be held: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
		return nil, fmt.Errorf("make an event: %w", err)
	}
	return &Disk{log: log, ours: os.NewFile(uintptr(pair[0]), "flushes"), theirs: os.NewFile(uintptr(pair[1]), "flushes of the process"), wake: wake,
		changed: make(chan struct{})}, nil
}

// HoldWrites makes the writes of the process come to d as its flushes do, also those to its connections, which pass: about 20 microseconds each. To be called
// before [Disk.Wrap]. A disk that takes no more writes is what a full write-back cache looks like, or a network file system whose server has gone.
func (d *Disk) HoldWrites() { d.writes = true }

// Wrap rewrites cmd, which is not started yet, so that its flushes come to d. launcher is the program with its first arguments that runs [Exec], for
// example the probemesh binary and [Command]; `--fd N --` and cmd's own program and arguments are appended.
func (d *Disk) Wrap(cmd *exec.Cmd, launcher []string) error {
	if cmd.Err != nil {
		return cmd.Err
	}
	if len(launcher) == 0 || cmd.Process != nil {
		return errors.New("flushes can be held of a command that is not started yet, by a launcher: this is a bug in the caller")
	}
	program, err := exec.LookPath(launcher[0])
	if err != nil {
		return err
	}
	fd := 3 + len(cmd.ExtraFiles)
	cmd.ExtraFiles = append(cmd.ExtraFiles, d.theirs)
	args := append([]string{}, launcher...)
	args = append(args, "--fd", strconv.Itoa(fd))
	if d.writes {
		args = append(args, "--writes")
	}
	args = append(args, "--", cmd.Path)
	cmd.Args = append(args, cmd.Args[1:]...)
	cmd.Path = program
	return nil
}

// Hold makes every later flush of a file at or below one of paths wait, until [Disk.Release] or another Hold. It replaces what an earlier Hold or Fail said;
// flushes that wait and no longer have to are carried out.
func (d *Disk) Hold(paths ...string) error { return d.set(paths, nil) }

// Fail makes every flush of a file at or below one of paths fail with EIO, those that wait too. It replaces what an earlier Hold or Fail said.
func (d *Disk) Fail(paths ...string) error { return d.set(nil, paths) }

// Release lets every flush be carried out, those that wait first.
func (d *Disk) Release() { _ = d.set(nil, nil) }

func (d *Disk) set(held, failed []string) error {
	h, err := resolve(held)
	if err != nil {
		return err
	}
	f, err := resolve(failed)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = rules{held: h, failed: f}
	if d.closed {
		return errors.New("the process has ended, and its flushes with it")
	}
	d.poke()
	return nil
}

// poke wakes Run. The caller holds mu, so that the event is still open.
func (d *Disk) poke() {
	one := [8]byte{1}
	_, _ = unix.Write(d.wake, one[:])
}

// Stats counts the flushes until now.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Waiting = len(d.waiting)
	return s
}

// Waiting lists the flushes that wait now, oldest first.
func (d *Disk) Waiting() []Flush {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Flush
	for _, w := range d.waiting {
		all = append(all, w.Flush)
	}
	return all
}

// Stuck blocks until at least n flushes wait, or ctx ends, and returns ctx's error then.
func (d *Disk) Stuck(ctx context.Context, n int) error {
	for {
		d.mu.Lock()
		enough, changed := len(d.waiting) >= n, d.changed
		d.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Run answers the flushes of the process until the process and all that it started have ended (nil), or ctx ends (ctx's error). Call it once, before
// or after the process is started; when it never starts, or ends before it has become the real program, Run waits for the end of ctx.
func (d *Disk) Run(ctx context.Context) error {
	defer d.Close()
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.closed {
			d.poke()
		}
	})
	defer stop()
	listener, err := d.receive(ctx)
	if err != nil || listener < 0 {
		return err
	}
	defer unix.Close(listener)
	d.theirs.Close()
	for {
		events, err := d.poll(listener)
		switch {
		case err != nil:
			return fmt.Errorf("wait for flushes: %w", err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if events&unix.POLLIN != 0 {
			if err := d.next(listener); err != nil {
				return err
			}
		} else if events&(unix.POLLHUP|unix.POLLERR) != 0 {
			return nil // every process with the filter has ended
		}
		d.settle(listener)
	}
}

// receive waits for the listener, which the process sends before it becomes the real program; -1 when the process ends without.
func (d *Disk) receive(ctx context.Context) (int, error) {
	fd := int(d.ours.Fd())
	for {
		events, err := d.poll(fd)
		switch {
		case err != nil:
			return -1, fmt.Errorf("wait for the process: %w", err)
		case ctx.Err() != nil:
			return -1, ctx.Err()
		case events != 0:
			return receiveFD(fd)
		}
	}
}

// poll waits for fd or a poke, and returns what fd has.
func (d *Disk) poll(fd int) (int16, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(d.wake), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
		return 0, err
	}
	if fds[1].Revents != 0 {
		var b [8]byte
		_, _ = unix.Read(d.wake, b[:])
	}
	return fds[0].Revents, nil
}

// next takes one flush, and answers it or lets it wait.
func (d *Disk) next(listener int) error {
	n, err := receiveNotification(listener)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
		return nil // its process was killed between poll and here
	}
	if err != nil {
		return fmt.Errorf("take a flush: %w", err)
	}
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.PID, n.args[0]))
	d.mu.Lock()
	defer d.mu.Unlock()
	f := waiting{Flush{Call: callName(n.nr), Path: path, Since: time.Now()}, n.ID}
	what := d.rules.answer(path)
	if what != hold {
		d.answer(listener, f, what)
		return nil
	}
	d.stats.Held++
	d.waiting = append(d.waiting, f)
	d.notifyLocked()
	return nil
}

// settle answers those that wait and, by the rules of now, need not, and forgets those whose process is gone.
func (d *Disk) settle(listener int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.waiting[:0]
	for _, f := range d.waiting {
		switch what := d.rules.answer(f.Path); {
		case what != hold:
			d.answer(listener, f, what)
		case !alive(listener, f.id):
			d.stats.Lost++
		default:
			kept = append(kept, f)
		}
	}
	if len(kept) != len(d.waiting) {
		d.waiting = kept
		d.notifyLocked()
	}
}

func (d *Disk) answer(listener int, f waiting, what answer) {
	if err := sendAnswer(listener, f.id, what == fail); err != nil {
		if !errors.Is(err, unix.ENOENT) { // its process was killed meanwhile
			d.log.Error("flush not answered", "path", f.Path, "err", err)
		}
		d.stats.Lost++
		return
	}
	if what == fail {
		d.stats.Failed++
	} else {
		d.stats.Passed++
	}
}

func (d *Disk) notifyLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// Close frees the files of a Disk whose Run was never called. It must not be called while Run runs; Run closes by itself, and a second call does nothing.
func (d *Disk) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	d.stats.Lost += uint64(len(d.waiting))
	d.waiting = nil
	d.notifyLocked()
	d.ours.Close()
	d.theirs.Close()
	unix.Close(d.wake)
}
