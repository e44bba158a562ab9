package scheduler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/credibility"
)

// What is due in the very call of Apply that explains what was held must neither be looked at for ever nor be lost.
func TestOpeningThatIsDueAsOthersAreExplainedIsHeldForTheNextTime(t *testing.T) {
	r, places := massRig(t, 8, func(int, *meshv1.Check) {})
	for i := range 6 {
		r.votes(fmt.Sprintf("c%04d", i), fail, places...) // no address is known of these any more
	}
	for end := r.now.Add(3 * time.Second); len(r.s.mass.held) == 0; r.after(10 * time.Millisecond) {
		if r.now.After(end) {
			t.Fatal("nothing is held")
		}
	}
	r.after(r.s.mass.until.Sub(r.now) - 1050*time.Millisecond)
	r.votes("c0006", fail, places[:3]...)
	r.after(900 * time.Millisecond)
	// The process stands still for a moment: c0006 has been patient for long enough, and the time of the others has come.
	r.now = r.now.Add(200 * time.Millisecond)
	r.apply()
	r.after(4 * time.Second)
	if n := r.written()["open"]; n != 7 {
		t.Fatalf("%d of 7 are told of; %v", n, r.written())
	}
}

// Checks that are paused while only blamed probers see them fail must not keep the blame, and with it others' silence, for ever.
func TestBlameEndsAlthoughItsChecksArePaused(t *testing.T) {
	r, places := massRig(t, 30, func(_ int, c *meshv1.Check) { c.Quorum = 2 })
	r.s.book = credibility.New(credibility.Config{Threshold: 1e9})
	for range 4 {
		r.everybody(fail, places[:2]...)
		r.everybody(ok, places[2:]...)
		r.after(4 * time.Second)
	}
	if len(r.s.mass.blames) != 1 {
		t.Fatalf("%d blames", len(r.s.mass.blames))
	}
	for i := range 10 {
		c := proto.CloneOf(r.s.checks[fmt.Sprintf("checks/c%04d", i)].spec)
		c.Paused = true
		r.check(c)
	}
	for range 5 {
		r.everybody(ok, places...)
		r.after(20 * time.Second)
	}
	if len(r.s.mass.blames) != 0 {
		t.Fatal("it is blamed for ever")
	}
}

// A group that could not be written before its checks answered again is not told of.
func TestGroupThatWasOverBeforeItCouldBeWrittenIsNotToldOf(t *testing.T) {
	r, places := massRig(t, 30, func(_ int, c *meshv1.Check) { c.Labels = map[string]string{"rack": "1"} })
	r.held = true
	r.everybody(fail, places...)
	r.after(4 * time.Second)
	if r.written()["open group"] == 0 {
		t.Fatal("no group was wished for")
	}
	r.apply(Store{Lost: true, Since: r.now})
	for range 4 {
		r.everybody(ok, places...)
		r.after(20 * time.Second)
	}
	r.held = false
	r.apply(Store{})
	r.after(time.Minute)
	r.wantOwed()
}

// Of members that are DEGRADED first and DOWN later nobody is told one by one: the group says so, once.
func TestGroupThatBecomesWorseIsToldOfAgain(t *testing.T) {
	r, places := massRig(t, 30, func(i int, c *meshv1.Check) {
		c.Uri, c.AlertOnDegraded = fmt.Sprint("tcp://db1.example.com:", 1000+i), true
	})
	r.s.book = credibility.New(credibility.Config{Threshold: 1e9})
	r.everybody(fail, places[:1]...)
	r.everybody(ok, places[1:]...)
	r.everybody(fail, places[:1]...)
	r.after(20 * time.Second)
	r.wantOwed("OPENED ")
	for range 3 {
		r.everybody(fail, places...)
		r.after(20 * time.Second)
	}
	r.wantOwed("OPENED ", "ESCALATED ")
	if g := r.openGroups()[0]; g.GetVerdict() != meshv1.CheckStatus_DOWN || !strings.Contains(g.GetSummary(), "are DOWN together") {
		t.Error(g.GetSummary())
	}
}

// While etcd is lost, nobody is told one by one that members of a group are well again, of which nobody was told that they were not.
func TestEndOfAGroupWithoutEtcdIsNoFloodOfMessages(t *testing.T) {
	r, places := massRig(t, 30, func(_ int, c *meshv1.Check) { c.Labels = map[string]string{"rack": "1"} })
	r.everybody(fail, places...)
	r.after(4 * time.Second)
	r.wantOwed("OPENED ")
	r.acted = nil
	r.held = true
	r.apply(Store{Lost: true, Since: r.now})
	for range 4 {
		r.everybody(ok, places...)
		r.after(20 * time.Second)
	}
	for _, a := range r.acted {
		if b, is := a.(BreakGlass); is {
			t.Fatal(b.Notification.GetSummary())
		}
	}
	r.held = false
	r.apply(Store{})
	r.after(time.Minute)
	r.wantOwed("OPENED ", "RESOLVED ")
}
