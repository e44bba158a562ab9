package controller

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/fault"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

func TestEveryServerSeesEveryProberWhereverItsSessionIs(t *testing.T) {
	inTrio(t, func(x *trio) {
		x.spread(1)
		for _, server := range []string{"a", "b", "c"} {
			for prober, at := range map[string]string{"p1": "a", "p2": "b", "p3": "c"} {
				if got := x.state(server, prober); got != "ONLINE servers/"+at {
					x.t.Errorf("server %s has %s as %s", server, prober, got)
				}
				p, _ := x.servers[server].c.Prober("probers/" + prober)
				if p.GetBootId() != "boot-"+prober || !p.GetInSync() {
					x.t.Errorf("server %s says of %s: %v", server, prober, p)
				}
			}
			if n := x.servers[server].c.Hears(); n != 3 {
				x.t.Errorf("server %s hears %d probers", server, n)
			}
		}
	})
}

func TestOutageSeenAtThreeServersIsOpenedOnceByTheLeader(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(3)
		x.down("checks/c1", true)
		x.probe(time.Minute)
		if o := x.servers["a"].owed(); o["OPENED"] != 1 || len(o) != 1 {
			t.Fatalf("owed %v", o)
		}
		for name, w := range x.servers {
			if s, _ := w.c.Status("checks/c1"); s.GetVerdict() != meshv1.CheckStatus_DOWN || s.GetIncident() == "" {
				t.Errorf("server %s shows %v", name, s)
			}
		}
	})
}

// The leader alone asks, and it asks probers of other servers through them.
func TestFailureAtOneServerIsConfirmedByProbersOfOthersAtOnce(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		x.down("checks/c0", true)
		begun := time.Now()
		x.servers["c"].cast("p3", "checks/c0", "") // one timetable probe, at a standby
		for len(x.servers["a"].owed()) == 0 && time.Since(begun) < time.Minute {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begun); took > 100*time.Millisecond {
			t.Errorf("opened %v after the first failure", took)
		}
	})
}

func TestStandbyThatTakesOverOpensWhatIsDueAtOnce(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(2)
		a := x.servers["a"]
		if !a.c.Server().Leading {
			t.Fatal("a does not lead")
		}
		// The leader cannot write any more, and an outage begins.
		a.link.Cut()
		x.down("checks/c0", true)
		for _, at := range []string{"p2", "p3"} {
			x.servers[x.probers[at].at].cast(at, "checks/c0", "")
		}
		var next *world
		for next == nil {
			time.Sleep(time.Millisecond)
			for n, w := range x.servers {
				if n != "a" && w.c.Server().Leading {
					next = w
				}
			}
		}
		led := time.Now()
		for len(next.owed()) == 0 && time.Since(led) < time.Minute {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(led); took > 50*time.Millisecond {
			t.Errorf("opened %v after it began to lead", took)
		}
		a.link.Mend()
		x.probe(time.Minute)
		if o := next.owed(); o["OPENED"] != 1 || len(o) != 1 {
			t.Errorf("owed %v", o)
		}
	})
}

func TestProberThatMovesIsNeverOffline(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		// Its link to a dies; a misses it three seconds later, when it is at b long since.
		old := x.servers["a"].sessions["p1"]
		time.Sleep(500 * time.Millisecond)
		x.attach("p1", "b")
		for range 40 {
			time.Sleep(100 * time.Millisecond)
			for _, server := range []string{"a", "b", "c"} {
				if got := x.state(server, "p1"); got != "ONLINE servers/b" && !(server != "b" && got == "ONLINE servers/a") {
					t.Fatalf("server %s has it as %s", server, got)
				}
			}
			if old != nil {
				x.servers["a"].c.Detach("p1", old, false)
				old = nil
			}
		}
		for _, server := range []string{"a", "b", "c"} {
			if got := x.state(server, "p1"); got != "ONLINE servers/b" {
				t.Errorf("server %s has it as %s in the end", server, got)
			}
		}
	})
}

// It says goodbye to one server while the session before, at another, has not been missed yet.
func TestGoodbyeCountsOnceNobodyHasTheProber(t *testing.T) {
	p := newPresences()
	since := time.Unix(1000, 0)
	p.put("p", held{server: "servers/a", boot: "1", since: since})
	p.put("p", held{server: "servers/b", boot: "1", since: since.Add(time.Second)})
	events, _ := p.drop("p", "servers/b", "1", true, false)
	if len(events) != 1 || !strings.Contains(describeEvents(events), "ProberOnline") {
		t.Errorf("after the goodbye at b: %s", describeEvents(events))
	}
	events, _ = p.drop("p", "servers/a", "1", false, false)
	if s := describeEvents(events); s != "ProberOffline{p leaving}" {
		t.Errorf("after the end at a: %s", s)
	}
	if len(p.probers) != 0 {
		t.Errorf("%d probers are still there", len(p.probers))
	}
}

func TestLateEndOfASessionDoesNotEndTheNext(t *testing.T) {
	p := newPresences()
	since := time.Unix(1000, 0)
	p.put("p", held{server: "servers/a", boot: "1", since: since})
	p.put("p", held{server: "servers/a", boot: "2", since: since.Add(time.Second)})
	if events, was := p.drop("p", "servers/a", "1", true, false); was != nil || len(events) != 0 {
		t.Errorf("%s", describeEvents(events))
	}
	if p.newest("p") == nil {
		t.Error("it is gone")
	}
}

func TestSilentServersProbersGoAndComeBackWithIt(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		x.isolate("b")
		time.Sleep(2 * time.Second)
		if got := x.state("c", "p2"); got != "ONLINE servers/b" {
			t.Errorf("after 2 s: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := x.state("c", "p2"); got != "OFFLINE " {
			t.Errorf("after 4 s: %s", got)
		}
		if got := x.state("b", "p1"); got != "OFFLINE " || x.servers["b"].c.Hears() != 1 {
			t.Errorf("at b after 4 s: %s, it hears %d", got, x.servers["b"].c.Hears())
		}
		// Meanwhile p2 has gone, and p4 has come.
		x.detach("p2", "b", false)
		x.attach("p4", "b")
		x.join("b")
		time.Sleep(time.Second)
		if got := x.state("c", "p2") + ", " + x.state("c", "p4") + ", " + x.state("b", "p1"); got != "OFFLINE , ONLINE servers/b, ONLINE servers/a" {
			t.Errorf("when b is heard again: %s", got)
		}
	})
}

func TestSecondProcessOfANameIsRefusedAtEveryServerUntilTheFirstIsMissed(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		first := x.servers["a"].sessions["p1"]
		_, err := x.try("p1", "b", "another")
		if !fault.IsReason(err, meshv1.ErrorReason_PROBER_NAME_TAKEN) || !strings.Contains(err.Error(), "servers/a") {
			t.Fatalf("attached at b, or refused with %v", err)
		}
		x.servers["a"].c.Detach("p1", first, false)
		time.Sleep(100 * time.Millisecond)
		if _, err := x.try("p1", "b", "another"); err != nil {
			t.Errorf("refused although the first is gone: %v", err)
		}
	})
}

// While two servers do not hear each other both may take a process of one name. When they do, the one that came later goes, at both servers alike.
func TestOfTwoProcessesThatWereTakenApartTheFirstStays(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		x.isolate("b")
		time.Sleep(5 * time.Second)
		first := x.servers["a"].sessions["p1"]
		second, err := x.try("p1", "b", "another")
		if err != nil {
			t.Fatal(err)
		}
		x.join("b")
		time.Sleep(time.Second)
		if first.ends() != 0 || second.ends() == 0 {
			t.Errorf("the first was ended %d times, the second %d times", first.ends(), second.ends())
		}
		// The second had enrolled as itself.
		x.servers["b"].c.Detach("p1", second, false)
		time.Sleep(5 * time.Second)
		if e, err := x.servers["c"].store.GetEnrolment(t.Context(), "probers/p1"); err != nil || e.Value.GetDatacenter() != "dc-p1" {
			t.Errorf("enrolled as %v, %v", e.Value, err)
		}
	})
}

func TestServerThatJoinsKnowsEveryVote(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.isolate("c")
		time.Sleep(5 * time.Second)
		x.attach("p1", "a")
		x.attach("p2", "b")
		x.attach("p3", "b")
		x.servers["a"].makeChecks(20)
		time.Sleep(5 * time.Second)
		x.probe(30 * time.Second)
		if s, _ := x.servers["c"].c.Status("checks/c7"); s.GetVerdict() != meshv1.CheckStatus_UNKNOWN {
			t.Fatalf("c knows %v although it hears nobody", s)
		}
		x.join("c")
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		x.sameEverywhere()
		if s, _ := x.servers["c"].c.Status("checks/c7"); s.GetVerdict() != meshv1.CheckStatus_UP {
			t.Errorf("%v", s)
		}
	})
}

// sameEverywhere holds what every server says of every check and prober against what a says.
func (x *trio) sameEverywhere() {
	x.t.Helper()
	truth := func(w *world) (list []string) {
		for _, k := range []string{"checks/c0", "checks/c7"} {
			s, ok := w.c.Status(k)
			if !ok {
				continue
			}
			// These count from when the server began to hear.
			s.Since, s.UpdateTime = nil, nil
			for _, v := range s.GetVotes() {
				v.Streak = 0
			}
			list = append(list, text(s))
		}
		for _, p := range w.c.Probers() {
			p.StateTime = nil
			list = append(list, text(p))
		}
		return list
	}
	want := truth(x.servers["a"])
	for name, w := range x.servers {
		for i, got := range truth(w) {
			if got != want[i] {
				x.t.Errorf("server %s says\n  %s\nserver a says\n  %s", name, got, want[i])
			}
		}
	}
}

func TestVoteThatOvertakesTheStoreIsNotLost(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		// c's watch stands still while a check is made, and voted on.
		x.servers["c"].link.Cut()
		k, err := x.servers["a"].store.GetCheck(t.Context(), "checks/c0")
		if err != nil {
			t.Fatal(err)
		}
		k = proto.CloneOf(k)
		k.Name = "checks/new"
		if _, err := x.servers["a"].store.CreateCheck(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		for _, p := range []string{"p1", "p2"} {
			x.servers[x.probers[p].at].cast(p, "checks/new", "")
		}
		time.Sleep(time.Second)
		x.servers["c"].link.Mend()
		time.Sleep(3 * time.Second)
		if s, ok := x.servers["c"].c.Status("checks/new"); !ok || s.GetVerdict() != meshv1.CheckStatus_UP {
			t.Errorf("%v", s)
		}
	})
}

func TestBeatSaysHowTheServerIs(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		beat := func(s string) *peerv1.Beat {
			var b peerv1.Beat
			x.servers[s].c.FillBeat(&b)
			return &b
		}
		a, b := beat("a"), beat("b")
		if !a.GetLeading() || b.GetLeading() || b.GetLeader() != "servers/a" || b.GetTerm() != a.GetTerm() || a.GetSessions() != 1 || b.GetHears() != 3 || b.GetRevision() != a.GetRevision() ||
			a.GetUncommitted() != nil {
			t.Errorf("a: %v\nb: %v", a, b)
		}
		// What it asks of etcd does not come back.
		x.servers["a"].link.Cut()
		x.down("checks/c0", true)
		x.servers["a"].cast("p1", "checks/c0", "")
		time.Sleep(2 * time.Second)
		if w := beat("a").GetUncommitted().AsDuration(); w < 1900*time.Millisecond || w > 2*time.Second {
			t.Errorf("waiting for %v, %v", w, beat("a"))
		}
		if w := beat("b").GetUncommitted(); w != nil {
			t.Errorf("a server that does not lead waits for %v", w)
		}
		x.servers["a"].link.Mend()
		x.probe(30 * time.Second)
		for name := range x.servers {
			if w := beat(name).GetUncommitted(); w != nil {
				t.Errorf("%s still waits for %v", name, w)
			}
		}
	})
}

func TestEffectThatIsWishedForAgainHasWaitedSinceItsFirstWish(t *testing.T) {
	var w waits
	at := func(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }
	if w.oldest(at(0)) != 0 {
		t.Error("something waits although nothing was wished for")
	}
	w.begin("k", at(0))
	w.failed("k", at(4*time.Second))
	w.begin("k", at(5*time.Second))
	w.begin("other", at(6*time.Second))
	if got := w.oldest(at(7 * time.Second)); got != 7*time.Second {
		t.Errorf("the oldest has waited %v, want 7s", got)
	}
	w.answered("k")
	if got := w.oldest(at(7 * time.Second)); got != time.Second {
		t.Errorf("the oldest has waited %v, want 1s", got)
	}
	// Nobody wishes for the other one any more: its check is up again.
	w.failed("other", at(8*time.Second))
	if got := w.oldest(at(8*time.Second + waitsFor)); got != 0 {
		t.Errorf("what nobody wishes for any more has waited %v", got)
	}
	w.begin("other", at(20*time.Second))
	if got := w.oldest(at(21 * time.Second)); got != time.Second {
		t.Errorf("a new wish has waited %v, want 1s", got)
	}
}

// The rows of a prober that died while this server did not hear the others must go; those of one that it merely cannot hear must not.
func TestProberThatNoServerHasIsGoneOnceAllServersAreHeard(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		c := x.servers["c"].c
		unheard := func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.missingLocked()) == 0
		}
		x.isolate("c")
		x.detach("p1", "a", false)
		time.Sleep(10 * time.Second)
		if !unheard() {
			t.Error("c takes probers for gone although it hears nobody")
		}
		x.connect("a", "c")
		time.Sleep(time.Second)
		if !unheard() {
			t.Error("c takes probers for gone although it does not hear b")
		}
		x.connect("b", "c")
		time.Sleep(time.Second)
		c.mu.Lock()
		defer c.mu.Unlock()
		if s := describeEvents(c.missingLocked()); s != "ProberOffline{p1}" {
			t.Errorf("when c hears everybody: %s", s)
		}
	})
}

func TestWriteThatEtcdRefusesDoesNotWaitForAnAnswer(t *testing.T) {
	full := fault.New(codes.ResourceExhausted, meshv1.ErrorReason_LIMIT_EXCEEDED, "", "etcd has used up its quota")
	away := fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, "", "etcd does not answer")
	for _, tt := range []struct {
		err  error
		want bool
	}{{nil, true}, {store.ErrFenced, true}, {fmt.Errorf("open: %w", store.ErrConflict), true}, {full, true}, {away, false}, {fmt.Errorf("open: %w", away), false}} {
		if got := answered(tt.err); got != tt.want {
			t.Errorf("%v: answered %t, want %t", tt.err, got, tt.want)
		}
	}
}
