//go:build linux && (amd64 || arm64)

package hang

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// role says in the environment what a copy of the test program is to do.
const role = "HANG_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "launcher": // PROGRAM --fd N -- ARGV...
		fd, err := strconv.Atoi(os.Args[2])
		if err == nil {
			os.Setenv(role, "writer")
			writes := os.Args[3] == "--writes"
			args := os.Args[4:]
			if writes {
				args = os.Args[5:]
			}
			err = Exec(fd, writes, args)
		}
		fmt.Println(err)
		os.Exit(1)
	case "writer":
		write(os.Stdin, os.Stdout)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// write flushes the file that each line names, each in a goroutine of its own, and says so.
func write(in io.Reader, out io.Writer) {
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", args...)
	}
	for s := bufio.NewScanner(in); s.Scan(); {
		path, times, _ := strings.Cut(s.Text(), " ")
		n, _ := strconv.Atoi(times)
		go func() {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				say("%s: %v", path, err)
				return
			}
			defer f.Close()
			for range max(n, 1) {
				if _, err = f.WriteString("x"); err == nil {
					err = f.Sync()
				}
			}
			if n > 0 {
				err = errors.Join(err, syscall.Fdatasync(int(f.Fd())))
			}
			say("%s: %v", path, err)
		}()
	}
}

// writer is a process that flushes files when told to.
type writer struct {
	t     testing.TB
	disk  *Disk
	cmd   *exec.Cmd
	stdin io.Writer
	lines chan string
	ran   chan error
}

func start(t testing.TB) *writer { t.Helper(); return startWith(t, false) }

func startWith(t testing.TB, writes bool) *writer {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	d, err := New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if writes {
		d.HoldWrites()
	}
	w := &writer{t: t, disk: d, cmd: exec.Command(self), lines: make(chan string, 100), ran: make(chan error, 1)}
	w.cmd.Env = append(os.Environ(), role+"=launcher")
	w.cmd.Stderr = os.Stderr
	if err := d.Wrap(w.cmd, []string{self}); err != nil {
		t.Fatal(err)
	}
	w.stdin, err = w.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			w.lines <- s.Text()
		}
		close(w.lines)
	}()
	go func() { w.ran <- d.Run(context.Background()) }()
	t.Cleanup(w.end)
	return w
}

// end kills the process, and expects that its supervisor notices.
func (w *writer) end() {
	_ = w.cmd.Process.Kill()
	for range w.lines {
	}
	_ = w.cmd.Wait()
	select {
	case err := <-w.ran:
		if err != nil {
			w.t.Errorf("Run: %v", err)
		}
	case <-time.After(20 * time.Second):
		w.t.Error("Run did not notice in 20s that the process had ended")
	}
}

func (w *writer) flush(path string) {
	w.t.Helper()
	if _, err := fmt.Fprintln(w.stdin, path); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) expect(want string) {
	w.t.Helper()
	select {
	case got := <-w.lines:
		if got != want {
			w.t.Fatalf("the process said %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		w.t.Fatalf("the process did not say %q within 20s; waiting: %v", want, w.disk.Waiting())
	}
}

func (w *writer) stuck(n int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.disk.Stuck(ctx, n); err != nil {
		w.t.Fatalf("%v; waiting: %v", err, w.disk.Waiting())
	}
}

// dirs makes two directories; the first is named through a symbolic link, as data directories often are.
func dirs(t testing.TB) (linked, real, other string) {
	t.Helper()
	base := t.TempDir()
	real, other, linked = filepath.Join(base, "real"), filepath.Join(base, "other"), filepath.Join(base, "link")
	for _, d := range []string{real, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(real, linked); err != nil {
		t.Fatal(err)
	}
	return linked, real, other
}

func TestFlushesOfOneDirectoryWaitWhileThoseOfAnotherPass(t *testing.T) {
	t.Parallel()
	linked, real, other := dirs(t)
	w := start(t)
	if err := w.disk.Hold(linked); err != nil {
		t.Fatal(err)
	}
	w.flush(filepath.Join(real, "log"))
	w.stuck(1)
	if got := w.disk.Waiting()[0]; got.Path != filepath.Join(real, "log") || got.Call != "fsync" || time.Since(got.Since) > time.Minute {
		t.Errorf("waiting: %+v, want an fsync of the log since now", got)
	}
	w.flush(filepath.Join(other, "log"))
	w.expect(filepath.Join(other, "log") + ": <nil>")
	if s := w.disk.Stats(); s.Waiting != 1 || s.Held != 1 || s.Passed != 1 {
		t.Errorf("%+v, want one that waits and one that passed", s)
	}
	w.disk.Release()
	w.expect(filepath.Join(real, "log") + ": <nil>")
	if b, err := os.ReadFile(filepath.Join(real, "log")); err != nil || string(b) != "x" {
		t.Errorf("the released file has %q, %v", b, err)
	}
	w.flush(filepath.Join(real, "log"))
	w.expect(filepath.Join(real, "log") + ": <nil>")
	if s := w.disk.Stats(); s != (Stats{Passed: 3, Held: 1}) {
		t.Errorf("%+v, want three passed, one of which had to wait", s)
	}
}

func TestADiskCanFailAfterItHung(t *testing.T) {
	t.Parallel()
	_, real, _ := dirs(t)
	w := start(t)
	if err := w.disk.Hold(real); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(real, "log")
	w.flush(path)
	w.stuck(1)
	if err := w.disk.Fail(real); err != nil {
		t.Fatal(err)
	}
	w.expect(path + ": sync " + path + ": input/output error")
	w.flush(path)
	w.expect(path + ": sync " + path + ": input/output error")
	w.disk.Release()
	w.flush(path)
	w.expect(path + ": <nil>")
	if s := w.disk.Stats(); s != (Stats{Passed: 1, Held: 1, Failed: 2}) {
		t.Errorf("%+v, want one passed, one held, two failed", s)
	}
}

func TestAProcessWhoseFlushHangsLivesOnAndCanBeKilled(t *testing.T) {
	t.Parallel()
	_, real, other := dirs(t)
	w := start(t)
	if err := w.disk.Hold(real); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		w.flush(filepath.Join(real, fmt.Sprint(n)))
	}
	w.stuck(5)
	// Signals that the process handles or ignores must not give a flush back.
	for range 50 {
		if err := w.cmd.Process.Signal(syscall.SIGURG); err != nil {
			t.Fatal(err)
		}
	}
	w.flush(filepath.Join(other, "log") + " 500")
	w.expect(filepath.Join(other, "log") + ": <nil>")
	if s := w.disk.Stats(); s.Waiting != 5 || s.Held != 5 || s.Passed != 501 {
		t.Errorf("%+v, want 5 that wait still and 501 passed", s)
	}
	w.end()
	w.ran <- nil // for the second end
	if s := w.disk.Stats(); s.Waiting != 0 || s.Lost != 5 {
		t.Errorf("%+v after the end of the process, want none waiting and 5 lost", s)
	}
	if err := w.disk.Hold(real); err == nil {
		t.Error("flushes of a process that has ended can be held")
	}
}

func TestWritesHangTooWhereTheyAreHeld(t *testing.T) {
	t.Parallel()
	_, real, other := dirs(t)
	w := startWith(t, true)
	if err := w.disk.Hold(real); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(real, "log")
	w.flush(path)
	w.stuck(1)
	if got := w.disk.Waiting()[0]; got.Call != "write" || got.Path != path {
		t.Errorf("waiting: %+v, want a write to the log", got)
	}
	w.flush(filepath.Join(other, "log"))
	w.expect(filepath.Join(other, "log") + ": <nil>") // said by a write to a pipe, which passes
	if b, err := os.ReadFile(path); err != nil || len(b) != 0 {
		t.Errorf("a write that hangs has written %q, %v", b, err)
	}
	w.disk.Release()
	w.expect(path + ": <nil>")
	if b, err := os.ReadFile(path); err != nil || string(b) != "x" {
		t.Errorf("the released file has %q, %v", b, err)
	}
}

func TestFilesBelowAPathMeansBelowIt(t *testing.T) {
	t.Parallel()
	r := rules{held: []string{"/data/a"}, failed: []string{"/data/a/b"}}
	for path, want := range map[string]answer{
		"/data/a": hold, "/data/a/x": hold, "/data/ab": pass, "/data": pass, "/data/a/b": fail, "/data/a/b/c": fail, "/data/a/bc": hold, "": pass,
	} {
		if got := r.answer(path); got != want {
			t.Errorf("a flush of %q: %v, want %v", path, got, want)
		}
	}
	if got := (rules{held: []string{"/"}}).answer("/x"); got != hold {
		t.Errorf("everything is below /, got %v", got)
	}
}

// BenchmarkFlush measures what a flush costs with a supervisor and without; the files are on whatever disk the temporary directory is.
func BenchmarkFlush(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for b.Loop() {
			_, _ = f.WriteString("x")
			_ = f.Sync()
		}
	})
	b.Run("supervised", func(b *testing.B) {
		_, real, _ := dirs(b)
		w := start(b)
		w.flush(filepath.Join(real, "warm"))
		w.expect(filepath.Join(real, "warm") + ": <nil>")
		b.ResetTimer()
		w.flush(filepath.Join(real, "f") + " " + strconv.Itoa(b.N))
		w.expect(filepath.Join(real, "f") + ": <nil>")
		b.StopTimer()
	})
}
