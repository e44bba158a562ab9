//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A target that answers in 300 ms with a bound of 200 ms is DEGRADED and never DOWN; its incident is opened and, once it answers at once, resolved. The prober's history has it.
func TestASlowTargetIsDegradedUntilItIsFastAgain(t *testing.T) {
	t.Parallel()
	var slow atomic.Bool
	slow.Store(true)
	target := startWebTarget(t, func(http.ResponseWriter, *http.Request) {
		if slow.Load() {
			time.Sleep(300 * time.Millisecond)
		}
	})
	hook := startReceiver(t)
	m := startMesh(t, "up", nil)
	m.awaitProber("local-1")
	m.apply(hook.yaml("ops") + webCheck("shop", target.url(), pace, 1, 1, "receivers: [receivers/ops]", "alert_on_degraded: true", "degraded_above: {total: 200ms}"))
	s := m.awaitVerdict("shop", meshv1.CheckStatus_DEGRADED, 1)
	if s.GetReason() != meshv1.CheckStatus_QUORUM_DEGRADED || len(s.GetDegradedDatacenters()) != 1 || !strings.Contains(s.GetSummary(), "more than 200ms (degraded_above.total)") {
		t.Errorf("status %v", s)
	}
	note := hook.await(t, 1, opened).note
	if note.GetVerdict() != meshv1.CheckStatus_DEGRADED || !strings.Contains(note.GetSummary(), "it degraded (local)") || note.GetEvidence()[0].GetDegraded() == "" {
		t.Errorf("the notification says %v", note)
	}
	if out, _, _ := m.cli("", "explain", "check", "shop"); !containsAll(out, "is DEGRADED", "degraded: the whole probe took", "which is no failure") {
		t.Errorf("explain says\n%s", out)
	}
	slow.Store(false)
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	hook.await(t, 2, resolved)
	until(t, "the history has the end of it", func() (bool, string) {
		resp, err := m.history.QueryRange(m.ctx(), &meshv1.QueryRangeRequest{Check: "checks/shop", Metric: "probemesh_probe_degraded"})
		if err != nil {
			return false, err.Error()
		}
		if len(resp.GetSeries()) != 1 {
			return false, fmt.Sprintf("%d series", len(resp.GetSeries()))
		}
		values := resp.GetSeries()[0].GetPoints()
		return len(values) >= 2 && values[0].GetValue() == 1 && values[len(values)-1].GetValue() == 0, fmt.Sprint(values)
	})
}

// A name has two addresses, and behind one of them nobody listens: by default that is DOWN, with min_healthy DEGRADED, and without each_address nobody sees it.
func TestAHalfDeadPairIsSeenWithEachAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hosts := filepath.Join(dir, "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n127.0.0.1 pair.test\n127.0.0.2 pair.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	own := []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts}
	if out, err := exec.Command(own[0], append(own[1:], "grep", "-q", "pair.test", "/etc/hosts")...).CombinedOutput(); err != nil {
		t.Skipf("this test gives a process an /etc/hosts of its own, for which it must be root: %v %s", err, out)
	}
	target := startWebTarget(t, nil)
	_, port, _ := net.SplitHostPort(target.address)
	uri := "http://pair.test:" + port + "/"
	m := startMesh(t, "up", nil, wrapped(own...))
	m.awaitProber("local-1")
	m.apply(webCheck("any", uri, pace, 1, 1) + strings.TrimPrefix(webCheck("all", uri, pace, 1, 1, "each_address: {}"), "checks:\n") +
		strings.TrimPrefix(webCheck("one", uri, pace, 1, 1, "each_address: {min_healthy: 1}"), "checks:\n"))
	m.awaitVerdict("any", meshv1.CheckStatus_UP, 1)
	down := m.awaitVerdict("all", meshv1.CheckStatus_DOWN, 1)
	if v := down.GetVotes()[0]; v.GetErrorClass() != meshv1.Result_CONNECTION_REFUSED || !strings.HasPrefix(v.GetError(), "1 of 2 addresses fails: 127.0.0.2: ") {
		t.Errorf("the vote says %v", v)
	}
	half := m.awaitVerdict("one", meshv1.CheckStatus_DEGRADED, 1)
	if !strings.Contains(half.GetSummary(), "1 of 2 addresses fails: 127.0.0.2: connect to 127.0.0.2:"+port+": connection refused") {
		t.Errorf("summary %q", half.GetSummary())
	}
	out, _, code := m.cli("", "run", "check", "one")
	if code != 0 || !strings.Contains(out, "degraded: 1 of 2 addresses fails") || !strings.Contains(out, "OK     127.0.0.1:"+port) || !strings.Contains(out, "FAIL   127.0.0.2:"+port) {
		t.Errorf("run ended with %d:\n%s", code, out)
	}
}
