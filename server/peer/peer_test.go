package peer

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestAFollowerKnowsWhatWasBeforeAndWhatHappensThen(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start("a", "a1")
		a.attach("p1")
		a.attach("p2")
		a.cast(results("p1", "c", 1, 5))
		a.cast(results("p2", "d", 1, 3))
		b := w.start("b", "b1")
		time.Sleep(time.Second)
		if got := b.hears("a"); !slices.Equal(got, []string{"p1", "p2"}) || b.sees("a", "p1", "c") != 5 || b.sees("a", "p2", "d") != 3 {
			t.Fatalf("b hears %q, and votes %d and %d", got, b.sees("a", "p1", "c"), b.sees("a", "p2", "d"))
		}
		if len(a.hears("b")) != 0 {
			t.Errorf("a hears %q of b, which has no probers: what b is told is not passed on", a.hears("b"))
		}
		a.detach("p1")
		a.attach("p3")
		a.cast(results("p3", "c", 1, 700))
		synctest.Wait()
		if got := b.hears("a"); !slices.Equal(got, []string{"p2", "p3"}) || b.sees("a", "p3", "c") != 700 {
			t.Errorf("b hears %q, and vote %d", got, b.sees("a", "p3", "c"))
		}
		if b.told().snapshots != 1 || b.told().count != 2+700 {
			t.Errorf("%d snapshots and %d votes; want 1, and 2 with it and 700 as they came", b.told().snapshots, b.told().count)
		}
	})
}

func TestBeatsSayHowTheServerIs(t *testing.T) {
	inWorld(t, func(w *world) {
		leads := func(c *Config, d *Deps) {
			d.Fill = append(d.Fill, func(b *peerv1.Beat) { b.Leader, b.Term, b.Leading = "servers/a", 7, true }, func(b *peerv1.Beat) { b.Hears = 12 })
		}
		w.start("a", "a1", leads)
		b := w.start("b", "b1")
		time.Sleep(time.Second)
		var beats []time.Duration
		for last := time.Now(); len(beats) < 20; {
			views, changed := b.peers.Watch()
			<-changed
			if v := b.view("a"); v.Beat != views[0].Beat {
				beats = append(beats, time.Since(last))
				last = time.Now()
				if v.Beat.GetTerm() != 7 || v.Beat.GetHears() != 12 || !v.Beat.GetLeading() || v.Datacenter != "dc-a" || v.BootID != "a1" || !v.Heard.Equal(last) {
					t.Fatalf("%+v", v)
				}
			}
		}
		if got := slices.Max(beats[1:]); got != BeatEvery {
			t.Errorf("beats came %v apart; want %s", beats, BeatEvery)
		}
	})
}

func TestAServerThatDiesIsKnownToBeGoneAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.start("a", "a1"), w.start("b", "b1"), w.start("c", "c1")
		a.attach("p1")
		time.Sleep(2 * time.Second)
		died := time.Now()
		a.kill()
		for !b.view("a").Refused {
			<-b.peers.Changed()
		}
		if took := time.Since(died); took > 10*time.Millisecond {
			t.Errorf("that a's address refuses connections was known after %s", took)
		}
		told := func() bool {
			return slices.ContainsFunc(c.view("b").Beat.GetMissed(), func(m *peerv1.Missed) bool { return m.GetServer() == "servers/a" && m.GetRefused() })
		}
		for !told() {
			<-c.peers.Changed()
		}
		if took := time.Since(died); took > 100*time.Millisecond {
			t.Errorf("c was told so by b after %s", took)
		}
		if v := b.view("a"); v.Missed(time.Now()) || len(b.told().silent) != 0 || len(b.hears("a")) != 1 {
			t.Errorf("it is missed %s after it was heard, silent %q", v.Silence(time.Now()), b.told().silent)
		}
		time.Sleep(time.Until(died.Add(MissedAfter + BeatEvery)))
		if !b.view("a").Missed(time.Now()) || len(b.told().silent) != 0 {
			t.Errorf("after %s it is not missed, or silent already: %q", time.Since(died), b.told().silent)
		}
		time.Sleep(time.Until(died.Add(SilentAfter + BeatEvery)))
		if !slices.Equal(b.told().silent, []string{"servers/a"}) || len(b.hears("a")) != 0 {
			t.Errorf("after %s silent are %q, and b hears %q of it", time.Since(died), b.told().silent, b.hears("a"))
		}
		a = w.start("a", "a2")
		a.attach("p1")
		time.Sleep(backoffMax)
		if v := b.view("a"); v.Missed(time.Now()) || v.Refused || v.BootID != "a2" || len(b.hears("a")) != 1 {
			t.Errorf("after its return: %+v; b hears %q", v, b.hears("a"))
		}
	})
}

// A stall of one direction: the packets of one side are lost and the connection stays open.
func TestSilenceIsNoticedOnConnectionsThatStayOpen(t *testing.T) {
	for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
		t.Run("from "+way[0]+" to "+way[1], func(t *testing.T) {
			inWorld(t, func(w *world) {
				a, b := w.start("a", "a1"), w.start("b", "b1")
				a.attach("p")
				b.attach("q")
				time.Sleep(2 * time.Second)
				w.valve(way[0], way[1]).shut()
				cut := time.Now()
				deaf := b // who hears nothing
				if way[1] == "a" {
					deaf = a
				}
				for !deaf.view(way[0]).Missed(time.Now()) {
					<-deaf.peers.Changed()
				}
				if took := time.Since(cut); took < MissedAfter-BeatEvery || took > MissedAfter {
					t.Errorf("missed after %s", took)
				}
				for len(deaf.told().silent) == 0 {
					<-deaf.peers.Changed()
					synctest.Wait()
				}
				if took := time.Since(cut); took < SilentAfter-BeatEvery || took > SilentAfter {
					t.Errorf("silent after %s", took)
				}
				time.Sleep(10 * time.Second)
				if len(deaf.told().silent) != 1 {
					t.Errorf("silent was said %d times", len(deaf.told().silent))
				}
				w.valve(way[0], way[1]).open()
				time.Sleep(attemptTimeout + backoffMax)
				if a.view("b").Missed(time.Now()) || b.view("a").Missed(time.Now()) || len(b.hears("a")) != 1 || len(a.hears("b")) != 1 {
					t.Errorf("%s after the end they do not hear each other: %+v, %+v", attemptTimeout+backoffMax, a.view("b"), b.view("a"))
				}
			})
		})
	}
}

func TestAFollowerThatReadsTooSlowlyIsSentASnapshot(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.start("a", "a1"), w.start("b", "b1"), w.start("c", "c1")
		a.attach("p")
		time.Sleep(time.Second)
		w.valve("a", "b").shut()
		for i := range 200 {
			a.cast(results("p", "c", 500*i+1, 500*i+500))
			synctest.Wait()
		}
		a.detach("p")
		a.attach("q")
		time.Sleep(MissedAfter)
		if c.sees("a", "p", "c") != 100_000 {
			t.Errorf("c, which is not slow, has seen %d of 100000", c.sees("a", "p", "c"))
		}
		w.valve("a", "b").open()
		time.Sleep(time.Second)
		if b.sees("a", "p", "c") != 100_000 || !slices.Equal(b.hears("a"), []string{"q"}) || b.told().snapshots != 3 || c.told().snapshots != 2 { // one of them of each other
			t.Errorf("b has seen %d and hears %q after %d snapshots, c was sent %d", b.sees("a", "p", "c"), b.hears("a"), b.told().snapshots, c.told().snapshots)
		}
		if b.told().count > 50_000 {
			t.Errorf("b was sent %d votes all the same", b.told().count)
		}
		a.cast(results("p", "c", 100_001, 100_001))
		synctest.Wait()
		if b.sees("a", "p", "c") != 100_001 {
			t.Errorf("after the snapshot b sees %d", b.sees("a", "p", "c"))
		}
	})
}

func TestRunsAndRefusalsFindTheirWay(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.start("a", "a1"), w.start("b", "b1"), w.start("c", "c1")
		time.Sleep(time.Second)
		b.sessions["p"] = true
		if !a.peers.Ask("servers/b", "p", &meshv1.RunNow{RunId: "r1"}) || !a.peers.Ask("servers/b", "q", &meshv1.RunNow{RunId: "r2"}) {
			t.Fatal("a cannot ask b")
		}
		synctest.Wait()
		if !slices.Equal(b.told().runs, []string{"p r1"}) || len(a.told().refusals) != 1 || !strings.HasPrefix(a.told().refusals[0], "q r2 it has no session at servers/b") {
			t.Errorf("b was asked for %q; a was told %q", b.told().runs, a.told().refusals)
		}
		b.peers.Refuse("p", "r1", "too busy")
		b.peers.Refuse("p", "r9", "nobody asked")
		synctest.Wait()
		if len(a.told().refusals) != 2 || a.told().refusals[1] != "p r1 too busy" || len(c.told().refusals) != 0 {
			t.Errorf("a was told %q, c %q", a.told().refusals, c.told().refusals)
		}
		w.valve("a", "b").shut()
		for i := 0; a.peers.Ask("servers/b", "p", &meshv1.RunNow{RunId: "late", Check: strings.Repeat("x", 1000)}); i++ {
			if i > 10*askQueue {
				t.Fatal("runs are taken without end although none is sent")
			}
			synctest.Wait()
		}
		w.sever("a", "b")
		w.valve("a", "b").open()
		synctest.Wait()
		if len(a.told().refusals) < askQueue || !strings.Contains(a.told().refusals[len(a.told().refusals)-1], "broke before the run was sent") {
			t.Errorf("%d refusals after the stream broke", len(a.told().refusals))
		}
		if a.peers.Ask("servers/x", "p", &meshv1.RunNow{}) {
			t.Error("a server that does not exist was asked")
		}
	})
}
