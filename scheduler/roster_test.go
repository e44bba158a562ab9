package scheduler

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Goal: placing only what a change concerns gives what placing everything gives. Method: random changes of the roster, then a mind that sees their outcome only.
func TestPlacementStepByStepEqualsPlacementFromScratch(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		enrolled := map[string]*statev1.Enrolment{}
		for i := range 30 {
			c := tcpCheck(fmt.Sprint("c", i), 0)
			c.Probers = int32(rapid.IntRange(0, 4).Draw(rt, "probers"))
			r.check(c)
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			name := fmt.Sprint("p", rapid.IntRange(0, 7).Draw(rt, "who"))
			switch rapid.IntRange(0, 6).Draw(rt, "what") {
			case 0, 1, 2:
				e := &statev1.Enrolment{Name: "probers/" + name, Datacenter: string(rune('a' + rapid.IntRange(0, 3).Draw(rt, "dc"))),
					Build: fmt.Sprint(rapid.IntRange(0, 1).Draw(rt, "build")), Drained: rapid.IntRange(0, 4).Draw(rt, "drained") == 0}
				if rapid.IntRange(0, 4).Draw(rt, "can") > 0 {
					e.Capabilities = []string{"tcp"}
				}
				enrolled[name] = e
				r.apply(EnrolmentPut{e}, ProberOnline{Name: name})
			case 3:
				delete(enrolled, name)
				r.apply(EnrolmentGone{"probers/" + name}, ProberOffline{Name: name})
			case 4:
				r.apply(ProberOffline{Name: name, Leaving: rapid.Bool().Draw(rt, "leaving")})
			case 5:
				c := tcpCheck(fmt.Sprint("c", rapid.IntRange(0, 29).Draw(rt, "check")), 0)
				c.Probers, c.Paused = int32(rapid.IntRange(0, 4).Draw(rt, "probers")), rapid.IntRange(0, 3).Draw(rt, "paused") == 0
				r.check(c)
			case 6:
				r.snapshot()
			}
			r.after(time.Duration(rapid.IntRange(0, 90).Draw(rt, "later")) * time.Second)
		}
		r.after(2 * time.Second)
		scratch := New(Config{})
		var events []Event
		for _, n := range r.s.Names() {
			events = append(events, CheckPut{r.s.checks[n].spec, r.s.checks[n].revision})
		}
		for _, e := range enrolled {
			events = append(events, EnrolmentPut{e})
		}
		for _, tab := range r.s.roster.tables {
			events = append(events, TablePut{r.s.stored(tab.Table), tab.modRevision})
		}
		scratch.Apply(r.now, events...)
		for name := range enrolled {
			got, want := r.s.Assignments(name), scratch.Assignments(name)
			if len(got) != len(want) {
				rt.Fatalf("%s has %d assignments, from scratch %d", name, len(got), len(want))
			}
			for c, a := range want {
				if got[c].GetFingerprint() != a.GetFingerprint() {
					rt.Fatalf("%s has %v for %s, from scratch %v", name, got[c], c, a)
				}
			}
		}
		if len(r.s.due) > len(r.s.checks) {
			rt.Fatalf("%d entries wait for %d checks", len(r.s.due), len(r.s.checks))
		}
	})
}

func TestMassOutageKeepsToTheBudgetsAndOpensEverythingByTheTimetable(t *testing.T) {
	r := newRig(t)
	r.probers("ams", "fra", "iad")
	const checks = 300
	for i := range checks {
		c := tcpCheck(fmt.Sprint("c", i), 2)
		c.Uri, c.Interval = "tcp://one.example.com:80", durationpb.New(time.Minute)
		r.check(c)
		r.votes(fmt.Sprint("c", i), ok, "ams", "fra", "iad")
	}
	r.after(10 * time.Second) // the first votes were asked for too
	r.asked = nil
	begin := r.now
	for i := range checks {
		r.votes(fmt.Sprint("c", i), fail, "fra")
	}
	// One host is asked at most 60 times at once and 20 times a second.
	most := 60 + int(20*r.now.Sub(begin).Seconds()) + 1
	if len(r.asked) > most || len(r.asked) < 50 {
		t.Fatalf("%d runs in %s, the budget is %d", len(r.asked), r.now.Sub(begin), most)
	}
	if r.s.Counters.ConfirmationsRefused == 0 {
		t.Fatal("what the budget refused was not counted")
	}
	for i := range checks {
		r.votes(fmt.Sprint("c", i), fail, "iad")
	}
	r.after(patience + holdFor + time.Second) // ams was asked about some of them, and says nothing
	if opened := r.s.CountVerdicts()[meshv1.CheckStatus_DOWN]; opened != checks || len(r.owed) != 1 {
		t.Fatalf("%d are DOWN, want %d; %d were told of by themselves or together", opened, checks, len(r.owed))
	}
}
