//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A prober of nine is not what it seems: its machine's clock is an hour off, its program stamps results with wrong times, it is of an old build that does not follow what checks have become, it
// speaks an old protocol, or somebody has copied its machine. Users are told of nothing but real outages, and of these in time; operators are told who it is and what is wrong with it, each by
// what fits: by being set aside, by being turned away, or, if it can be corrected, by what to mend.
func TestLiarByClockBuildOrCloneIsNamedAndPagesNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nine probers for each liar; run without -short")
	}
	t.Parallel()
	program, wrong := buildBroken(t), ""
	if everything() {
		wrong = wrongClock(t)
	}
	for name, tell := range map[string]func(t *testing.T, program string){
		"clock an hour ahead":   func(t *testing.T, _ string) { clockOff(t, wrong, time.Hour) },
		"clock an hour behind":  func(t *testing.T, _ string) { clockOff(t, wrong, -time.Hour) },
		"stamps an hour ahead":  func(t *testing.T, program string) { stamps(t, program, "ahead", time.Hour) },
		"stamps an hour behind": func(t *testing.T, program string) { stamps(t, program, "behind", -time.Hour) },
		"old build":             oldBuild,
		"old protocol":          oldProtocol,
		"cloned identity":       clonedIdentity,
		"clone takes the name":  cloneTakesTheName,
	} {
		if !everything() && name != "cloned identity" && name != "old build" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tell(t, program)
		})
	}
}

// wrongClock is the prober as it would be on a machine whose clock is off: built with a time.Now that is.
func wrongClock(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	planted := strings.Replace(string(source), now, now+"\tsec += plantedSeconds\n", 1)
	if planted == string(source) {
		t.Fatalf("time.Now of this version of Go does not begin as this test expects; look at %s and mend the test", path)
	}
	planted = strings.Replace(planted, "import (", "import (\n\t\"syscall\"", 1) + `
// plantedSeconds is how far this program's clock is off.
var plantedSeconds = func() int64 {
	v, _ := syscall.Getenv("PLANTED_CLOCK")
	n, sign := int64(0), int64(1)
	for _, c := range []byte(v) {
		if c == '-' {
			sign = -1
			continue
		}
		n = 10*n + int64(c-'0')
	}
	return sign * n
}()
`
	dir := t.TempDir()
	file, overlay, program := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "wrongclock")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{path: file}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{file: planted, overlay: string(replace)} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", program, "./brokenprober").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// clockOff: the prober knows how far its clock is off, corrects it, and is believed; operators are told to set the clock.
func clockOff(t *testing.T, program string, off time.Duration) {
	x := newScene(t, "", nil)
	build := x.mesh.prober(liar).GetBuild()
	x.procs[liar].interrupt()
	x.procs[liar] = launchBroken(t, program, x.mesh.grpc, x.dirs[liar], build, "none", withEnv(fmt.Sprintf("PLANTED_CLOCK=%d", int(off.Seconds()))))
	x.mesh.awaitProber(liar)
	x.awaitUp(5)
	c := x.condition(meshv1.Condition_CLOCK_SKEW)
	if got := x.mesh.prober(liar).GetClockOffset().AsDuration(); (got-off).Abs() > time.Second || !strings.Contains(c.GetSummary(), liar) || c.GetRemedy() == "" {
		t.Errorf("its clock is said to be off by %s: %s %s", got, c.GetSummary(), c.GetRemedy())
	}
	opened, resolved := x.outage(0)
	if x.begun < -time.Second || x.begun > opened {
		t.Errorf("the incident is said to have begun %s after the target was stopped", x.begun)
	}
	// Its own voice counts: of a check that needs all five datacenters an outage is announced.
	x.mesh.apply(strings.Replace(x.yaml(), "quorum: 3", "quorum: 5", 1))
	x.awaitUp(5)
	all, _ := x.outage(0)
	x.sound(liar, meshv1.Prober_ONLINE)
	if n := len(x.operators.distinct()); n != 0 {
		t.Errorf("operators were paged: %s", story(x.operators.distinct()))
	}
	held(t, x.users, x.told)
	t.Logf("%s; announced after %s, its end after %s, and with its vote after %s", c.GetSummary(), opened, resolved, all)
}

// stamps: the program says that everything is down, at a time that cannot be. It has no vote, and operators are told.
func stamps(t *testing.T, program, fault string, off time.Duration) {
	x := newScene(t, "", nil)
	build := x.mesh.prober(liar).GetBuild()
	x.procs[liar].interrupt()
	x.procs[liar] = launchBroken(t, program, x.mesh.grpc, x.dirs[liar], build, fault)
	x.mesh.awaitProber(liar)
	opened, resolved := x.outage(0)
	c := x.condition(meshv1.Condition_RESULTS_MISTIMED)
	if got := x.mesh.prober(liar).GetMistimed().AsDuration(); (got-off).Abs() > 5*time.Second || !strings.Contains(c.GetSummary(), liar) || c.GetRemedy() == "" {
		t.Errorf("its results are said to be off by %s: %s %s", got, c.GetSummary(), c.GetRemedy())
	}
	x.outage(1)
	for i := range x.sites {
		for _, v := range x.mesh.status(fmt.Sprint("site-", i)).GetVotes() {
			if strings.HasSuffix(v.GetProber(), liar) && v.GetFresh() && v.GetOutcome() == meshv1.Result_FAIL {
				t.Errorf("its vote counts: %v", v)
			}
		}
	}
	held(t, x.users, x.told)
	t.Logf("%s; announced after %s, its end after %s", c.GetSummary(), opened, resolved)
}

// oldBuild: a build that has been trusted for long is left behind on one machine. When the sites move, it goes on looking where they were.
func oldBuild(t *testing.T, program string) {
	const build = "0.9-old"
	x := newScene(t, "", func(m *mesh, dir string) *process { return launchBroken(t, program, m.grpc, dir, build, "old") })
	until(t, "the old build is settled", func() (bool, string) {
		out, errs, code := x.mesh.cli("", "approve", "build", build, "--reason", "it has run for years")
		return code == 0, out + errs
	})
	for i := range x.sites {
		until(t, "it takes part", func() (bool, string) {
			s := x.mesh.status(fmt.Sprint("site-", i))
			return slices.ContainsFunc(s.GetVotes(), func(v *meshv1.Vote) bool { return v.GetProber() == "probers/"+liar && v.GetFresh() }), s.String()
		})
	}
	before := x.sites
	x.sites = nil
	for range before {
		x.sites = append(x.sites, startWebTarget(t, nil))
	}
	x.mesh.apply(x.yaml())
	x.awaitUp(4)
	for _, w := range before {
		w.stop()
	}
	opened, resolved := x.outage(0)
	told := x.operators.await(t, 1, meshv1.Notification_OPENED)
	if s := told.note.GetSummary(); !strings.Contains(s, liar) && !strings.Contains(s, build) || !strings.Contains(s, "set aside") {
		t.Errorf("operators were told %q", s)
	}
	x.sound(liar, meshv1.Prober_QUARANTINED)
	again, _ := x.outage(1)
	held(t, x.users, x.told)
	t.Logf("announced after %s, its end after %s, and after %s when it had been set aside; operators: %s", opened, resolved, again, told.note.GetSummary())
}

// oldProtocol: a program so old that servers do not understand it is turned away, and does not become silent unnoticed.
func oldProtocol(t *testing.T, program string) {
	x := newScene(t, "", nil)
	build := x.mesh.prober(liar).GetBuild()
	x.procs[liar].interrupt()
	x.procs[liar] = launchBroken(t, program, x.mesh.grpc, x.dirs[liar], build, "protocol")
	opened, resolved := x.outage(0)
	c := x.condition(meshv1.Condition_PROBER_TURNED_AWAY)
	if !strings.Contains(c.GetSummary(), liar) || !strings.Contains(c.GetSummary(), "protocol 0") || !strings.Contains(c.GetSummary(), "upgrade the prober") {
		t.Errorf("the mesh says: %s", c.GetSummary())
	}
	held(t, x.users, x.told)
	t.Logf("%s; announced after %s, its end after %s", c.GetSummary(), opened, resolved)
}

// clonedIdentity: the machine of a prober is copied, data directory and all, and the copy sees everything down. It is turned away for as long as the prober has its session, and named.
func clonedIdentity(t *testing.T, program string) {
	x := newScene(t, "", nil)
	x.clone(program)
	opened, resolved := x.outage(0)
	c := x.condition(meshv1.Condition_PROBER_TURNED_AWAY)
	boot := x.mesh.prober(liar).GetBootId()
	if !containsAll(c.GetSummary(), "says that it is "+liar, "turned away", "calls from 127.0.0.1", "the session is that of boot "+boot) || !strings.Contains(c.GetRemedy(), "--name") {
		t.Errorf("the mesh says: %s %s", c.GetSummary(), c.GetRemedy())
	}
	if out, _, _ := x.mesh.cli("", "get", "mesh"); !strings.Contains(out, "PROBER_TURNED_AWAY") {
		t.Errorf("get mesh says\n%s", out)
	}
	again, _ := x.outage(1)
	// The two do not take turns: the session is the one of the beginning.
	if n := x.sessions(); n != 1 {
		t.Errorf("%s was attached %d times", liar, n)
	}
	x.sound(liar, meshv1.Prober_ONLINE)
	if n := len(x.operators.distinct()); n != 0 {
		t.Errorf("operators were paged: %s", story(x.operators.distinct()))
	}
	held(t, x.users, x.told)
	asked := strings.Count(x.mesh.proc.log.String(), "session refused")
	t.Logf("%s; turned away %d times; announced after %s, its end after %s, then %s", c.GetSummary(), asked, opened, resolved, again)
}

// cloneTakesTheName: the prober dies while a lying copy of it waits. The copy gets the name, and is set aside; the prober that comes back is turned away, and that is said.
func cloneTakesTheName(t *testing.T, program string) {
	x := newScene(t, "", nil)
	x.clone(program)
	boot := x.mesh.prober(liar).GetBootId()
	x.procs[liar].kill()
	until(t, "the clone has the name", func() (bool, string) {
		p := x.mesh.prober(liar)
		return p.GetBootId() != boot && p.GetState() != meshv1.Prober_OFFLINE, p.String()
	})
	opened, resolved := x.outage(0)
	told := x.operators.await(t, 1, meshv1.Notification_OPENED)
	if s := told.note.GetSummary(); !strings.Contains(s, liar) || !strings.Contains(s, "set aside") {
		t.Errorf("operators were told %q", s)
	}
	x.sound(liar, meshv1.Prober_QUARANTINED)
	x.procs[liar] = launchProber(t, x.mesh.grpc, liar, "iad", x.dirs[liar])
	c := x.condition(meshv1.Condition_PROBER_TURNED_AWAY)
	again, _ := x.outage(1)
	if n := x.sessions(); n != 2 {
		t.Errorf("%s was attached %d times, not once by each of the two", liar, n)
	}
	held(t, x.users, x.told)
	t.Logf("operators: %s; %s; announced after %s, its end after %s, then %s", told.note.GetSummary(), c.GetSummary(), opened, resolved, again)
}

// clone starts a copy of the liar with its data directory, which reports everything as down.
func (x *scene) clone(program string) *process {
	x.t.Helper()
	dir := filepath.Join(x.t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(x.dirs[liar])); err != nil {
		x.t.Fatal(err)
	}
	return launchBroken(x.t, program, x.mesh.grpc, dir, x.mesh.prober(liar).GetBuild(), "fail")
}

// sessions counts how often the liar has been attached.
func (x *scene) sessions() (n int) {
	for _, l := range x.mesh.proc.log.lines("prober attached") {
		if strings.Contains(l, "probers/"+liar+" ") {
			n++
		}
	}
	return n
}

// sound holds that of all probers the liar alone is in that state, and everybody else sound.
func (x *scene) sound(who string, state meshv1.Prober_State) {
	x.t.Helper()
	for name := range x.procs {
		want := meshv1.Prober_ONLINE
		if name == who {
			want = state
		}
		if p := x.mesh.prober(name); p.GetState() != want {
			x.t.Errorf("%s is %s, not %s (%s)", name, p.GetState(), want, p.GetSetAside())
		}
	}
}
