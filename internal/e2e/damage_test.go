//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	m.apply(webCheck("shop", target.url(), pace, 1, 1))
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
		return time.Since(gone) > 10*time.Second && size > 500, fmt.Sprintf("%d segments, %d bytes", len(segments), size)
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
		samples, _ = m.gaps("shop", "a-1", gone, gone.Add(10*time.Second), pace)
		return samples >= 2, fmt.Sprintf("%d samples", samples)
	})
	if !prober.alive() {
		t.Error("the prober has ended")
	}
	t.Logf("of some 5 results in the damaged segment, %d are in the history\n%s\n%s", samples, prober.log.lines("spool segment is corrupt")[0],
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

// smallDisk is a directory on a disk of its own, which goes with the test; or the test is skipped. A process that sleeps holds the mount, in a namespace of its
// own; others reach it through that process's root.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	dir := t.TempDir()
	holder := exec.Command("unshare", "-m", "sh", "-c", `mount -t tmpfs -o size="$1" none "$0" && : >"$0/mounted" && exec sleep infinity`, dir, size)
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said output
	holder.Stdout, holder.Stderr = &said, &said
	started, ended := make(chan error), make(chan struct{})
	launch <- func() { started <- holder.Start() }
	if err := <-started; err != nil {
		t.Skipf("no mount namespace on this machine: %v", err)
	}
	go func() { _ = holder.Wait(); close(ended) }()
	t.Cleanup(func() { _ = holder.Process.Kill(); <-ended })
	inside := fmt.Sprintf("/proc/%d/root%s", holder.Process.Pid, dir)
	until(t, "the disk is mounted", func() (bool, string) {
		select {
		case <-ended:
			t.Skipf("no tmpfs can be mounted here: %s", &said)
		default:
		}
		_, err := os.Stat(filepath.Join(inside, "mounted"))
		return err == nil, fmt.Sprint(err)
	})
	return inside
}

// The disk of a prober is full while the server is gone: it says so once, goes on, keeps its results in memory and hands them over.
func TestAFullDiskEndsNoProber(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "1m")
	m := startMesh(t, "server", nil)
	prober := launchProber(t, m.grpc, "a-1", "a", dir)
	m.awaitProber("a-1")
	target := startWebTarget(t, nil)
	m.apply(webCheck("shop", target.url(), pace, 1, 1))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	begun := time.Now()
	filler := filepath.Join(dir, "filler")
	fill(t, filler)
	m.proc.kill()
	until(t, "the prober says that its disk fails", func() (bool, string) { return prober.log.has("spool cannot be written"), tail(prober.log.String(), 5) })
	said := time.Now()
	until(t, "some more results are in memory", func() (bool, string) { return time.Since(said) > 3*pace, "" })
	m.start()
	m.awaitWhole("shop", "a-1", begun)
	if n := len(prober.log.lines("spool cannot be written")); n != 1 || !prober.alive() {
		t.Errorf("said %d times that the spool cannot be written, want once; alive: %t", n, prober.alive())
	}
	t.Log(prober.log.lines("spool cannot be written")[0])
}

// The disk of a server is full. Its embedded etcd cannot go on without a disk, but the process lives and says what is wrong; nobody is paged, the prober goes on, and
// once there is room the server begins anew by itself, with everything there: what was configured, the open incident, and the history of the time in between.
func TestAFullDiskOfAServerLosesNothing(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "server", nil, smallDisk(t, "180m"))
	m.start()
	startProber(t, m, "a-1", "a")
	target, broken, hook := startWebTarget(t, nil), startWebTarget(t, nil), startReceiver(t)
	m.apply(hook.yaml("ops", "mesh_incidents: true") + webCheck("shop", target.url(), pace, 1, 1, "receivers: [receivers/ops]"))
	m.apply(webCheck("broken", broken.url(), pace, 1, 1, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	m.awaitVerdict("broken", meshv1.CheckStatus_UP, 1)
	broken.stop()
	hook.await(t, 1, opened)
	incident := m.allIncidents()[0].GetName()
	begun := time.Now()
	filler := filepath.Join(m.data, "filler")
	fill(t, filler)
	filled := time.Now()
	// Changes make etcd write.
	accepted := 0
	for i := 0; m.proc.alive() && time.Since(filled) < 8*time.Second; i++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := m.checks.CreateCheck(ctx, &meshv1.CreateCheckRequest{CheckId: fmt.Sprintf("more-%d", i), Check: &meshv1.Check{
			Uri: target.url(), Paused: true, Annotations: map[string]string{"text": strings.Repeat("x", 2000)}}})
		cancel()
		if err == nil {
			accepted++
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !m.proc.alive() {
		t.Fatalf("the server ended:\n%s", tail(m.proc.log.String(), 10))
	}
	t.Logf("alive after %s with a full disk, and %d changes that it accepted", time.Since(filled).Round(time.Millisecond), accepted)
	until(t, "/readyz says that the disk is full", func() (bool, string) {
		code, body := m.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "disk is full"), body
	})
	if n := len(m.proc.log.lines("the disk is full")); n != 1 {
		t.Errorf("the log says %d times that the disk is full, want once", n)
	}
	until(t, "the prober has been alone for some intervals", func() (bool, string) { return time.Since(filled) > 3*pace, "" })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	until(t, "the server has begun anew", func() (bool, string) {
		code, body := m.get("/readyz")
		return code == http.StatusOK && m.proc.alive(), body + tail(m.proc.log.String(), 5)
	})
	m.awaitWhole("shop", "a-1", begun)
	resp, err := m.checks.ListChecks(m.ctx(), &meshv1.ListChecksRequest{PageSize: 1000})
	if err != nil || len(resp.GetChecks()) < accepted+2 {
		t.Errorf("%d checks are left of %d that were accepted: %v", len(resp.GetChecks()), accepted+2, err)
	}
	m.awaitVerdict("broken", meshv1.CheckStatus_DOWN, 1)
	broken.start()
	if last := hook.await(t, 2, resolved); last.note.GetIncident() != incident {
		t.Errorf("resolved %s, want %s", last.note.GetIncident(), incident)
	}
	if all := hook.distinct(); len(all) != 2 {
		t.Errorf("want one OPENED and one RESOLVED, got %s", story(all))
	}
}

// awaitWhole waits until the check is UP, and then until the history of a prober has no gap from begun until then.
func (m *mesh) awaitWhole(check, prober string, begun time.Time) {
	m.t.Helper()
	m.awaitProber(prober)
	m.awaitVerdict(check, meshv1.CheckStatus_UP, 1)
	ended := time.Now()
	var samples int
	until(m.t, "the history is whole", func() (bool, string) {
		n, gaps := m.gaps(check, prober, begun, ended, pace)
		samples = n
		return n > 0 && len(gaps) == 0, fmt.Sprintf("%d samples, gaps %v", n, gaps)
	})
	m.t.Logf("%s: %d samples without a gap over %s", prober, samples, ended.Sub(begun).Round(time.Second))
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

// get asks the mesh's HTTP listener; code 0 when it does not answer.
func (m *mesh) get(path string) (code int, body string) {
	c := http.Client{Timeout: 5 * time.Second}
	resp, err := c.Get("http://" + m.http + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}
