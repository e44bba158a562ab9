package peer

import (
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestEveryServerHasEveryResult(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.start("a", "a1"), w.start("b", "b1"), w.start("c", "c1")
		time.Sleep(time.Second)
		a.file(results("p", "c", 1, 3000))
		b.file(results("q", "c", 1, 10))
		for _, h := range []*host{a, b, c} {
			if twice := h.full("p", 1, 3000) + h.full("q", 1, 10); twice != 0 {
				t.Errorf("%s was given %d results twice", h.name, twice)
			}
		}
		time.Sleep(3 * time.Second)
		if v := a.view("b"); v.Position != v.Acknowledged || a.peers.journal.held.Load() != 0 {
			t.Errorf("b lacks %d, and a's journal holds %d", v.Position-v.Acknowledged, a.peers.journal.held.Load())
		}
	})
}

func TestALoneServerKeepsNoJournal(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start("a", "a1")
		time.Sleep(time.Second)
		before := a.peers.journal.last()
		a.file(results("p", "c", 1, 100))
		if a.peers.journal.last() != before {
			t.Error("it keeps a journal for nobody")
		}
		b := w.start("b", "b1")
		time.Sleep(time.Second)
		a.file(results("p", "c", 101, 200))
		b.full("p", 101, 200)
	})
}

// A server that has lost its disk does not know of one that was away just then, and whose record is gone from the store: what it gets meanwhile must not be let go of because
// all that it knows of have it.
func TestAServerOnANewDiskKeepsResultsForThoseThatAreAway(t *testing.T) {
	inWorld(t, func(w *world) {
		w.anew = true
		a := w.start("a", "a1")
		time.Sleep(time.Second)
		a.file(results("p", "c", 1, 500)) // it knows of nobody yet
		b := w.start("b", "b1")
		a.file(results("p", "c", 501, 1000))
		b.full("p", 1, 1000)
		time.Sleep(freshFor / 2)
		w.start("c", "c1").full("p", 1, 1000)
		time.Sleep(freshFor)
		if held := a.peers.journal.held.Load(); held != 0 {
			t.Errorf("the journal still holds %d", held)
		}
	})
}

// It may be restarted meanwhile, and is told by another of who is away.
func TestAServerOnANewDiskLearnsFromAnotherWhoIsAway(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start("a", "a1")
		b := w.start("b", "b1")
		time.Sleep(3 * saveEvery)
		b.kill()
		w.publish(b, false)
		time.Sleep(time.Minute)
		w.anew = true
		c := w.start("c", "c1")
		c.kill()
		c = w.start("c", "c2")
		c.file(results("p", "c", 1, 500)) // before it is told
		time.Sleep(2 * freshFor)
		c.file(results("p", "c", 501, 1000))
		time.Sleep(3 * saveEvery)
		if held := c.peers.journal.held.Load(); held != 1000 {
			t.Errorf("the journal holds %d for the server that is away; want 1000", held)
		}
		w.start("b", "b2").full("p", 1, 1000)
		time.Sleep(3 * saveEvery)
		if held := c.peers.journal.held.Load(); held != 0 {
			t.Errorf("the journal still holds %d", held)
		}
	})
}

// Servers that tell each other of one that is gone do not remember it for longer by that.
func TestAServerThatIsGoneIsForgottenAfterADay(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.start("a", "a1"), w.start("b", "b1")
		time.Sleep(3 * saveEvery)
		b.kill()
		w.publish(b, false)
		time.Sleep(2 * SilentAfter)
		a.peers.mu.Lock()
		a.peers.others["servers/b"].seen = time.Now().Add(time.Minute - RememberFor)
		a.peers.mu.Unlock()
		c := w.start("c", "c1")
		for i := range 6 {
			time.Sleep(20 * time.Second)
			if n, m := len(a.peers.memories()), len(c.peers.memories()); n != m || (n == 2) != (i < 2) && i != 2 {
				t.Fatalf("%d s before a day is over, a remembers %d servers and c %d", 60-20*(i+1), n, m)
			}
			w.sever("c", "a")
			w.sever("a", "c")
		}
	})
}

func TestABreakCostsNoResult(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.start("a", "a1"), w.start("b", "b1")
		time.Sleep(time.Second)
		total := 0
		for i := range 50 {
			a.file(results("p", "c", total+1, total+100))
			total += 100
			if i%7 == 3 {
				w.sever("b", "a")
			}
			time.Sleep(30 * time.Millisecond)
		}
		twice := b.full("p", 1, total)
		// What was on its way when the connection broke comes again, and the history drops it.
		if twice > total/4 {
			t.Errorf("%d of %d results came more than once", twice, total)
		}
		t.Logf("%d of %d results came twice after 7 breaks", twice, total)
	})
}

func TestAFollowerGoesOnWhereItWasAfterARestartOfEitherSide(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.start("a", "a1"), w.start("b", "b1")
		time.Sleep(time.Second)
		a.file(results("p", "c", 1, 1000))
		b.full("p", 1, 1000)
		time.Sleep(3 * saveEvery)
		b.kill()
		a.file(results("p", "c", 1001, 2000))
		time.Sleep(3 * saveEvery)
		if held := a.peers.journal.held.Load(); held != 1000 {
			t.Errorf("the journal holds %d for the server that is away; want 1000", held)
		}
		a.kill() // and again
		a = w.start("a", "a2")
		a.file(results("p", "c", 2001, 2100))
		time.Sleep(3 * saveEvery)
		b = w.start("b", "b2")
		if twice := b.full("p", 1, 2100); twice != 0 {
			t.Errorf("%d results came again although b had acknowledged them", twice)
		}
		time.Sleep(3 * saveEvery)
		if v := a.view("b"); v.Position != v.Acknowledged || a.peers.journal.held.Load() != 0 {
			t.Errorf("b lacks %d, and a's journal holds %d", v.Position-v.Acknowledged, a.peers.journal.held.Load())
		}
	})
}

func TestALagIsMeasuredOverARestart(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.start("a", "a1"), w.start("b", "b1")
		time.Sleep(time.Second)
		b.history.stall()
		a.file(results("p", "c", 1, 700))
		time.Sleep(time.Second)
		if v := a.view("b"); v.Position-v.Acknowledged != 700 {
			t.Errorf("b lacks %d; want 700", v.Position-v.Acknowledged)
		}
		a.kill()
		a = w.start("a", "a2")
		a.file(results("p", "c", 701, 1000))
		time.Sleep(3 * saveEvery)
		if v := a.view("b"); v.Position-v.Acknowledged != 1000 {
			t.Errorf("after a restart b lacks %d; want 1000", v.Position-v.Acknowledged)
		}
		b.history.release()
		b.full("p", 1, 1000)
	})
}

// Votes and beats go on while the follower's disk hangs, for as long as one likes; what was filed meanwhile comes when it works again.
func TestAHistoryThatStallsHurtsNothingElse(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.start("a", "a1"), w.start("b", "b1")
		time.Sleep(time.Second)
		b.history.stall()
		worst := time.Duration(0)
		for i := range 300 {
			list := results("p", "c", 100*i+1, 100*i+100)
			a.cast(list)
			a.file(list)
			time.Sleep(100 * time.Millisecond)
			worst = max(worst, b.view("a").Silence(time.Now()))
			if got := b.sees("a", "p", "c"); got != uint64(100*i+100) {
				t.Fatalf("after %d b has seen vote %d", 100*i+100, got)
			}
		}
		if worst > BeatEvery || b.told().snapshots != 1 {
			t.Errorf("a was not heard for %s; %d snapshots", worst, b.told().snapshots)
		}
		b.history.release()
		if twice := b.full("p", 1, 30_000); twice > 0 {
			t.Errorf("%d came twice", twice)
		}
	})
}

func TestAHistoryThatFailsIsTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.start("a", "a1"), w.start("b", "b1")
		time.Sleep(time.Second)
		b.history.fail(true)
		a.file(results("p", "c", 1, 100))
		time.Sleep(time.Minute)
		if v := a.view("b"); v.Position-v.Acknowledged != 100 {
			t.Errorf("%d are lacking; want 100", v.Position-v.Acknowledged)
		}
		b.history.fail(false)
		b.full("p", 1, 100)
	})
}

// A server was away, and much waits for it: it is sent at a bounded rate, and beats come on time and votes at once meanwhile.
func TestCatchingUpIsBoundedAndDelaysNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		rate := func(c *Config, _ *Deps) { c.CatchUp = 1000 }
		a, b := w.start("a", "a1", rate), w.start("b", "b1")
		time.Sleep(time.Second)
		b.kill()
		for i := range 20 {
			a.file(results("p", "c", 500*i+1, 500*i+500))
		}
		b = w.start("b", "b2")
		began := time.Now()
		worst := time.Duration(0)
		for i := 1; ; i++ {
			time.Sleep(50 * time.Millisecond)
			a.file(results("q", "c", i, i))
			a.cast(results("q", "c", i, i))
			time.Sleep(50 * time.Millisecond)
			if got := b.sees("a", "q", "c"); got != uint64(i) && i > 10 {
				t.Fatalf("b has seen vote %d, want %d", got, i)
			}
			if i > 10 {
				worst = max(worst, b.view("a").Silence(time.Now()))
			}
			if n, _ := b.history.has("p", 1, 10_000); n == 10_000 {
				break
			} else if time.Since(began) > time.Minute {
				t.Fatalf("after a minute b has %d of 10000", n)
			}
		}
		if took := time.Since(began); took < 8*time.Second || took > 15*time.Second {
			t.Errorf("10000 results took %s at 1000 a second", took)
		}
		if worst > BeatEvery {
			t.Errorf("meanwhile a was not heard for %s", worst)
		}
	})
}

func TestAJournalThatIsFullDropsTheOldestAndCounts(t *testing.T) {
	inWorld(t, func(w *world) {
		small := func(c *Config, _ *Deps) { c.JournalBytes = 1 << 20 }
		a, b := w.start("a", "a1", small), w.start("b", "b1")
		time.Sleep(time.Second)
		b.kill()
		var last int
		for i := 0; i < 3000; i++ {
			r := results("p", "c", i+1, i+1)[0]
			r.Error = strings.Repeat("e", 1000)
			a.file([]*meshv1.Result{r})
			last = i + 1
		}
		time.Sleep(3 * time.Second)
		dropped := int(a.peers.journal.dropped.Load())
		if held := int(a.peers.journal.held.Load()); dropped < 1000 || dropped+held != last || a.peers.journal.bytes.Load() > 2<<20 {
			t.Errorf("of %d results %d were dropped and %d are held in %d bytes", last, dropped, held, a.peers.journal.bytes.Load())
		}
		b = w.start("b", "b2")
		b.full("p", dropped+1, last)
		time.Sleep(time.Second)
		if n, _ := b.history.has("p", 1, dropped); n != 0 {
			t.Errorf("%d of the dropped results came", n)
		}
		b.peers.m.mu.Lock()
		if got := b.peers.m.dropsOf["servers/a"]; got != int64(dropped) {
			t.Errorf("b was told of %d dropped results; want %d", got, dropped)
		}
		b.peers.m.mu.Unlock()
		a.kill()
		a = w.start("a", "a2", small)
		if got := a.peers.journal.dropped.Load(); got != int64(dropped) {
			t.Errorf("after a restart %d were dropped; want %d", got, dropped)
		}
	})
}

// A server whose disk hangs still stops, in time.
func TestAHistoryThatHangsDoesNotKeepAServerFromStopping(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.start("a", "a1"), w.start("b", "b1")
		time.Sleep(time.Second)
		b.history.stall()
		a.file(results("p", "c", 1, 10))
		time.Sleep(time.Second)
		began := time.Now()
		b.stop()
		if err := <-b.ended; err != nil || time.Since(began) > 2*patience {
			t.Errorf("it stopped after %s: %v", time.Since(began), err)
		}
		b.ended = nil
	})
}

func TestNothingIsTakenWhenTheServerStops(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start("a", "a1")
		w.start("b", "b1")
		time.Sleep(time.Second)
		a.stop()
		if err := <-a.ended; err != nil {
			t.Error(err)
		}
		a.ended = nil
		if err := a.peers.Append(w.ctx, nil); err == nil {
			t.Error("results were taken that no other server will get")
		}
	})
}
