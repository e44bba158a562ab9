package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// buildRig is a mesh of probers that run build 1, so many in each of five datacenters, and of 20 checks of different hosts.
type buildRig struct {
	*rig
	builds map[string]string // by prober
	down   map[string]bool   // checks whose target is down
	// broken is what a prober of build 2 says of a check that is up, or down.
	broken func(check int, up bool) meshv1.Result_Outcome
	// since is when an outage began, opened when it was opened, by check.
	since, opened map[string]time.Time
}

var fiveDatacenters = []string{"ams", "fra", "iad", "nrt", "syd"}

func newBuildRig(t *testing.T, each int, datacenters ...string) *buildRig {
	r := &buildRig{rig: newRig(t), builds: map[string]string{}, down: map[string]bool{}, since: map[string]time.Time{}, opened: map[string]time.Time{}}
	r.trying = true
	r.broken = func(int, bool) meshv1.Result_Outcome { return fail }
	r.apply(ReceiverPut{Receiver: &meshv1.Receiver{Name: "receivers/mesh", MeshIncidents: true}})
	for _, d := range datacenters {
		for i := range each {
			r.run(fmt.Sprintf("%s-%d", d, i+1), "1.0")
		}
	}
	r.after(5 * time.Second)
	for i := range 20 {
		c := tcpCheck(fmt.Sprint("c", i), int32(len(datacenters)/2+1))
		c.Uri, c.Probers, c.AlertOnDegraded = fmt.Sprintf("tcp://host%d.example.com:80", i), int32(len(datacenters)), true
		r.check(c)
	}
	r.after(2 * time.Second)
	r.rounds(5)
	r.owed = nil
	return r
}

// run starts a prober with a build, or starts it anew with another one.
func (r *buildRig) run(name, build string) {
	r.builds[name] = build
	d, _, _ := strings.Cut(name, "-")
	r.apply(EnrolmentPut{&statev1.Enrolment{Name: "probers/" + name, Datacenter: d, Build: build, Capabilities: []string{"tcp", "ipv4"}}}, ProberOnline{Name: name, Server: "servers/a"})
}

// rounds are so many intervals of a minute, in which every prober runs what it is assigned, each at its own time, and what it is asked for at once.
func (r *buildRig) rounds(n int) {
	for range n {
		for slot := range 20 {
			var names []string
			for p := range r.builds {
				names = append(names, p)
			}
			slices.Sort(names)
			for k, p := range names {
				for i := range 20 {
					if (i+k)%20 == slot {
						r.probe(p, fmt.Sprint("c", i))
					}
				}
			}
			r.answer()
			r.after(3 * time.Second)
			r.answer()
		}
	}
}

// answer has probers do what they were asked for.
func (r *buildRig) answer() {
	for len(r.asked) > 0 {
		a := r.asked[0]
		r.asked = r.asked[1:]
		r.probe(a.Prober, strings.TrimPrefix(a.Run.GetCheck(), "checks/"))
	}
}

func (r *buildRig) probe(prober, check string) {
	if r.s.Assignments(prober)["checks/"+check] == nil {
		return
	}
	var i int
	fmt.Sscanf(check, "c%d", &i)
	out := ok
	if r.down[check] {
		out = fail
	}
	if r.builds[prober] == "2.0" {
		out = r.broken(i, !r.down[check])
	}
	r.vote(check, prober, out)
	if c := r.s.checks["checks/"+check]; c.incident != nil && r.opened[check].IsZero() {
		r.opened[check] = r.now
	}
}

func (r *buildRig) stage(build string) string {
	b, ok := r.s.Build(BuildName(build))
	if !ok {
		return "NOT KNOWN"
	}
	return b.GetStage().String()
}

// outage has a target fail until its incident is open, and gives how long that took.
func (r *buildRig) outage(check string) time.Duration {
	r.t.Helper()
	r.down[check] = true
	began := r.now
	delete(r.opened, check)
	for range 3 {
		r.rounds(1)
		if !r.opened[check].IsZero() {
			r.down[check] = false
			return r.opened[check].Sub(began)
		}
	}
	r.t.Fatalf("%s is down and not opened: %s", check, r.verdict(check))
	return 0
}

// users are the notifications owed that are about checks, mesh those that are not.
func (r *buildRig) users() (users, mesh []string) {
	for _, o := range r.owed {
		if strings.Contains(o, "checks/") {
			users = append(users, o)
		} else {
			mesh = append(mesh, o)
		}
	}
	return users, mesh
}

// maxBuildDissents is what the package rollout promises.
const maxBuildDissents = 9

func TestBrokenBuildOnSomeProbersIsHaltedAndPagesNobody(t *testing.T) {
	upgrades := map[string][]string{
		"1 of 10":        {"fra-1"},
		"2 of 10":        {"fra-1", "nrt-2"},
		"5 of 10":        {"ams-1", "fra-2", "iad-1", "nrt-2", "syd-1"},
		"one datacenter": {"iad-1", "iad-2"},
	}
	faults := map[string]func(int, bool) meshv1.Result_Outcome{
		"all down": func(int, bool) meshv1.Result_Outcome { return fail },
		"a quarter down": func(i int, up bool) meshv1.Result_Outcome {
			if i%4 == 0 || !up {
				return fail
			}
			return ok
		},
	}
	for where, probers := range upgrades {
		for what, fault := range faults {
			t.Run(where+", "+what, func(t *testing.T) {
				r := newBuildRig(t, 2, fiveDatacenters...)
				r.broken = fault
				for _, p := range probers {
					r.run(p, "2.0")
				}
				if r.stage("2.0") != "SHADOW" {
					t.Fatalf("a new build begins as %s", r.stage("2.0"))
				}
				// A real outage meanwhile: of a target that the fault does not touch, since the other way it would be hidden from nobody.
				took := r.outage("c5")
				r.rounds(5)
				b, _ := r.s.Build(BuildName("2.0"))
				if b.GetStage() != meshv1.Build_HALTED || b.GetDissents() > maxBuildDissents {
					t.Fatalf("after %d disagreements: %v", b.GetDissents(), b)
				}
				users, mesh := r.users()
				if fmt.Sprint(users) != "[OPENED checks/c5 RESOLVED checks/c5]" || len(mesh) != 1 {
					t.Errorf("owed to users %q, to operators %q", users, mesh)
				}
				if took > 90*time.Second {
					t.Errorf("the outage was opened after %s", took)
				}
				t.Logf("halted by disagreement %d, in %d comparisons; the outage was opened after %s; %s", b.GetDissents(), b.GetComparisons(), took, b.GetReason())
				// And afterwards.
				if took := r.outage("c6"); took > 90*time.Second {
					t.Errorf("afterwards an outage was opened after %s", took)
				}
				if i := r.s.Incident(haltedKey("2.0")).GetIncident(); i.GetReason() != meshv1.CheckStatus_BUILD_HALTED || len(i.GetSetAside().GetProbers()) != len(probers) || len(i.GetAffectedChecks()) == 0 {
					t.Errorf("the incident says %v", i)
				}
			})
		}
	}
}

func TestBuildThatSeesEverythingAnswerHidesNoOutage(t *testing.T) {
	r := newBuildRig(t, 2, fiveDatacenters...)
	r.broken = func(int, bool) meshv1.Result_Outcome { return ok }
	for _, p := range []string{"ams-1", "fra-2", "iad-1", "nrt-2", "syd-1"} {
		r.run(p, "2.0")
	}
	r.rounds(1)
	for i := range 4 {
		if took := r.outage(fmt.Sprint("c", i)); took > 90*time.Second {
			t.Errorf("outage %d was opened after %s", i, took)
		}
		r.down[fmt.Sprint("c", i)] = true
		r.rounds(3)
	}
	if r.stage("2.0") != "HALTED" {
		b, _ := r.s.Build(BuildName("2.0"))
		t.Errorf("%v", b)
	}
}

func TestGoodBuildGoesFromTheShadowToSettled(t *testing.T) {
	r := newBuildRig(t, 2, fiveDatacenters...)
	r.broken = func(_ int, up bool) meshv1.Result_Outcome {
		if up {
			return ok
		}
		return fail
	}
	for _, p := range []string{"ams-1", "fra-2", "iad-1"} {
		r.run(p, "2.0")
	}
	var stages []string
	for range 40 {
		if g := r.stage("2.0"); len(stages) == 0 || stages[len(stages)-1] != g {
			stages = append(stages, g)
		}
		if b, _ := r.s.Build(BuildName("2.0")); b.GetStage() == meshv1.Build_CANARY && len(b.GetCanaries()) != 2 {
			t.Fatalf("%d of 10 probers are canaries", len(b.GetCanaries()))
		}
		r.rounds(1)
		for i := range 20 {
			r.want(fmt.Sprint("c", i), "UP QUORUM_UP")
		}
	}
	if fmt.Sprint(stages) != "[SHADOW CANARY SETTLED]" {
		t.Errorf("stages %v", stages)
	}
	if len(r.owed) != 0 {
		t.Errorf("owed %v", r.owed)
	}
	b, _ := r.s.Build(BuildName("2.0"))
	t.Log(b.GetReason())
}

func TestFaultThatShowsOnlyInCanariesIsHaltedToo(t *testing.T) {
	r := newBuildRig(t, 2, fiveDatacenters...)
	bad := false
	r.broken = func(int, bool) meshv1.Result_Outcome {
		if bad {
			return fail
		}
		return ok
	}
	for _, p := range []string{"ams-1", "fra-2", "iad-1", "nrt-1", "syd-2"} {
		r.run(p, "2.0")
	}
	r.rounds(15)
	if r.stage("2.0") != "CANARY" {
		t.Fatal(r.stage("2.0"))
	}
	bad = true
	r.rounds(3)
	users, mesh := r.users()
	if r.stage("2.0") != "HALTED" || len(users) != 0 || len(mesh) != 1 {
		t.Errorf("%s, users %q, operators %q", r.stage("2.0"), users, mesh)
	}
}

func TestUpgradeOfSingleProbersNeitherPagesNorBlinds(t *testing.T) {
	for n := 1; n <= 2; n++ {
		t.Run(fmt.Sprint(n, " of 3, good"), func(t *testing.T) {
			r := newBuildRig(t, 1, "ams", "fra", "iad")
			r.broken = func(_ int, up bool) meshv1.Result_Outcome {
				if up {
					return ok
				}
				return fail
			}
			for _, d := range []string{"ams", "fra"}[:n] {
				r.run(d+"-1", "2.0")
			}
			for range 5 {
				r.rounds(1)
				for i := range 20 {
					r.want(fmt.Sprint("c", i), "UP QUORUM_UP")
				}
			}
			if took := r.outage("c3"); took > 90*time.Second {
				t.Errorf("opened after %s", took)
			}
			r.rounds(5)
			if users, _ := r.users(); fmt.Sprint(users) != "[OPENED checks/c3 RESOLVED checks/c3]" {
				t.Errorf("owed %q", r.owed)
			}
		})
		t.Run(fmt.Sprint(n, " of 3, broken"), func(t *testing.T) {
			r := newBuildRig(t, 1, "ams", "fra", "iad")
			for _, d := range []string{"ams", "fra"}[:n] {
				r.run(d+"-1", "2.0")
			}
			r.rounds(10)
			if users, _ := r.users(); len(users) != 0 || r.stage("2.0") != "HALTED" {
				t.Errorf("owed %q, build %s", r.owed, r.stage("2.0"))
			}
			// With a quorum left, outages are opened; without, it is said that nothing is known.
			if n == 1 {
				if took := r.outage("c3"); took > 90*time.Second {
					t.Errorf("opened after %s", took)
				}
				return
			}
			if v := r.verdict("c3"); !strings.HasPrefix(v, "UNKNOWN") {
				t.Errorf("%s although two of three probers are not believed", v)
			}
			// Who goes back to the settled build counts at once, and the incident ends.
			r.run("ams-1", "1.0")
			r.run("fra-1", "1.0")
			r.rounds(3)
			r.want("c3", "UP QUORUM_UP")
			if users, _ := r.users(); len(users) != 0 {
				t.Errorf("what the broken build said counts as the word of the settled one: %q", users)
			}
			if r.s.Incident(haltedKey("2.0")) != nil {
				t.Error("the incident about a build that nobody runs goes on")
			}
		})
	}
}

func TestWholeMeshUpgradedAtOnceIsSettledAfterAMinute(t *testing.T) {
	r := newBuildRig(t, 1, "ams", "fra", "iad")
	r.broken = func(_ int, up bool) meshv1.Result_Outcome {
		if up {
			return ok
		}
		return fail
	}
	for _, d := range []string{"ams", "fra", "iad"} {
		r.run(d+"-1", "2.0")
	}
	r.after(5 * time.Second)
	r.want("c0", "UP QUORUM_UP")
	r.after(25 * time.Second)
	if b, _ := r.s.Build(BuildName("2.0")); b.GetStage() != meshv1.Build_SHADOW || !strings.Contains(b.GetWaitsFor(), "no prober runs a settled build any more") {
		t.Errorf("%v", b)
	}
	r.after(40 * time.Second)
	if b, _ := r.s.Build(BuildName("2.0")); b.GetStage() != meshv1.Build_SETTLED || !strings.Contains(b.GetReason(), "nothing left to compare it with") {
		t.Errorf("%v", b)
	}
	r.rounds(2)
	if took := r.outage("c3"); took > 90*time.Second {
		t.Errorf("opened after %s", took)
	}
}

func TestNextLeaderKnowsHowFarBuildsAreTrusted(t *testing.T) {
	r := newBuildRig(t, 2, fiveDatacenters...)
	r.run("fra-1", "2.0")
	r.rounds(3)
	if r.stage("2.0") != "HALTED" {
		t.Fatal(r.stage("2.0"))
	}
	owed := len(r.owed)
	r.apply(Leadership{Term: 1})
	r.apply(Leadership{Leading: true, Term: 2})
	r.rounds(3)
	if r.stage("2.0") != "HALTED" || len(r.owed) != owed {
		t.Errorf("%s, owed %v", r.stage("2.0"), r.owed)
	}
	// A mind that begins with what is stored counts its votes no more than the old one.
	b, _ := r.s.Build(BuildName("2.0"))
	fresh := New(Config{})
	fresh.Apply(r.now, BuildPut{Build: b}, BuildPut{Build: &meshv1.Build{Name: "builds/1.0", Build: "1.0", Stage: meshv1.Build_SETTLED}},
		EnrolmentPut{&statev1.Enrolment{Name: "probers/fra-1", Datacenter: "fra", Build: "2.0"}}, ProberOnline{Name: "fra-1", Server: "servers/a"})
	if p, _ := fresh.Prober("fra-1"); p.GetState() != meshv1.Prober_QUARANTINED || p.GetSetAside() != "build=2.0" {
		t.Errorf("%v", p)
	}
}

func TestOperatorsHaveTheLastWord(t *testing.T) {
	r := newBuildRig(t, 2, fiveDatacenters...)
	r.run("fra-1", "2.0")
	r.rounds(3)
	b, _ := r.s.Build(BuildName("2.0"))
	r.broken = func(int, bool) meshv1.Result_Outcome { return ok }
	b.Stage, b.By, b.Reason, b.StageTime = meshv1.Build_SETTLED, "ann", "the targets were wrong", timestamppb.New(r.now)
	r.rev++
	r.apply(BuildPut{Build: b, ModRevision: r.rev})
	r.after(2 * time.Second)
	if r.s.Incident(haltedKey("2.0")) != nil {
		t.Error("the incident goes on")
	}
	if p, _ := r.s.Prober("fra-1"); p.GetState() != meshv1.Prober_ONLINE || p.GetBuildStage() != meshv1.Build_SETTLED {
		t.Errorf("%v", p)
	}
	// A halt by hand needs no incident: who did it knows.
	b, _ = r.s.Build(BuildName("2.0"))
	b.Stage, b.By = meshv1.Build_HALTED, "ann"
	r.owed = nil
	r.rev++
	r.apply(BuildPut{Build: b, ModRevision: r.rev})
	r.rounds(2)
	if len(r.owed) != 0 {
		t.Errorf("owed %v", r.owed)
	}
	// With a policy that leaves it to people, a good build waits.
	r.broken = func(int, bool) meshv1.Result_Outcome { return ok }
	r.apply(BuildPolicyPut{Policy: &meshv1.BuildPolicy{Manual: true, ShadowTime: durationpb.New(time.Second)}})
	r.builds["syd-1"] = "3.0"
	r.run("syd-1", "3.0")
	r.rounds(20)
	if b, _ := r.s.Build(BuildName("3.0")); b.GetStage() != meshv1.Build_SHADOW || !strings.Contains(b.GetWaitsFor(), "operator") {
		t.Errorf("%v", b)
	}
}

func TestVotesOfABuildOnTrialSayWhyTheyDoNotCount(t *testing.T) {
	r := newBuildRig(t, 2, fiveDatacenters...)
	r.broken = func(int, bool) meshv1.Result_Outcome { return ok }
	r.run("fra-1", "2.0")
	r.rounds(2)
	seen := 0
	for i := range 20 {
		name := fmt.Sprint("checks/c", i)
		st, _ := r.s.Status(name, r.now, true)
		for _, v := range st.GetVotes() {
			if (v.GetProber() == "probers/fra-1") != (v.GetOnTrial() != "") {
				t.Fatalf("%v", v)
			}
			if v.GetOnTrial() == "" {
				continue
			}
			seen++
			e, _ := r.s.Explain(name, r.now)
			if v.GetFresh() || !strings.Contains(e.GetText(), "build 2.0 is on trial: compared, does not count") || !strings.Contains(e.GetText(), "beside rank") {
				t.Fatalf("%v\n%s", v, e.GetText())
			}
		}
	}
	if seen == 0 {
		t.Fatal("it runs no check")
	}
}

func TestNoBuildOnTrialOpensAnythingAlone(t *testing.T) {
	now := epoch
	vote := func(d string, g verdict.Trial, o verdict.Outcome) verdict.Vote {
		return verdict.Vote{Prober: d, Datacenter: d, Outcome: o, Start: now, Since: now.Add(-time.Hour), Streak: 9, Trial: g, Domains: map[string]string{"build": map[verdict.Trial]string{0: "1", 1: "2", 2: "2"}[g]}}
	}
	for _, c := range []struct {
		quorum int
		votes  []verdict.Vote
		want   string
	}{
		{1, []verdict.Vote{vote("a", verdict.Canary, verdict.Fail)}, "UNKNOWN BUILD_ON_TRIAL"},
		{2, []verdict.Vote{vote("a", verdict.Shadow, verdict.Fail), vote("b", verdict.Shadow, verdict.Fail), vote("c", 0, verdict.OK)}, "UNKNOWN BUILD_ON_TRIAL"},
		{2, []verdict.Vote{vote("a", verdict.Shadow, verdict.Fail), vote("b", verdict.Shadow, verdict.Fail), vote("c", 0, verdict.Fail)}, "DOWN QUORUM_DOWN"},
		{3, []verdict.Vote{vote("a", verdict.Shadow, verdict.Fail), vote("b", verdict.Shadow, verdict.Fail), vote("c", 0, verdict.Fail)}, "UNKNOWN STALE_VOTES"},
		{2, []verdict.Vote{vote("a", verdict.Shadow, verdict.OK), vote("b", verdict.Shadow, verdict.OK), vote("c", 0, verdict.OK)}, "UP QUORUM_UP"},
		{2, []verdict.Vote{vote("a", verdict.Canary, verdict.Fail), vote("b", 0, verdict.OK), vote("c", 0, verdict.OK)}, "UP QUORUM_UP"},
		{2, []verdict.Vote{vote("a", verdict.Canary, verdict.Fail), vote("b", 0, verdict.Fail), vote("c", 0, verdict.OK)}, "DOWN QUORUM_DOWN"},
		{2, []verdict.Vote{vote("a", verdict.Shadow, verdict.Fail), vote("b", 0, verdict.Fail), vote("c", 0, verdict.OK)}, "DEGRADED MINORITY_DOWN"},
		{2, []verdict.Vote{vote("a", verdict.Canary, verdict.OK), vote("b", 0, verdict.Fail), vote("c", 0, verdict.Fail)}, "DOWN QUORUM_DOWN"},
	} {
		tally := verdict.Fold(verdict.Policy{Quorum: c.quorum, Fresh: time.Minute, Distinct: []string{"build"}}, c.votes, now)
		if got := tally.Verdict.String() + " " + tally.Reason.String(); got != c.want {
			t.Errorf("quorum %d, %v: %s, want %s", c.quorum, c.votes, got, c.want)
		}
	}
}
