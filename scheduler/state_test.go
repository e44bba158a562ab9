package scheduler

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	ok   = meshv1.Result_OK
	fail = meshv1.Result_FAIL
)

// up is a mesh of three datacenters in which the check is UP.
func up(t *testing.T, c *meshv1.Check) *rig {
	r := newRig(t)
	r.probers("ams", "fra", "iad")
	r.check(c)
	r.votes("shop", ok, "ams", "fra", "iad")
	r.want("shop", "UP QUORUM_UP")
	r.after(10 * time.Second)
	r.acted, r.asked = nil, nil
	return r
}

func TestTotalOutageOpensOneIncidentAndResolvesIt(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "ams", "fra", "iad")
	r.want("shop", "DOWN QUORUM_DOWN")
	r.wantOwed("OPENED checks/shop")
	r.after(20 * time.Second)
	r.votes("shop", ok, "ams", "fra", "iad")
	r.want("shop", "DOWN RECOVERING")
	r.after(11 * time.Second)
	r.votes("shop", ok, "ams", "fra")
	r.want("shop", "UP QUORUM_UP")
	r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop")
}

func TestFirstBadVoteAsksTheOthersBeforeItIsShown(t *testing.T) {
	c := tcpCheck("shop", 2)
	c.AlertOnDegraded = true
	r := up(t, c)
	r.votes("shop", fail, "fra")
	r.want("shop", "UP CONFIRMING")
	if len(r.asked) != 3 {
		t.Fatalf("%d runs asked for, want the two others and the witness: %v", len(r.asked), r.asked)
	}
	r.wantOwed()
	r.votes("shop", ok, "ams", "iad")
	r.votes("shop", fail, "fra")
	r.want("shop", "DEGRADED MINORITY_DOWN")
	r.wantOwed("OPENED checks/shop")
}

func TestConfirmationThatIsNeverAnsweredSettles(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "fra")
	asked := len(r.asked)
	r.after(13 * time.Second)
	if len(r.asked) <= asked {
		t.Fatal("a run that was never answered was not repeated")
	}
	r.after(time.Minute - 14*time.Second)
	r.want("shop", "DEGRADED MINORITY_DOWN")
	r.wantOwed()
}

func TestRefusedConfirmationSettlesAtOnce(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "fra")
	for _, a := range r.asked {
		r.apply(RunRefused{Prober: a.Prober, RunID: a.Run.GetRunId()})
	}
	r.want("shop", "DEGRADED MINORITY_DOWN")
}

func TestQuorumOfOneNeedsTwoProbes(t *testing.T) {
	r := newRig(t)
	r.probers("fra")
	r.check(tcpCheck("shop", 1))
	r.votes("shop", ok, "fra")
	first := len(r.asked) // a new check asks for its first vote
	r.votes("shop", fail, "fra")
	r.want("shop", "UP CONFIRMING")
	if n := len(r.asked) - first; n != 1 {
		t.Fatalf("%d runs to confirm, want one", n)
	}
	r.votes("shop", fail, "fra")
	r.want("shop", "DOWN QUORUM_DOWN")
	r.votes("shop", ok, "fra")
	r.want("shop", "DOWN RECOVERING")
	asked := len(r.asked)
	r.after(11 * time.Second)
	if len(r.asked) != asked+1 {
		t.Fatalf("%d runs for the second round, want one", len(r.asked)-asked)
	}
	r.votes("shop", ok, "fra")
	r.want("shop", "UP QUORUM_UP")
	r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop")
}

func TestSecondRoundOfARecoveryIsAskedAgainWhenItGetsLost(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "ams", "fra", "iad")
	r.votes("shop", ok, "ams", "fra", "iad")
	asked := len(r.asked)
	r.after(40 * time.Second)
	if again := len(r.asked) - asked; again < 6 {
		t.Fatalf("%d runs asked for while both rounds got lost, want two rounds of three", again)
	}
}

func TestDeletingADownCheckClosesItsIncident(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "ams", "fra", "iad")
	r.apply(CheckGone{"checks/shop"})
	r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop")
	if _, ok := r.s.Status("checks/shop", r.now, true); ok || len(r.s.checks) != 0 || len(r.s.due) != 0 || len(r.s.unknown) != 0 {
		t.Fatalf("something of the check is left: %d checks, %d due", len(r.s.checks), len(r.s.due))
	}
}

func TestLostResolveOfADeletedCheckIsWishedForAgain(t *testing.T) {
	for _, end := range []string{"deleted", "paused"} {
		r := up(t, tcpCheck("shop", 2))
		r.votes("shop", fail, "ams", "fra", "iad")
		r.held = true
		if end == "deleted" {
			r.apply(CheckGone{"checks/shop"})
		} else {
			c := tcpCheck("shop", 2)
			c.Paused = true
			r.check(c)
		}
		r.wantOwed("OPENED checks/shop")
		r.held = false
		r.after(6 * time.Second)
		r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop")
	}
}

func TestPausingADownCheckClosesItsIncidentAndFreesItsProbers(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "ams", "fra", "iad")
	c := tcpCheck("shop", 2)
	c.Paused = true
	r.check(c)
	r.want("shop", "PAUSED CHECK_PAUSED")
	r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop")
	if n := len(r.s.Assignments("fra-1")); n != 0 {
		t.Fatalf("a paused check is still assigned %d times", n)
	}
	r.check(tcpCheck("shop", 2))
	r.want("shop", "UNKNOWN NO_VOTES")
	r.votes("shop", ok, "ams", "fra", "iad")
	r.want("shop", "UP QUORUM_UP")
}

func TestEditThatDoesNotChangeTheProbeKeepsTheVotes(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	c := tcpCheck("shop", 3)
	c.AlertOnDegraded, c.Labels, c.Distinct = true, map[string]string{"team": "a"}, []string{"provider"}
	c.Datacenters = []string{"ams", "fra", "iad"}
	r.check(c)
	r.want("shop", "UP QUORUM_UP")
}

func TestEditOfTheTargetWhileDownShowsUnknownAndKeepsTheIncident(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "ams", "fra", "iad")
	c := tcpCheck("shop", 2)
	c.Uri = "tcp://other.example.com:80"
	r.check(c)
	r.want("shop", "UNKNOWN NO_VOTES")
	r.wantOwed("OPENED checks/shop")
	r.votes("shop", ok, "ams", "fra", "iad")
	r.want("shop", "DOWN RECOVERING")
	r.after(11 * time.Second)
	r.votes("shop", ok, "ams", "fra", "iad")
	r.want("shop", "UP QUORUM_UP")
	r.wantOwed("OPENED checks/shop", "RESOLVED checks/shop")
}

// snapshot is a Reset and everything the store has, checks before probers, as the store happens to list them.
func (r *rig) snapshot() {
	events := []Event{Reset{}}
	for _, n := range r.s.Names() {
		c := r.s.checks[n]
		events = append(events, CheckPut{proto.CloneOf(c.spec), c.revision})
		if c.incident != nil {
			events = append(events, IncidentPut{n, c.incident, c.incidentRev})
		}
	}
	for _, p := range r.s.Probers() {
		events = append(events, EnrolmentPut{proto.CloneOf(r.s.roster.probers[p].enrolled)})
	}
	for _, t := range r.s.roster.tables {
		events = append(events, TablePut{r.s.stored(t.Table), t.modRevision})
	}
	r.apply(events...)
}

func TestSnapshotKeepsVotesPresenceAndDamping(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", fail, "ams", "fra", "iad")
	damping := r.s.checks["checks/shop"].damping.At(r.now)
	r.acted = nil
	r.snapshot()
	r.want("shop", "DOWN QUORUM_DOWN")
	if got := r.s.checks["checks/shop"].damping.At(r.now); got != damping {
		t.Fatalf("the snapshot counted as a flap: penalty %g, was %g", got, damping)
	}
	for _, a := range r.acted {
		switch a.(type) {
		case Assign, Open, Resolve, MoveRows:
			t.Fatalf("a snapshot without a change led to %T", a)
		}
	}
}

func TestCheckMissingFromTheSnapshotIsGone(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.check(tcpCheck("blog", 2))
	r.s.checks["checks/blog"].gone = true
	r.snapshot()
	if got := fmt.Sprint(r.s.Names()); got != "[checks/shop]" {
		t.Fatalf("checks %s after the snapshot", got)
	}
	for _, p := range r.s.Probers() {
		if r.s.Assignments(p)["checks/blog"] != nil {
			t.Fatalf("%s still has the check that is gone", p)
		}
	}
}

func TestReenrolmentWithoutAChangePlacesNothingAnew(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.after(time.Minute)
	placed := r.s.placed
	r.apply(r.prober("fra-1", "fra"), ProberOffline{Name: "fra-1"}, ProberOnline{Name: "fra-1"})
	r.after(5 * time.Second)
	if r.s.placed != placed {
		t.Fatal("every check was placed anew although nothing changed")
	}
}

func TestResultWithoutAnOutcomeIsNoVote(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", meshv1.Result_OUTCOME_UNSPECIFIED, "ams", "fra", "iad")
	r.want("shop", "UP QUORUM_UP")
}

func TestFlappingTargetIsFewIncidents(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	for range 60 {
		r.votes("shop", fail, "ams", "fra", "iad")
		r.after(30 * time.Second)
		r.votes("shop", ok, "ams", "fra", "iad")
		r.after(12 * time.Second)
		r.votes("shop", ok, "ams", "fra", "iad")
		r.after(18 * time.Second)
	}
	if n := len(r.owed); n > 6 || n < 1 {
		t.Fatalf("an hour of flapping every minute led to %d notifications: %v", n, r.owed)
	}
}

func TestSameEventsGiveTheSameActions(t *testing.T) {
	run := func() []Action {
		r := newRig(t)
		r.probers("ams", "fra", "iad", "nrt")
		for i := range 40 {
			r.check(tcpCheck(fmt.Sprint("c", i), 2))
		}
		for i := range 40 {
			r.votes(fmt.Sprint("c", i), ok, r.placed(i)...)
		}
		r.probers("syd")
		for i := range 40 {
			r.votes(fmt.Sprint("c", i), fail, r.placed(i)...)
		}
		r.apply(Leadership{Leading: true, Term: 2})
		r.apply(EnrolmentGone{"probers/iad-1"})
		r.after(5 * time.Minute)
		return r.acted
	}
	a, b := run(), run()
	if len(a) != len(b) {
		t.Fatalf("%d actions, then %d", len(a), len(b))
	}
	for i := range a {
		if reflect.TypeOf(a[i]) != reflect.TypeOf(b[i]) || show(a[i]) != show(b[i]) {
			t.Fatalf("action %d: %s, then %s", i, show(a[i]), show(b[i]))
		}
	}
}

// placed are the datacenters that run check c<i>.
func (r *rig) placed(i int) (list []string) {
	for _, v := range r.s.checks[fmt.Sprint("checks/c", i)].votes {
		list = append(list, v.Datacenter)
	}
	return list
}

func show(a Action) string {
	switch a := a.(type) {
	case Open:
		return a.Key + a.Incident.GetIncident().GetName()
	case Resolve:
		return a.Key
	case Confirm:
		return a.Run.GetRunId()
	case MoveRows:
		return a.Table.GetDatacenter()
	case Assign:
		return a.Prober
	case StatusChanged:
		return a.Check + a.After.String()
	}
	return ""
}

func TestNewCheckIsProbedAtOnce(t *testing.T) {
	r := up(t, tcpCheck("shop", 2)) // its probers are in service before it comes
	r.check(tcpCheck("late", 2))
	asked := map[string]bool{}
	for _, a := range r.asked {
		if a.Run.GetCheck() == "checks/late" {
			asked[a.Prober] = true
			if a.Run.GetAssignment().GetCheck().GetUri() == "" {
				t.Errorf("%s was asked without the assignment, which it may not have been told of yet", a.Prober)
			}
		}
	}
	if len(asked) != 3 {
		t.Errorf("%d probers were asked for a first vote, want all three: %v", len(asked), asked)
	}
}

// A prober that fails alone, for whatever reason of its own, has seen nothing of an outage that begins later.
func TestAProberThatFailedAloneDoesNotDateTheOutage(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	for range 10 {
		r.votes("shop", fail, "fra")
		r.votes("shop", ok, "ams", "iad")
		r.after(time.Minute)
	}
	r.want("shop", "DEGRADED MINORITY_DOWN")
	begin := r.now
	r.votes("shop", fail, "fra", "ams", "iad")
	r.want("shop", "DOWN QUORUM_DOWN")
	r.wantBegun(begin)
}

func TestAnOutageBeginsWithTheFirstProbeThatSawIt(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	begin := r.now
	r.votes("shop", fail, "fra")
	r.after(5 * time.Second)
	r.votes("shop", fail, "ams", "iad")
	r.want("shop", "DOWN QUORUM_DOWN")
	r.wantBegun(begin)
}

// wantBegun looks at the incident that was opened, to 10 ms: votes are cast a millisecond apart.
func (r *rig) wantBegun(want time.Time) {
	r.t.Helper()
	for _, a := range r.acted {
		if o, ok := a.(Open); ok {
			if got := o.Incident.GetIncident().GetStartTime().AsTime(); got.Sub(want).Abs() > 10*time.Millisecond {
				r.t.Errorf("the incident began at %s, want %s", got, want)
			}
			return
		}
	}
	r.t.Error("no incident was opened")
}
