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
		if wait, _ := w.c.Joining("checks/c0", known+1); wait != knowPause {
			t.Errorf("before its time is over it waits for %s", wait)
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
