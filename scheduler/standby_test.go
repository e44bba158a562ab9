package scheduler

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// shadow is a rig whose events a standby is told as well; what the leader does comes to it by the store, as everything else does.
func shadow(t *testing.T) (leader, standby *rig) {
	leader = newRig(t)
	standby = &rig{t: t, s: New(Config{Crowd: 5}), now: leader.now, silent: map[string]bool{}}
	standby.apply()
	return leader, standby
}

// tell applies events at both, and to the standby what the leader's effects put into the store.
func tell(leader, standby *rig, events ...Event) {
	before := len(leader.acted)
	leader.apply(events...)
	standby.now = leader.now
	for _, a := range leader.acted[before:] {
		switch a := a.(type) {
		case MoveRows:
			events = append(events, TablePut{Table: a.Table, ModRevision: leader.rev})
		case Open:
			events = append(events, IncidentPut{Key: a.Key, Incident: a.Incident, ModRevision: leader.rev})
		case Escalate:
			events = append(events, IncidentPut{Key: a.Key, Incident: a.Incident, ModRevision: leader.rev})
		case Resolve:
			events = append(events, IncidentGone{Key: a.Key})
		}
	}
	standby.apply(events...)
}

func pass(leader, standby *rig, d time.Duration) {
	for end := leader.now.Add(d); leader.now.Before(end); {
		leader.now = leader.now.Add(100 * time.Millisecond)
		tell(leader, standby)
	}
}

func result(r *rig, check string, outcome meshv1.Result_Outcome) *meshv1.Result {
	return &meshv1.Result{Check: "checks/" + check, StartTime: timestamppb.New(r.now), Outcome: outcome, CheckRevision: r.s.checks["checks/"+check].workHash}
}

// wantAlike holds the standby's state against the leader's, damping and what is being asked included.
func wantAlike(t *testing.T, leader, standby *rig) {
	t.Helper()
	for _, name := range leader.s.Names() {
		l, _ := leader.s.Status(name, leader.now, true)
		s, ok := standby.s.Status(name, leader.now, true)
		if !ok {
			t.Fatalf("the standby does not know %s", name)
		}
		a, errA := protojson.Marshal(l)
		b, errB := protojson.Marshal(s)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if string(a) != string(b) {
			t.Fatalf("of %s the leader says\n%s\nthe standby\n%s", name, a, b)
		}
		x, y := leader.s.checks[name], standby.s.checks[name]
		if x.damping.At(leader.now) != y.damping.At(leader.now) || x.repeated != y.repeated || !x.roundAt.Equal(y.roundAt) {
			t.Fatalf("of %s the leader has damping %v, repeated %v, round at %v; the standby %v, %v, %v", name, x.damping.At(leader.now), x.repeated, x.roundAt,
				y.damping.At(leader.now), y.repeated, y.roundAt)
		}
	}
}

// An outage, a recovery, a flapping check: at every step a standby holds for true what the leader does.
func TestStandbyHoldsForTrueWhatTheLeaderDoes(t *testing.T) {
	leader, standby := shadow(t)
	for _, d := range []string{"ams", "fra", "iad"} {
		tell(leader, standby, leader.prober(d+"-1", d), ProberOnline{Name: d + "-1", Server: "servers/a", Since: leader.now})
	}
	pass(leader, standby, 2*time.Second)
	leader.rev++
	tell(leader, standby, CheckPut{Check: tcpCheck("shop", 2), ModRevision: leader.rev})
	opened := 0
	for round := range 40 {
		outcome := meshv1.Result_OK
		if round%8 >= 4 {
			outcome = meshv1.Result_FAIL
		}
		for _, p := range []string{"ams-1", "fra-1", "iad-1"} {
			tell(leader, standby, Cast{Prober: p, Result: result(leader, "shop", outcome)})
			wantAlike(t, leader, standby)
			pass(leader, standby, 7*time.Second)
			wantAlike(t, leader, standby)
		}
	}
	for _, o := range leader.owed {
		if o == "OPENED checks/shop" {
			opened++
		}
	}
	if opened < 3 || len(standby.owed) != 0 || len(standby.asked) != 0 {
		t.Errorf("the leader opened %d times; the standby owes %v and asked %d times", opened, standby.owed, len(standby.asked))
	}
}

func TestStandbyThatTakesOverIsWarmAndOpensInTheSameApply(t *testing.T) {
	leader, standby := shadow(t)
	for _, d := range []string{"ams", "fra", "iad"} {
		tell(leader, standby, leader.prober(d+"-1", d), ProberOnline{Name: d + "-1", Server: "servers/a"})
	}
	pass(leader, standby, 2*time.Second)
	for i := range 3 {
		leader.rev++
		tell(leader, standby, CheckPut{Check: tcpCheck(fmt.Sprint("c", i), 2), ModRevision: leader.rev})
		for _, p := range []string{"ams-1", "fra-1", "iad-1"} {
			tell(leader, standby, Cast{Prober: p, Result: result(leader, fmt.Sprint("c", i), meshv1.Result_OK)})
		}
	}
	pass(leader, standby, 10*time.Second)
	// The leader is dead from here on.
	standby.now = standby.now.Add(time.Second)
	for _, p := range []string{"ams-1", "fra-1"} {
		standby.apply(Cast{Prober: p, Result: result(standby, "c1", meshv1.Result_FAIL)})
		standby.apply(Cast{Prober: "iad-1", Result: result(standby, "c2", meshv1.Result_FAIL)})
	}
	if len(standby.owed) != 0 {
		t.Fatalf("a standby owes %v", standby.owed)
	}
	// The third, which was asked, does not answer.
	standby.now = standby.now.Add(patience)
	standby.apply(Leadership{Leading: true, Term: 2})
	standby.wantOwed("OPENED checks/c1")
	asked := map[string]bool{}
	for _, a := range standby.asked {
		asked[a.Run.GetCheck()+" "+a.Prober] = true
	}
	if !asked["checks/c2 ams-1"] || !asked["checks/c2 fra-1"] {
		t.Errorf("of c2, which one prober saw fail, it asked %v", asked)
	}
}

// The old leader asked, or nobody did, and that is overdue: whoever leads next asks anew, with a full budget.
func TestNewLeaderAsksAnewWhatNobodyAnswered(t *testing.T) {
	r := newRig(t)
	r.apply(Leadership{Term: 1})
	r.probers("ams", "fra", "iad")
	// Tables come from the leader; a standby needs some to place checks by.
	r.apply(Leadership{Leading: true, Term: 1})
	r.after(2 * time.Second)
	r.check(tcpCheck("shop", 2))
	r.votes("shop", meshv1.Result_OK, "ams", "fra", "iad")
	r.apply(Leadership{Term: 1})
	r.asked = nil
	r.votes("shop", meshv1.Result_FAIL, "ams")
	r.after(40 * time.Second) // runs are overdue after 12 s
	if len(r.asked) != 0 {
		t.Fatalf("a standby asked %v", r.asked)
	}
	r.apply(Leadership{Leading: true, Term: 2})
	if len(r.asked) < 2 {
		t.Fatalf("the new leader asked %v", r.asked)
	}
}

func TestNewLeaderGivesNoRowsToAProberThatIsKnownToBeGone(t *testing.T) {
	for _, unheard := range []bool{false, true} {
		r := newRig(t)
		r.apply(r.prober("fra-1", "fra"), r.prober("fra-2", "fra"), ProberOnline{Name: "fra-1"}, ProberOnline{Name: "fra-2"})
		r.after(2 * time.Second)
		r.apply(ProberOffline{Name: "fra-2", Unheard: unheard})
		r.after(2 * time.Minute)
		r.apply(Leadership{Term: 1})
		r.acted = nil
		r.apply(Leadership{Leading: true, Term: 2})
		r.after(30 * time.Second)
		moved := false
		for _, a := range r.acted {
			_, m := a.(MoveRows)
			moved = moved || m
		}
		if moved != unheard {
			t.Errorf("unheard %v: rows moved: %v", unheard, moved)
		}
	}
}

func TestVoteThatComesBeforeItsCheckCountsWhenTheCheckIsKnown(t *testing.T) {
	r := newRig(t)
	r.probers("ams", "fra", "iad")
	other := newRig(t)
	other.probers("ams", "fra", "iad")
	c := tcpCheck("shop", 2)
	other.check(c)
	early := func(r *rig, outcome meshv1.Result_Outcome, probers ...string) {
		for _, p := range probers {
			res := result(other, "shop", outcome)
			res.StartTime = timestamppb.New(r.now)
			r.apply(Cast{Prober: p, Result: res})
		}
	}
	early(r, meshv1.Result_OK, "ams-1", "fra-1", "iad-1")
	r.after(3 * time.Second)
	r.check(c)
	r.want("shop", "UP QUORUM_UP")
	if r.s.early.n != 0 || len(r.s.early.byCheck) != 0 {
		t.Errorf("%d results are kept on", r.s.early.n)
	}

	// An edit that probes something else: votes for it may come before it does, those for what was before do not count for it.
	edited := tcpCheck("shop", 2)
	edited.Uri = "tcp://elsewhere.example.com:80"
	other.check(edited)
	early(r, meshv1.Result_FAIL, "ams-1", "fra-1", "iad-1")
	r.want("shop", "UP QUORUM_UP")
	r.check(edited)
	if v := r.verdict("shop"); v != "DOWN QUORUM_DOWN" {
		t.Errorf("after the edit: %s", v)
	}

	// What waits for too long is forgotten, and there is a bound.
	early(r, meshv1.Result_OK, "nobody")
	for i := range earlyMax + 10 {
		r.s.Apply(r.now, Cast{Prober: fmt.Sprint("p", i), Result: &meshv1.Result{Check: fmt.Sprint("checks/x", i%100), StartTime: timestamppb.New(r.now), Outcome: meshv1.Result_OK}})
	}
	if r.s.early.n != earlyMax {
		t.Errorf("%d results wait", r.s.early.n)
	}
	r.after(12 * time.Second)
	if r.s.early.n != 0 || len(r.s.early.byCheck) != 0 {
		t.Errorf("%d results are kept for ever", r.s.early.n)
	}
}
