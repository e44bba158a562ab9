package health_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/health"
)

// story runs a tracker second by second over facts that change, and notes each change of what is shown as `12s A, A > B`.
func story(seconds int, facts func(second int) health.Facts) []string {
	var tracker health.Tracker
	var out []string
	last := ""
	for s := range seconds + 1 {
		now := begin.Add(time.Duration(s) * time.Second)
		shown := strings.Join(told(tracker.Track(now, health.Evaluate(now, facts(s)))), ", ")
		if shown != last {
			out = append(out, strings.TrimSpace((time.Duration(s)*time.Second).String()+" "+shown))
		}
		last = shown
	}
	return out
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestAConditionMustLastAndMustBeGoneForAWhile(t *testing.T) {
	expect(t, story(60, func(s int) health.Facts {
		f := well()
		if s >= 10 && s < 30 && s != 25 || s == 3 { // a blip, then for good, with a gap of a second
			f.Etcd.LostSince = begin
		}
		return f
	}), "15s ETCD_LOST", "35s")
}

func TestAConditionThatComesAndGoesDoesNotFlap(t *testing.T) {
	got := story(600, func(s int) health.Facts {
		f := well()
		if s%4 != 0 {
			f.Servers[0].Uncommitted = 9 * time.Second
		}
		return f
	})
	if len(got) > 1 {
		t.Errorf("it flaps: %v", got)
	}
}

func TestConsequencesWaitForTheirCauseAndLeaveWithIt(t *testing.T) {
	expect(t, story(120, func(s int) health.Facts {
		f := well()
		if s >= 10 && s < 60 {
			silence(&f, "b")
			lose(&f, "dc-b", 2)
		}
		return f
	}),
		// The server's silence is known after 5 s, but its whole datacenter is what is told of, after 10 s; the probers' silence counts after 15 s.
		"20s DATACENTER_SILENT, DATACENTER_SILENT > SERVER_SILENT, SERVER_SILENT > ETCD_MEMBER_DOWN",
		"25s DATACENTER_SILENT, DATACENTER_SILENT > SERVER_SILENT, SERVER_SILENT > ETCD_MEMBER_DOWN, DATACENTER_SILENT > PROBER_SILENT",
		"1m5s DATACENTER_SILENT",
		"1m10s")
}

func TestWhatOutlivesItsCauseStandsForItselfAfterwards(t *testing.T) {
	got := story(200, func(s int) health.Facts {
		f := well()
		if s >= 10 && s < 100 {
			f.Leader, f.Leading = "", false
		}
		if s >= 10 && s < 150 {
			f.Owed = []health.Owed{{Receiver: "receivers/ops", Count: 1, Oldest: begin.Add(-50 * time.Second)}}
		}
		return f
	})
	expect(t, got, "20s NO_LEADER, NO_LEADER > OUTBOX_STUCK", "1m45s OUTBOX_STUCK", "2m35s")
}

func TestACauseIsAsBadAsTheWorstOfItsConsequences(t *testing.T) {
	f := well()
	f.Owed = []health.Owed{{Receiver: "receivers/ops", Count: 1, Oldest: begin.Add(-5 * time.Minute), Failed: true}}
	var tracker health.Tracker
	for s := range 20 {
		now := begin.Add(time.Duration(s) * time.Second)
		shown := tracker.Track(now, health.Evaluate(now, f))
		if s < 10 {
			continue
		}
		if len(shown) != 2 || shown[0].GetCode() != meshv1.Condition_RECEIVER_FAILING || shown[0].GetSeverity() != meshv1.Condition_CRITICAL {
			t.Fatalf("after %d s: %v", s, shown)
		}
		if want := begin.Add(-4 * time.Minute); !shown[1].GetSince().AsTime().Equal(want) {
			t.Errorf("OUTBOX_STUCK since %v, want %v: a minute after the oldest was owed", shown[1].GetSince().AsTime(), want)
		}
	}
}

func TestAPausedProcessDoesNotBelieveWhatItSeesWhenItWakes(t *testing.T) {
	var tracker health.Tracker
	look := func(at time.Duration, f health.Facts) string {
		return strings.Join(told(tracker.Track(begin.Add(at), health.Evaluate(begin.Add(at), f))), ", ")
	}
	bad := well()
	silence(&bad, "b")
	look(0, well())
	look(time.Second, bad)
	// Stopped for a minute: what was pending for a second has not been seen for a minute.
	if got := look(time.Minute, bad); got != "" {
		t.Errorf("right after the pause: %s", got)
	}
	if got := look(time.Minute+5*time.Second, bad); got != "SERVER_SILENT" {
		t.Errorf("5 s later: %s", got)
	}
}

func TestRootsAreSortedWorstFirst(t *testing.T) {
	f := well()
	f.Probers[0].InSync = false
	f.Servers[1].Version = "2.0"
	f.Leader, f.Leading = "", false
	var tracker health.Tracker
	var shown []*meshv1.Condition
	for s := range 700 {
		now := begin.Add(time.Duration(s) * time.Second)
		shown = tracker.Track(now, health.Evaluate(now, f))
	}
	if got := strings.Join(told(shown), ", "); got != "NO_LEADER, ASSIGNMENTS_BEHIND, BUILDS_DIFFER" {
		t.Errorf("got %s", got)
	}
}

func TestASilentProberThatIsDeletedVanishesAtOnceAndTakesNoChecksWithIt(t *testing.T) {
	var tracker health.Tracker
	f := well()
	lose(&f, "dc-b", 1)
	f.Checks.Blind, f.Checks.Silent = []string{"checks/shop"}, []string{"probers/b1"}
	look := func(at time.Duration) []*meshv1.Condition {
		tracker.Enrolled(f.Probers)
		return tracker.Track(begin.Add(at), health.Evaluate(begin.Add(at), f))
	}
	var shown []*meshv1.Condition
	for s := range 20 {
		shown = look(time.Duration(s) * time.Second)
	}
	if got := strings.Join(told(shown), ", "); got != "PROBER_SILENT, PROBER_SILENT > CHECKS_BLIND" || shown[0].GetSeverity() != meshv1.Condition_CRITICAL {
		t.Fatalf("before: %s", got)
	}
	f.Probers = slices.DeleteFunc(f.Probers, func(p *meshv1.Prober) bool { return p.GetName() == "probers/b1" })
	if got := strings.Join(told(look(20*time.Second)), ", "); got != "CHECKS_BLIND" {
		t.Errorf("deleted: %s", got)
	}
}

func TestAnIdleSilentProberDoesNotInheritTheChecksOfOneThatWasDeleted(t *testing.T) {
	var tracker health.Tracker
	f := well()
	lose(&f, "dc-b", 1)
	lose(&f, "dc-c", 1)
	f.Checks.Blind, f.Checks.Silent = []string{"checks/shop"}, []string{"probers/b1"}
	look := func(at time.Duration) []*meshv1.Condition {
		tracker.Enrolled(f.Probers)
		return tracker.Track(begin.Add(at), health.Evaluate(begin.Add(at), f))
	}
	for s := range 20 {
		look(time.Duration(s) * time.Second)
	}
	f.Probers = slices.DeleteFunc(f.Probers, func(p *meshv1.Prober) bool { return p.GetName() == "probers/b1" })
	shown := look(20 * time.Second)
	if got := strings.Join(told(shown), ", "); got != "CHECKS_BLIND, PROBER_SILENT" || shown[1].GetSeverity() != meshv1.Condition_WARNING || strings.Contains(shown[1].GetSummary(), "b1") {
		t.Errorf("deleted: %s, %v", got, shown)
	}
}

func TestTheMeshIsImpairedNotWellWhileProbersAreSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		w.change(func() { w.probers[0].State, w.probers[0].SetAside = meshv1.Prober_QUARANTINED, "datacenter=dc-a" })
		pass(3 * time.Second)
		if m := w.Mesh(); w.codes() != "PROBERS_SET_ASIDE" || m.GetState() != meshv1.Mesh_IMPAIRED || !strings.Contains(m.GetSummary(), "set aside for datacenter=dc-a") {
			t.Errorf("%s: %s", m.GetState(), m.GetSummary())
		}
	})
}

func TestADatacenterWhoseProbersAreDeletedVanishesAtOnceAndOneThatIsBackDoesNot(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*health.Facts)
		want string
	}{
		"deleted": {func(f *health.Facts) {
			f.Probers = slices.DeleteFunc(f.Probers, func(p *meshv1.Prober) bool { return p.GetDatacenter() == "dc-b" })
		}, ""},
		"back": {func(f *health.Facts) {
			for _, p := range f.Probers {
				p.State = meshv1.Prober_ONLINE
			}
		}, "DATACENTER_SILENT, DATACENTER_SILENT > PROBER_SILENT"},
	} {
		t.Run(name, func(t *testing.T) {
			var tracker health.Tracker
			f := well()
			lose(&f, "dc-b", 2)
			look := func(at time.Duration) string {
				tracker.Enrolled(f.Probers)
				return strings.Join(told(tracker.Track(begin.Add(at), health.Evaluate(begin.Add(at), f))), ", ")
			}
			for s := range 20 {
				look(time.Duration(s) * time.Second)
			}
			c.end(&f)
			if got := look(20 * time.Second); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
