//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// limit is how long a condition is waited for: generous, since the machine may be busy; a test that measures says so itself.
const limit = 60 * time.Second

// binary is the program under test, launch the one thread that starts processes. Both are set once, before any test.
var (
	binary string
	launch = make(chan func())
	// given are the addresses that quietAddress has given to tests.
	given sync.Map
)

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait far more than they compute: the default, one a core, would make them take three times as long.
	if f := flag.Lookup("test.parallel"); f.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("5")
	}
	// A parent-death signal is sent when the thread that started the process ends, so all are started by one thread that never does.
	go func() {
		runtime.LockOSThread()
		for f := range launch {
			f()
		}
	}()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if b := os.Getenv("PROBEMESH_E2E_BINARY"); b != "" {
		binary = b
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "probemesh-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "probemesh")
	build := exec.Command("go", "build", "-o", binary, "./cmd/probemesh")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// cleanEnv is the environment without what would configure the program under test.
func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PROBEMESH_") && !strings.HasPrefix(kv, "OTEL_") {
			env = append(env, kv)
		}
	}
	return env
}
