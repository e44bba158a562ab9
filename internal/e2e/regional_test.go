//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// regionalBound is how long a failure that one datacenter alone sees may go unnoticed, of a check with an interval of 2 s: its own prober looks once an interval; then it repeats and the
// others are asked, two probes of some milliseconds; and two seconds for a machine that has other work. docs/operations.md promises the first two.
const regionalBound = 2*time.Second + 2*time.Second

// A target fails for the prober of one datacenter only, for each of five in turn. Both checks of it are DEGRADED, within their bound, and name that datacenter and no other; who asked to be told
// of that is told so, and of its end; nobody is told that the target is down, and nobody is set aside.
func TestTargetThatFailsFromOneDatacenterIsDegradedNamingItForEachInTurn(t *testing.T) {
	if testing.Short() {
		t.Skip("five datacenters in turn take half a minute; run without -short")
	}
	m := startMesh(t, "server", []string{"--name", "a", "--datacenter", "ams"})
	places, probers := []string{"ams", "fra", "iad", "nrt", "syd"}, map[string]*process{}
	for _, d := range places {
		probers[d] = launchProber(t, m.grpc, d+"-1", d, t.TempDir())
	}
	for _, d := range places {
		m.awaitProber(d + "-1")
	}
	users, regional, operators := startReceiver(t), startReceiver(t), startReceiver(t)
	h := &refusing{}
	target := startWebTarget(t, h.ServeHTTP)
	m.apply(fmt.Sprintf(`receivers: [{name: ops, webhook: {url: %q}}, {name: regional, webhook: {url: %q}}, {name: mesh, mesh_incidents: true, webhook: {url: %q}}]
checks:
- {name: plain, uri: %q, interval: 2s, timeout: 2s, probers: 5, quorum: 3, receivers: [ops]}
- {name: told, uri: %q, interval: 2s, timeout: 2s, probers: 5, quorum: 3, alert_on_degraded: true, receivers: [regional]}
`, users.url, regional.url, operators.url, target.url(), target.url()))
	for _, name := range []string{"plain", "told"} {
		m.awaitVerdict(name, meshv1.CheckStatus_UP, 5)
	}
	seen := watchVerdicts(t, m)
	told := 0
	for _, d := range places {
		began := time.Now()
		h.refused[0].Store(int64(probers[d].cmd.Process.Pid))
		var took []time.Duration
		for _, name := range []string{"plain", "told"} {
			s := m.awaitVerdict(name, meshv1.CheckStatus_DEGRADED, 5)
			took = append(took, time.Since(began))
			if got := s.GetFailingDatacenters(); !slices.Equal(got, []string{d}) || !strings.Contains(s.GetSummary(), d) {
				t.Errorf("%s: %s names %v: %s", d, name, got, s.GetSummary())
			}
		}
		if worst := slices.Max(took); worst > regionalBound {
			t.Errorf("%s alone: DEGRADED after %s, its bound is %s", d, worst, regionalBound)
		}
		note := regional.await(t, told+1, meshv1.Notification_OPENED)
		if v := note.note.GetVerdict(); v != meshv1.CheckStatus_DEGRADED || !strings.Contains(note.note.GetSummary(), d) {
			t.Errorf("%s alone: told of %s: %s", d, v, note.note.GetSummary())
		}
		// For some rounds it stays what it is.
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if s := m.status("plain"); s != nil && s.GetVerdict() != meshv1.CheckStatus_DEGRADED {
				t.Fatalf("%s alone, after %s: %s: %s", d, time.Since(began), s.GetVerdict(), s.GetSummary())
			}
		}
		h.refused[0].Store(0)
		for _, name := range []string{"plain", "told"} {
			m.awaitVerdict(name, meshv1.CheckStatus_UP, 5)
		}
		regional.await(t, told+2, meshv1.Notification_RESOLVED)
		told += 2
		t.Logf("%s alone: DEGRADED after %s and %s, announced after %s: %s", d, took[0].Round(time.Millisecond), took[1].Round(time.Millisecond), note.at.Sub(began).Round(time.Millisecond),
			note.note.GetSummary())
	}
	if v := seen.list(); slices.Contains(v, meshv1.CheckStatus_DOWN) {
		t.Errorf("it was DOWN in between: %v", v)
	}
	if n := len(users.distinct()); n != 0 {
		t.Errorf("users were told: %s", story(users.distinct()))
	}
	if n := len(operators.distinct()); n != 0 {
		t.Errorf("operators were told: %s", story(operators.distinct()))
	}
	held(t, regional, told)
	for _, d := range places {
		if p := m.prober(d + "-1"); p.GetState() != meshv1.Prober_ONLINE {
			t.Errorf("%s-1 is %s (%s)", d, p.GetState(), p.GetSetAside())
		}
	}
}
