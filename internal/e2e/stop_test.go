//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Ctrl-C ends `up` with exit code 0 within 10 s, while a watch and a probe are under way; started again, it has the checks, the open incident and the history.
func TestUpStopsCleanlyAndStartsAgain(t *testing.T) {
	t.Parallel()
	m := startMesh(t, "up", nil)
	target, hook := startWebTarget(t, nil), startReceiver(t)
	m.apply(hook.yaml("ops") + webCheck("shop", target.url(), pace, 1, 1, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	target.stop()
	hook.await(t, 1, opened)
	before := m.allIncidents()
	begun := time.Now().Add(-time.Minute)
	samples, _ := m.gaps("shop", "local-1", begun, time.Now(), pace)
	watch, err := m.statuses.WatchStatuses(t.Context(), &meshv1.WatchStatusesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}

	code, took := m.proc.interrupt()
	if code != 0 || took > 10*time.Second {
		t.Errorf("up ended with %d after %s; want 0 within 10s", code, took)
	}
	if got := m.proc.log.lines("stopped"); len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), m.data) {
		t.Errorf("up does not say that it stopped, and where everything is kept:\n%s", tail(m.proc.log.String(), 10))
	}
	again := time.Now()
	m.start()
	ready := time.Since(again)
	check, err := m.checks.GetCheck(m.ctx(), &meshv1.GetCheckRequest{Name: "checks/shop"})
	if err != nil || check.GetUri() != target.url() {
		t.Errorf("the check after the restart: %v, %v", check, err)
	}
	after := m.allIncidents()
	if len(before) != 1 || len(after) != 1 || after[0].GetName() != before[0].GetName() || after[0].GetState() != meshv1.Incident_OPEN {
		t.Errorf("before the stop: %v; after: %v", before, after)
	}
	if n, _ := m.gaps("shop", "local-1", begun, time.Now(), pace); n < samples {
		t.Errorf("%d samples in the history, there were %d before", n, samples)
	}
	target.start()
	hook.await(t, 2, resolved)
	if all := hook.all(); len(all) != 2 {
		t.Errorf("want one OPENED and one RESOLVED, got %s", story(all))
	}
	t.Logf("stopped within %s, ready again within %s", took.Round(time.Millisecond), ready.Round(time.Millisecond))
}

// A port that is in use is said in one sentence, with exit code 2, and the process that uses it goes on.
func TestUpOnPortsInUseSaysSo(t *testing.T) {
	t.Parallel()
	l := listen(t)
	for flag, args := range map[string][]string{
		"--grpc-listen": {"--grpc-listen", l.Addr().String(), "--http-listen", "127.0.0.1:0"},
		"--http-listen": {"--grpc-listen", "127.0.0.1:0", "--http-listen", l.Addr().String()},
	} {
		p := begin(t, "up "+flag, append([]string{"up", "--data", t.TempDir()}, args...))
		if code := p.code(); code != 2 {
			t.Errorf("%s in use: exit code %d, want 2", flag, code)
		}
		out := strings.TrimSpace(p.log.String())
		if strings.Count(out, "\n") != 0 || !strings.Contains(out, l.Addr().String()) || !strings.Contains(out, flag) {
			t.Errorf("%s in use should be one sentence that names the address and the flag, is:\n%s", flag, out)
		}
		t.Logf("%s", out)
	}
}

// So is a data directory that is in use, and the process that uses it goes on undisturbed.
func TestDataInUseIsSaidInOneSentence(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"up", "server"} {
		m := startMesh(t, verb, nil)
		p := begin(t, "second "+verb, []string{verb, "--data", m.data, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"})
		code := p.code()
		out := strings.TrimSpace(p.log.String())
		if code != 2 || strings.Count(out, "\n") != 0 || !strings.Contains(out, m.data) {
			t.Errorf("a second %s on the same data ended with %d, want 2, and says:\n%s", verb, code, out)
		}
		if _, err := os.Stat(filepath.Join(m.data, "addresses.json")); err != nil {
			t.Errorf("the addresses of the first %s are gone: %v", verb, err)
		}
		if _, err := m.checks.ListChecks(m.ctx(), &meshv1.ListChecksRequest{}); err != nil {
			t.Errorf("the first %s no longer answers: %v", verb, err)
		}
		t.Logf("%s", out)
	}
}

// A server whose store cannot be opened ends, and says why.
func TestServerThatCannotStartEnds(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "etcd"), []byte("not a directory"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"up", "server"} {
		p := begin(t, verb, []string{verb, "--data", data, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"})
		if code := p.code(); code == 0 || !strings.Contains(p.log.String(), filepath.Join(data, "etcd")) {
			t.Errorf("%s ended with %d and says:\n%s", verb, code, p.log.String())
		}
		t.Logf("%s", tail(p.log.String(), 1))
	}
}
