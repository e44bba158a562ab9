package clients

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A client in another language, made from the protos when it starts, applies a check and follows it until it is UP.
func TestANodeClientAppliesACheckAndWatchesItComeUp(t *testing.T) {
	m := running(t)
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed; install Node.js 18 or later with npm", program)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("node")); err != nil {
		t.Fatal(err)
	}
	installPackages(t, dir)

	defer func() { execute(t, dir, ownEnvironment(), m.binary, "delete", "check", "node", "--server", m.GRPC) }()
	out := execute(t, dir, ownEnvironment(), "node", "apply_and_watch.js", m.GRPC, filepath.Join(m.root, "proto"), "checks/node", m.target, "60")
	if out.code != 0 {
		t.Fatalf("the client ended with %d\n%s%s", out.code, out.stdout, out.stderr)
	}
	type line struct {
		Event, Reason, Verdict string
		Violations             []struct{ Field, Description string }
		Changes                []struct{ Name, Action string }
	}
	byEvent := map[string]line{}
	var order []string
	for _, text := range strings.Split(strings.TrimSpace(out.stdout), "\n") {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		byEvent[l.Event] = l
		order = append(order, l.Event)
	}
	if r := byEvent["refused"]; r.Reason != "INVALID_FIELD" || len(r.Violations) != 2 || r.Violations[0].Field != "checks[0].interval" || r.Violations[1].Field != "checks[0].uri" {
		t.Errorf("two faults must be refused with a reason and both fields, the client saw %+v", r)
	}
	if a := byEvent["applied"]; len(a.Changes) != 1 || a.Changes[0].Name != "checks/node" || a.Changes[0].Action != "CREATE" {
		t.Errorf("Apply should have created checks/node, the client saw %+v", a)
	}
	if s := byEvent["status"]; s.Verdict != "UP" {
		t.Errorf("the last status is %+v, want UP", s)
	}
	if strings.Count(strings.Join(order, " "), "synced") != 1 {
		t.Errorf("want one end of the snapshot among %q", order)
	}
}

// installPackages installs what package-lock.json pins, and skips the test when the registry cannot be reached.
func installPackages(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=20000")
	cmd.Dir = dir
	b, err := cmd.CombinedOutput()
	if err == nil {
		return
	}
	for _, offline := range []string{"ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH", "ENOTCACHED", "network"} {
		if strings.Contains(string(b), offline) || ctx.Err() != nil {
			t.Skipf("the npm registry cannot be reached, and the packages are not in npm's cache:\n%s", b)
		}
	}
	t.Fatalf("npm ci: %v\n%s", err, b)
}

// The lock file must say what is installed, not from where: everyone has a registry of their own.
func TestTheLockFileNamesNoDownloadAddress(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("node", "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Packages map[string]struct{ Resolved, Integrity string }
	}
	if err := json.Unmarshal(b, &lock); err != nil {
		t.Fatal(err)
	}
	if len(lock.Packages) < 3 {
		t.Fatalf("only %d packages are locked", len(lock.Packages))
	}
	for name, p := range lock.Packages {
		if p.Resolved != "" || name != "" && p.Integrity == "" {
			t.Errorf("%s: resolved %q, integrity %q; pin by integrity alone (npm install --omit-lockfile-registry-resolved)", name, p.Resolved, p.Integrity)
		}
	}
}
