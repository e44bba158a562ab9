//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Ctrl-C ends `up` with exit code 0 within 10 s, while a watch and a probe are under way; started again, it has the checks, the open incident and the history.
func TestUpStopsCleanlyAndStartsAgain(t *testing.T) {
	t.Parallel()
	m := startMesh(t, "up", nil)
	target, hook := startWebTarget(t, nil), startReceiver(t)
	m.apply(hook.yaml("ops") + webCheck("shop", target.url(), time.Second, 1, 1, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	target.stop()
	hook.await(t, 1, opened)
	before := m.allIncidents()
	begun := time.Now().Add(-time.Minute)
	samples, _ := m.gaps("shop", "local-1", begun, time.Now(), time.Second)
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
	if n, _ := m.gaps("shop", "local-1", begun, time.Now(), time.Second); n < samples {
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
	// The same for the data directory.
	m := startMesh(t, "up", nil)
	p := begin(t, "second up", []string{"up", "--data", m.data, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"})
	code := p.code()
	out := strings.TrimSpace(p.log.String())
	if code == 0 || !strings.Contains(out, m.data) || !m.proc.alive() {
		t.Errorf("a second up on the same data ended with %d and says:\n%s", code, out)
	}
	t.Logf("data in use: exit code %d, %s", code, out)
	if resp, err := m.history.QueryRange(m.ctx(), &meshv1.QueryRangeRequest{Check: "checks/none", StartTime: timestamppb.New(time.Now().Add(-time.Hour))}); err != nil {
		t.Error(fmt.Errorf("the first one no longer answers: %w (%v)", err, resp))
	}
}
