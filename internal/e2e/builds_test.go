//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxDissents is what docs/operations.md promises: a bad build is halted by that many disagreements at most.
const maxDissents = 9

// buildBroken builds the prober with a planted fault: it takes redirects for failures.
func buildBroken(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "brokenprober")
	if out, err := exec.Command("go", "build", "-o", path, "./brokenprober").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// A build of the prober that takes every redirect for a failure is rolled out to one, two and five of ten probers, and to all of one datacenter. Nobody is told that a
// target is down; operators are told once that the build is halted; a target that is really down meanwhile is announced as ever.
func TestBrokenProberBuildIsHaltedAndPagesNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("starts ten probers four times; run without -short")
	}
	t.Parallel()
	broken := buildBroken(t)
	for name, upgraded := range map[string][]string{
		"1 of 10":        {"fra-1"},
		"2 of 10":        {"fra-1", "nrt-2"},
		"5 of 10":        {"ams-1", "fra-2", "iad-1", "nrt-2", "syd-1"},
		"one datacenter": {"iad-1", "iad-2"},
	} {
		if !everything() && name != "2 of 10" && name != "one datacenter" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rollOut(t, broken, upgraded)
		})
	}
}

func rollOut(t *testing.T, broken string, upgraded []string) {
	m := startMesh(t, "server", []string{"--name", "a", "--datacenter", "ams"})
	procs, dirs := map[string]*process{}, map[string]string{}
	for _, d := range []string{"ams", "fra", "iad", "nrt", "syd"} {
		for i := 1; i <= 2; i++ {
			name := fmt.Sprintf("%s-%d", d, i)
			dirs[name] = t.TempDir()
			procs[name] = launchProber(t, m.grpc, name, d, dirs[name])
		}
	}
	for name := range procs {
		m.awaitProber(name)
	}
	users, operators := startReceiver(t), startReceiver(t)
	// Six sites on ports of their own redirect, as a shop does from / to /home, and one does not.
	var yaml strings.Builder
	fmt.Fprintf(&yaml, "receivers: [{name: ops, webhook: {url: %q}}, {name: mesh, mesh_incidents: true, webhook: {url: %q}}]\nchecks:\n", users.url, operators.url)
	var names []string
	for i := range 6 {
		site := startWebTarget(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				http.Redirect(w, r, "/home", http.StatusFound)
			}
		})
		names = append(names, fmt.Sprint("site-", i))
		fmt.Fprintf(&yaml, "- {name: %s, uri: %q, interval: 2s, timeout: 1s, probers: 5, quorum: 3, alert_on_degraded: true, receivers: [ops]}\n", names[i], site.url())
	}
	plain := startWebTarget(t, nil)
	fmt.Fprintf(&yaml, "- {name: plain, uri: %q, interval: 2s, timeout: 1s, probers: 5, quorum: 3, receivers: [ops]}\n", plain.url())
	m.apply(yaml.String())
	for _, n := range append(names, "plain") {
		until(t, n+" is UP everywhere, for some probes", func() (bool, string) {
			s := m.status(n)
			steady := 0
			for _, v := range s.GetVotes() {
				if v.GetOutcome() == meshv1.Result_OK && v.GetStreak() >= 3 {
					steady++
				}
			}
			return s.GetVerdict() == meshv1.CheckStatus_UP && steady == 5, s.String()
		})
	}
	for _, p := range upgraded {
		d, _, _ := strings.Cut(p, "-")
		procs[p].interrupt()
		procs[p] = begin(t, "brokenprober "+p, []string{p, d, m.grpc, dirs[p], "2.0-broken"}, func(c *exec.Cmd) { c.Path, c.Args[0] = broken, broken })
	}
	// Meanwhile a target goes down.
	began := time.Now()
	plain.stop()
	opened := users.await(t, 1, meshv1.Notification_OPENED)
	took := opened.at.Sub(began)
	if opened.note.GetCheck() != "checks/plain" {
		t.Fatalf("users were told of %s: %s", opened.note.GetCheck(), opened.note.GetSummary())
	}
	builds := meshv1.NewBuildServiceClient(dial(t, m.grpc))
	var b *meshv1.Build
	until(t, "the build is halted", func() (bool, string) {
		var err error
		b, err = builds.GetBuild(m.ctx(), &meshv1.GetBuildRequest{Name: "builds/2.0-broken"})
		return err == nil && b.GetStage() == meshv1.Build_HALTED && b.GetIncident() != "", fmt.Sprint(b, err)
	})
	if b.GetDissents() > maxDissents || len(b.GetDissentsByKind()) != 1 || b.GetDissentsByKind()[0].GetKind() != "http" {
		t.Errorf("halted as %v", b)
	}
	for _, e := range b.GetDissentsByKind()[0].GetExamples() {
		if !slices.Contains(names, strings.TrimPrefix(e.GetCheck(), "checks/")) || e.GetError() != "the answer is a redirect" {
			t.Errorf("it is said to disagree on %v", e)
		}
	}
	told := operators.await(t, 1, meshv1.Notification_OPENED)
	if s := told.note.GetSummary(); !strings.Contains(s, "2.0-broken") || !strings.Contains(s, "site-") {
		t.Errorf("operators were told %q", s)
	}
	plain.start()
	users.await(t, 2, meshv1.Notification_RESOLVED)
	// It stays so, and an outage is announced as before.
	began = time.Now()
	plain.stop()
	again := users.await(t, 3, meshv1.Notification_OPENED).at.Sub(began)
	plain.start()
	users.await(t, 4, meshv1.Notification_RESOLVED)
	for _, d := range users.distinct() {
		if d.note.GetCheck() != "checks/plain" {
			t.Errorf("users were told: %s", d.note.GetSummary())
		}
	}
	if n := len(operators.distinct()); n != 1 {
		t.Errorf("operators were told %d times: %s", n, story(operators.distinct()))
	}
	for _, n := range names {
		if s := m.status(n); s.GetVerdict() != meshv1.CheckStatus_UP {
			t.Errorf("%s: %s", n, s.GetSummary())
		}
	}
	// Whoever asks is told why.
	if out, _, code := m.cli("", "get", "builds", "-o", "wide"); code != 0 || !strings.Contains(out, "HALTED") || !strings.Contains(out, "site-") {
		t.Errorf("get builds says:\n%s", out)
	}
	if out, _, code := m.cli("", "get", "probers", "--filter", "build = \"2.0-broken\""); code != 0 || strings.Count(out, "QUARANTINED") != len(upgraded) {
		t.Errorf("get probers says:\n%s", out)
	}
	t.Logf("halted by disagreement %d, in %d comparisons; outages announced after %s and %s; operators: %s", b.GetDissents(), b.GetComparisons(), took.Round(time.Millisecond),
		again.Round(time.Millisecond), told.note.GetSummary())
}
