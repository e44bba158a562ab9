//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A prober fills its spool while the server is gone; then it is killed, and both its spool and its assignments are damaged. Started again, it says so,
// sets the damaged files aside, goes on, and hands over what verifies.
func TestDamagedFilesOfAProberAreSetAside(t *testing.T) {
	t.Parallel()
	m := startMesh(t, "server", nil)
	prober, dir := startProber(t, m, "a-1", "a")
	target := startWebTarget(t, nil)
	m.apply(webCheck("shop", target.url(), time.Second, 1, 1))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	until(t, "assignments are on disk", func() (bool, string) {
		_, err := os.Stat(filepath.Join(dir, "assignments"))
		return err == nil, fmt.Sprint(err)
	})
	m.proc.kill()
	gone := time.Now()
	var segments []string
	until(t, "some results are in the spool", func() (bool, string) {
		segments, _ = filepath.Glob(filepath.Join(dir, "spool", "*.seg"))
		var size int64
		for _, s := range segments {
			if info, err := os.Stat(s); err == nil {
				size += info.Size()
			}
		}
		return time.Since(gone) > 6*time.Second && size > 500, fmt.Sprintf("%d segments, %d bytes", len(segments), size)
	})
	prober.kill()
	damage(t, segments[len(segments)-1])
	damage(t, filepath.Join(dir, "assignments"))

	prober = launchProber(t, m.grpc, "a-1", "a", dir)
	until(t, "the prober says that both are corrupt", func() (bool, string) {
		return prober.log.has("spool segment is corrupt and was set aside") && prober.log.has("assignments on disk are corrupt and were set aside"), prober.log.String()
	})
	for _, pattern := range []string{"spool/*.corrupt", "assignments.corrupt"} {
		if found, _ := filepath.Glob(filepath.Join(dir, pattern)); len(found) == 0 {
			t.Errorf("there is no %s", pattern)
		}
	}
	m.start()
	m.awaitProber("a-1")
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	var samples int
	until(t, "what verifies is in the history", func() (bool, string) {
		samples, _ = m.gaps("shop", "a-1", gone, gone.Add(6*time.Second), time.Second)
		return samples >= 2, fmt.Sprintf("%d samples", samples)
	})
	if !prober.alive() {
		t.Error("the prober has ended")
	}
	t.Logf("of some 6 results in the damaged segment, %d are in the history\n%s\n%s", samples, prober.log.lines("spool segment is corrupt")[0],
		prober.log.lines("assignments on disk are corrupt")[0])
}

// damage flips a bit three quarters into a file.
func damage(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		b[len(b)*3/4] ^= 0x10
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The disk of a prober is full while the server is gone: it says so once, goes on, keeps its results in memory and hands them over.
func TestAFullDiskEndsNoProber(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	if out, err := exec.Command("unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt").CombinedOutput(); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v: %s", err, out)
	}
	t.Parallel()
	m := startMesh(t, "server", nil)
	dir := t.TempDir()
	// In a mount namespace of its own the process has a disk of 1 MiB, which goes with it.
	prober := launchProber(t, m.grpc, "a-1", "a", dir, wrapped("unshare", "-m", "sh", "-c", `mount -t tmpfs -o size=1m none "$0" && exec "$@"`, dir))
	m.awaitProber("a-1")
	target := startWebTarget(t, nil)
	m.apply(webCheck("shop", target.url(), time.Second, 1, 1))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	begun := time.Now()
	inside := fmt.Sprintf("/proc/%d/root%s", prober.cmd.Process.Pid, dir)
	filler := filepath.Join(inside, "filler")
	fill(t, filler)
	m.proc.kill()
	until(t, "the prober says that its disk fails", func() (bool, string) { return prober.log.has("spool cannot be written"), tail(prober.log.String(), 5) })
	said := time.Now()
	until(t, "some more results are in memory", func() (bool, string) { return time.Since(said) > 4*time.Second, "" })
	m.start()
	m.awaitProber("a-1")
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	ended := time.Now()
	var samples int
	until(t, "the history is whole", func() (bool, string) {
		n, gaps := m.gaps("shop", "a-1", begun, ended, time.Second)
		samples = n
		return n > 0 && len(gaps) == 0, fmt.Sprintf("%d samples, gaps %v", n, gaps)
	})
	if n := len(prober.log.lines("spool cannot be written")); n != 1 || !prober.alive() {
		t.Errorf("said %d times that the spool cannot be written, want once; alive: %t", n, prober.alive())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d samples without a gap over %s with a full disk; %s", samples, ended.Sub(begun).Round(time.Second), prober.log.lines("spool cannot be written")[0])
}

// fill writes until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{4096, 1} {
		block := bytes.Repeat([]byte{1}, size)
		for {
			if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}
