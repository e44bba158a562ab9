package controller

import (
	"testing"
	"testing/synctest"
	"time"
)

// The notifier may read of an incident before the mind does. Until the mind knows of it, or for five seconds, nobody is told: if etcd were lost in between, the mind would tell of the same
// outage by break-glass.
func TestNobodyIsToldOfWhatTheMindDoesNotKnowYet(t *testing.T) {
	inWorld(t, func(w *world) {
		w.makeChecks(1)
		synctest.Wait()
		known := w.c.Applied()
		if wait, _ := w.c.Joining("checks/c0", known); wait != 0 {
			t.Errorf("what is known waits for %s", wait)
		}
		if wait, _ := w.c.Joining("checks/c0", known+1); wait != knowPause {
			t.Errorf("what is not known yet waits for %s, want %s", wait, knowPause)
		}
		time.Sleep(knowPatience - time.Millisecond)
		if wait, _ := w.c.Joining("checks/c0", known+1); wait != time.Millisecond {
			t.Errorf("before its time is over it waits for %s, want what is left", wait)
		}
		time.Sleep(time.Millisecond)
		if wait, _ := w.c.Joining("checks/c0", known+1); wait != 0 {
			t.Errorf("an alert waits for a watch that is silent: %s", wait)
		}
		// The watch speaks again: what it does not tell next is waited for anew.
		if err := w.store.DeleteCheck(w.t.Context(), "checks/c0", ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if wait, _ := w.c.Joining("checks/c0", w.c.Applied()+1); wait != knowPause {
			t.Errorf("after the watch spoke it waits for %s", wait)
		}
	})
}

// Thousands may wait, each asks by itself, and votes wait for the same mutex: a watch that stays silent is asked about less and less often, and the end of patience is still met.
func TestTheLongerAWatchIsSilentTheLessOftenItIsAskedAbout(t *testing.T) {
	inWorld(t, func(w *world) {
		w.makeChecks(1)
		synctest.Wait()
		begun, written := time.Now(), w.c.Applied()+1
		for asked := 1; ; asked++ {
			wait, _ := w.c.Joining("checks/c0", written)
			waited := time.Since(begun)
			if wait == 0 {
				if asked > 100 || waited != knowPatience {
					t.Errorf("asked %d times in %s; want at most 100 in %s", asked, waited, knowPatience)
				}
				return
			}
			if wait > max(knowPause, waited/4) {
				t.Fatalf("after %s it waits for %s more; want at most a quarter of that", waited, wait)
			}
			time.Sleep(wait)
		}
	})
}

// The leader's watch is silent as it opens an incident. Its mind knows what it has written; if etcd is lost now, this server tells the others, and nobody is told twice.
func TestLeaderKnowsWhatItHasWrittenThoughItsWatchIsSilent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mesh(1)
		w.etcd.SetStarved(true)
		before := w.c.Applied()
		w.setDown("checks/c0", true)
		w.probe(15 * time.Second)
		if owed := w.owed(); owed["OPENED"] != 1 {
			t.Fatalf("owed: %v, want one OPENED", owed)
		}
		known := w.c.OpenAfter(before)
		if w.c.Applied() != before || len(known) != 1 || known[0].GetCheck() != "checks/c0" || known[0].GetModRevision() <= before {
			t.Fatalf("as of revision %d, before %d, others hear of %v; want the incident of checks/c0", w.c.Applied(), before, known)
		}
		w.etcd.SetStarved(false)
		w.setDown("checks/c0", false)
		w.probe(time.Minute)
		if owed := w.owed(); owed["OPENED"] != 1 || owed["RESOLVED"] != 1 || len(w.c.OpenAfter(0)) != 0 {
			t.Fatalf("owed: %v, open: %v; want one OPENED and one RESOLVED", owed, w.c.OpenAfter(0))
		}
	})
}
