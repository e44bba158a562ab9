package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mesh is a running `probemesh up`, with a target for its checks.
type mesh struct {
	GRPC   string `json:"grpc"` // host:port
	HTTP   string `json:"http"`
	binary string // probemesh
	root   string // of the repository
	target string // URL of a server that answers 200 with {"ok": true}
	log    string // file with what the mesh printed
}

// world is what the tests of this package share. mu guards everything below.
type world struct {
	mu    sync.Mutex
	dir   string
	mesh  *mesh
	err   error // why there is no mesh
	tools map[string]string
	stop  []func()
}

var shared world

func TestMain(m *testing.M) {
	runtime.LockOSThread() // Pdeathsig ends the mesh with the thread that started it, which must be one that lives as long as the tests
	code := m.Run()
	shared.close()
	os.Exit(code)
}

func (w *world) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.stop) - 1; i >= 0; i-- {
		w.stop[i]()
	}
	if w.dir != "" {
		os.RemoveAll(w.dir)
	}
}

// directory is for files that outlive one test; mu is held.
func (w *world) directory() (string, error) {
	var err error
	if w.dir == "" {
		w.dir, err = os.MkdirTemp("", "probemesh-clients-")
	}
	return w.dir, err
}

// running gives the mesh, started by the first test that needs it.
func running(t *testing.T) *mesh {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a whole mesh; run without -short")
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.mesh == nil && shared.err == nil {
		shared.mesh, shared.err = shared.start()
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.mesh
}

func (w *world) start() (*mesh, error) {
	dir, err := w.directory()
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		return nil, err
	}
	target := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(rw, `{"ok": true}`)
	}))
	w.stop = append(w.stop, target.Close)
	m := &mesh{root: root, target: target.URL, binary: filepath.Join(dir, "probemesh"), log: filepath.Join(dir, "up.log")}
	if err := goBuild(root, m.binary, "./cmd/probemesh"); err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	out, err := os.Create(m.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(m.binary, "up", "--data", data, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
	cmd.Env = ownEnvironment()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	w.stop = append(w.stop, func() {
		_ = cmd.Process.Kill()
		<-done
	})
	if err := m.awaitReady(filepath.Join(data, "addresses.json"), done); err != nil {
		printed, _ := os.ReadFile(m.log)
		return nil, fmt.Errorf("the mesh did not become ready: %w; it printed:\n%s", err, printed)
	}
	return m, nil
}

// ownEnvironment is this process's without the variables that would change what a command of probemesh does.
func ownEnvironment(more ...string) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PROBEMESH_") && !strings.HasPrefix(e, "OTEL_") {
			env = append(env, e)
		}
	}
	return append(env, more...)
}

// awaitReady reads where the mesh listens, and waits until /readyz says that it is ready with its prober attached.
func (m *mesh) awaitReady(addresses string, ended chan error) error {
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(addresses); err == nil && m.GRPC == "" {
			if err := json.Unmarshal(b, m); err != nil {
				return fmt.Errorf("%s: %w", addresses, err)
			}
		}
		if m.HTTP != "" {
			if body, err := m.fetch("/readyz"); err == nil && !strings.Contains(body, "no prober is attached") {
				return nil
			}
		}
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("it ended: %w", err)
		case <-deadline:
			return errors.New("a minute is over")
		case <-tick.C:
		}
	}
}

// fetch gets a page of the HTTP listener; an answer that is not 200 is an error.
func (m *mesh) fetch(path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.HTTP+path, nil)
	if err != nil {
		return "", err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, r.Status)
	}
	return string(b), err
}

// goBuild builds a program of the module at dir.
func goBuild(dir, out, pkg string) error {
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s in %s: %w\n%s", pkg, dir, err, b)
	}
	return nil
}

// tool gives the path of a program of the tools module, built by the first test that needs it.
func tool(t *testing.T, m *mesh, name, pkg string) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if path, ok := shared.tools[name]; ok {
		return path
	}
	dir, err := shared.directory()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := goBuild(filepath.Join(m.root, "internal", "tools"), path, pkg); err != nil {
		t.Fatal(err)
	}
	if shared.tools == nil {
		shared.tools = map[string]string{}
	}
	shared.tools[name] = path
	return path
}

// output is what a program did.
type output struct {
	stdout, stderr string
	code           int
}

// execute runs a program to its end, within two minutes.
func execute(t *testing.T, dir string, env []string, name string, args ...string) output {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute) // also runs when a test cleans up
	defer cancel()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", name, err)
	}
	return output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}
