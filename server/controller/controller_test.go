package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/store"
)

func TestAnotherProcessCannotTakeTheNameOrChangeTheEnrolment(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		s := w.attach("p1")
		before, err := w.store.GetEnrolment(t.Context(), "probers/p1")
		if err != nil {
			t.Fatal(err)
		}
		h := w.hello("p1")
		h.BootId, h.Datacenter = "other", "elsewhere"
		for range 3 {
			err := w.c.Attach(t.Context(), h, &fakeSession{boot: "other"})
			if !fault.IsReason(err, meshv1.ErrorReason_PROBER_NAME_TAKEN) {
				t.Fatalf("attached, or refused with %v", err)
			}
		}
		after, err := w.store.GetEnrolment(t.Context(), "probers/p1")
		if err != nil || after.ModRevision != before.ModRevision {
			t.Errorf("the enrolment was changed by a process that was turned away: %v, %v", after.Value, err)
		}
		// When the first is gone, the other moves in.
		w.c.Detach("p1", s, false)
		if err := w.c.Attach(t.Context(), h, &fakeSession{boot: "other"}); err != nil {
			t.Errorf("%v", err)
		}
		if e, err := w.store.GetEnrolment(t.Context(), "probers/p1"); err != nil || e.Value.GetDatacenter() != "elsewhere" {
			t.Errorf("enrolled as %v, %v", e.Value, err)
		}
	})
}

func TestOfTwoProcessesThatRaceForANameOneWins(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.etcd.SetDelay(time.Second)
		var wg sync.WaitGroup
		errs := make([]error, 5)
		for i := range errs {
			wg.Go(func() {
				h := w.hello("p1")
				h.BootId, h.Datacenter = fmt.Sprint("boot-", i), fmt.Sprint("dc-", i)
				errs[i] = w.c.Attach(t.Context(), h, &fakeSession{boot: h.GetBootId()})
			})
		}
		wg.Wait()
		won := -1
		for i, err := range errs {
			if err == nil {
				if won >= 0 {
					t.Fatal("two have the name")
				}
				won = i
			}
		}
		e, err := w.store.GetEnrolment(t.Context(), "probers/p1")
		if won < 0 || err != nil || e.Value.GetDatacenter() != fmt.Sprint("dc-", won) {
			t.Errorf("winner %d, enrolment %v, %v", won, e.Value, err)
		}
	})
}

func TestTheSameProcessReplacesItsSession(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		old := w.attach("p1")
		next := w.attach("p1")
		w.c.Detach("p1", old, false) // the old one ends late
		time.Sleep(time.Second)
		p, ok := w.c.Prober("probers/p1")
		if old.ends() != 1 || next.ends() != 0 || !ok || p.GetState() != meshv1.Prober_ONLINE {
			t.Errorf("old ended %d times, new %d, prober %v", old.ends(), next.ends(), p)
		}
	})
}

func TestADeletedProberComesBackByItself(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		s := w.attach("p1")
		time.Sleep(time.Second)
		e, err := w.store.GetEnrolment(t.Context(), "probers/p1")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.DeleteEnrolment(t.Context(), "probers/p1", e.ModRevision); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if s.ends() != 1 {
			t.Fatal("its session goes on although it is enrolled no more")
		}
		w.c.Detach("p1", s, false)
		w.attach("p1")
		time.Sleep(time.Second)
		if p, ok := w.c.Prober("probers/p1"); !ok || p.GetState() != meshv1.Prober_ONLINE {
			t.Errorf("%v", p)
		}
	})
}

func TestAnOutageIsOpenedOnceAndResolvedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.mesh(3)
		w.setDown("checks/c1", true)
		w.probe(time.Minute)
		if o := w.owed(); o["OPENED"] != 1 || len(o) != 1 {
			t.Fatalf("owed %v", o)
		}
		w.setDown("checks/c1", false)
		w.probe(2 * time.Minute)
		if o := w.owed(); o["OPENED"] != 1 || o["RESOLVED"] != 1 {
			t.Fatalf("owed %v", o)
		}
	})
}

// A watch that skips the end of an incident would leave the leader with an incident that is over, and the check's next outage untold, until the comparison of every five
// minutes.
func TestALeaderThatIsNotToldOfItsOwnWriteLooksAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.mesh(1)
		w.setDown("checks/c0", true)
		w.probe(time.Minute)
		w.etcd.HideEvents(1000)
		w.setDown("checks/c0", false)
		w.probe(time.Minute)
		if o := w.owed(); o["RESOLVED"] != 1 {
			t.Fatalf("owed %v", o)
		}
		w.etcd.HideEvents(0)
		w.probe(30 * time.Second)
		w.setDown("checks/c0", true)
		w.probe(time.Minute)
		if o := w.owed(); o["OPENED"] != 2 || o["RESOLVED"] != 1 {
			t.Errorf("owed %v", o)
		}
	})
}

func TestALostAnswerOpensOneIncident(t *testing.T) {
	for lost := 1; lost <= 6; lost++ {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				w.mesh(1)
				w.setDown("checks/c0", true)
				w.etcd.LoseAnswers(lost)
				w.probe(time.Minute)
				open, _, err := w.store.ListOpenIncidents(t.Context())
				if o := w.owed(); err != nil || len(open) != 1 || o["OPENED"] != 1 || len(o) != 1 {
					t.Errorf("%d open, owed %v, %v", len(open), o, err)
				}
			})
		})
	}
}

func TestAMinuteWithoutTheStoreOpensOnceAndNothingThatIsOver(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.mesh(40)
		w.etcd.SetDelay(3 * time.Second) // slow enough that effects queue up behind each other
		for i := range 40 {
			w.setDown(fmt.Sprint("checks/c", i), true)
		}
		w.etcd.SetLeaderless(true)
		w.probe(30 * time.Second)
		// All but one recover before the store does.
		for i := 1; i < 40; i++ {
			w.setDown(fmt.Sprint("checks/c", i), false)
		}
		w.probe(30 * time.Second)
		w.etcd.SetDelay(0)
		w.etcd.SetLeaderless(false)
		w.probe(2 * time.Minute)
		if o := w.owed(); o["OPENED"] != 1 || len(o) != 1 {
			t.Errorf("owed %v; want the one that is down, and none of those that were", o)
		}
	})
}

func TestAnEffectThatWaitedTooLongIsDropped(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.mesh(1)
		w.c.mu.Lock()
		now := w.c.reign
		w.c.mu.Unlock()
		k, _ := w.c.Check("checks/c0")
		e := effect{reign: now, key: k.GetName(), action: openOf(k), wished: time.Now().Add(-effectTimeout)}
		w.c.carryOut(e)
		if open, _, err := w.store.ListOpenIncidents(t.Context()); err != nil || len(open) != 0 {
			t.Fatalf("%d incidents are open by a wish of four seconds ago, %v", len(open), err)
		}
		e.wished = time.Now()
		w.c.carryOut(e)
		if open, _, err := w.store.ListOpenIncidents(t.Context()); err != nil || len(open) != 1 {
			t.Fatalf("%d incidents are open by a fresh wish, %v", len(open), err)
		}
	})
}

func TestAReignThatIsOverWritesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.mesh(1)
		c := w.c
		c.mu.Lock()
		old := c.reign
		c.mu.Unlock()
		if !w.elect.Resign(old.Term) {
			t.Fatal("it did not lead")
		}
		// Another server leads from now on.
		other := election.New(w.etcd.Client(t), election.Config{Server: "servers/b", BootID: "2"})
		ctx, cancel := context.WithCancel(t.Context())
		leads := make(chan struct{})
		w.group.Go(func() {
			_ = other.Run(ctx, func(ctx context.Context, _ election.Reign) error {
				close(leads)
				<-ctx.Done()
				return nil
			})
		})
		defer cancel()
		<-leads
		synctest.Wait()
		before := w.etcd.Revision()
		// A worker that was paused since before wakes up with an effect of the old term, in a reign that does not know yet that it is over.
		ended := false
		stale := &reign{Reign: old.Reign, ctx: context.WithoutCancel(t.Context()), cancel: func(error) { ended = true }}
		k, _ := c.Check("checks/c0")
		c.carryOut(effect{reign: stale, key: k.GetName(), wished: time.Now(), action: openOf(k)})
		if w.etcd.Revision() != before || !ended {
			t.Errorf("revision %d after %d; reign ended: %v", w.etcd.Revision(), before, ended)
		}
		w.setDown("checks/c0", true)
		w.probe(time.Minute)
		if o := w.owed(); len(o) != 0 {
			t.Errorf("owed %v by a server that does not lead", o)
		}
	})
}

func TestStepDownHandsOverAndIsRefusedElsewhere(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.mesh(1)
		term := w.c.Server().Term
		if _, err := w.c.StepDown(term + 1); !fault.IsReason(err, meshv1.ErrorReason_STATE_CONFLICT) {
			t.Errorf("%v", err)
		}
		ended, err := w.c.StepDown(term)
		if err != nil || ended != term {
			t.Errorf("%d, %v", ended, err)
		}
		synctest.Wait()
		if w.c.Server().Leading {
			t.Error("still leading")
		}
		if _, err := w.c.StepDown(0); !fault.IsReason(err, meshv1.ErrorReason_NOT_LEADER) {
			t.Errorf("%v", err)
		}
		time.Sleep(10 * time.Second)
		if i := w.c.Server(); !i.Leading || i.Term <= term {
			t.Errorf("%+v; nobody else stood, so it should lead again in a new term", i)
		}
		w.setDown("checks/c0", true)
		w.probe(time.Minute)
		if o := w.owed(); o["OPENED"] != 1 {
			t.Errorf("owed %v in the new term", o)
		}
	})
}

func TestAFullQueueOfEffectsGivesThemBack(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.mesh(1)
		k, _ := w.c.Check("checks/c0")
		w.c.mu.Lock()
		defer w.c.mu.Unlock()
		given := 0
		// Workers take from the queue meanwhile, far slower than it is filled.
		for i := 0; i < 100*effectQueue && given == 0; i++ {
			if e := w.c.enqueueLocked(openOf(k)); e != nil {
				given++
				if f, ok := e[0].(scheduler.EffectFailed); !ok || f.Key != k.GetName() || f.Retry != retryAfter {
					t.Fatalf("%v", e)
				}
			}
		}
		if given == 0 {
			t.Error("nothing was given back")
		}
	})
}

// collect runs a check and gathers what comes.
func (w *world) collect(check string, probers ...string) (results []string, failures map[string]string, err error) {
	failures = map[string]string{}
	err = w.c.Run(w.t.Context(), check, probers, func(r *meshv1.RunCheckResponse) error {
		if r.GetResult() != nil {
			results = append(results, r.GetResult().GetProber())
		}
		for _, f := range r.GetFailures() {
			failures[f.GetProber()] = f.GetReason()
		}
		return nil
	})
	slices.Sort(results)
	return results, failures, err
}

func TestRunsAnswerRefuseFallSilentOrEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.mesh(1)
		results, failures, err := w.collect("checks/c0")
		if err != nil || len(results) != 3 || len(failures) != 0 {
			t.Errorf("%v, %v, %v", results, failures, err)
		}
		if _, _, err := w.collect("checks/none"); !fault.IsReason(err, meshv1.ErrorReason_RESOURCE_NOT_FOUND) {
			t.Errorf("%v", err)
		}
		if _, _, err := w.collect("checks/c0", "probers/p9"); !fault.IsReason(err, meshv1.ErrorReason_NO_PROBER) {
			t.Errorf("%v", err)
		}
		w.sessions["p1"].answer = func(r *meshv1.RunNow) { w.c.RunRefused("p1", r.GetRunId(), "no ICMP here") }
		w.sessions["p2"].answer = nil
		begun := time.Now()
		results, failures, err = w.collect("checks/c0", "probers/p1", "p2", "probers/p3", "probers/p3", "probers/p9")
		if err != nil || !slices.Equal(results, []string{"probers/p3"}) || failures["probers/p1"] != "no ICMP here" || len(failures) != 3 ||
			!strings.Contains(failures["probers/p2"], "no answer") || !strings.Contains(failures["probers/p9"], "no session") {
			t.Errorf("%v, %v, %v", results, failures, err)
		}
		if d := time.Since(begun); d != 5*time.Second+runGrace {
			t.Errorf("waited %v", d)
		}
		// A session that ends is not waited for.
		w.sessions["p2"].answer = func(*meshv1.RunNow) { w.c.Detach("p2", w.sessions["p2"], false) }
		begun = time.Now()
		if _, failures, err = w.collect("checks/c0", "probers/p2"); err != nil || !strings.Contains(failures["probers/p2"], "session ended") || time.Since(begun) > time.Second {
			t.Errorf("%v, %v after %v", failures, err, time.Since(begun))
		}
		w.c.mu.Lock()
		defer w.c.mu.Unlock()
		if len(w.c.runs) != 0 {
			t.Errorf("%d runs are still waited for", len(w.c.runs))
		}
	})
}

func TestSubscriptionsLoseNoName(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.mesh(1)
		w.setDown("checks/c0", true)
		w.probe(time.Minute)
		open, _, err := w.store.ListOpenIncidents(t.Context())
		if err != nil || len(open) != 1 {
			t.Fatalf("%v, %v", open, err)
		}
		sub := w.c.SubscribeIncidents()
		defer sub.Close()
		// The incident goes while this server sees nothing, and what it missed is compacted: no event tells of it, only the next snapshot.
		w.link.Cut()
		elsewhere := store.New(w.etcd.Client(t), store.Options{})
		w.c.mu.Lock()
		fence := w.c.reign.Fence
		w.c.mu.Unlock()
		inc := open[0].Value
		inc.Incident.State = meshv1.Incident_RESOLVED
		if _, err := elsewhere.ResolveIncident(t.Context(), fence, inc, nil, open[0].ModRevision); err != nil {
			t.Fatal(err)
		}
		w.etcd.Compact(0)
		w.link.Mend()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for {
			names, err := sub.Next(ctx)
			if err != nil {
				t.Fatalf("nobody was told that %s is gone: %v", inc.GetIncident().GetName(), err)
			}
			if slices.Contains(names, inc.GetIncident().GetName()) {
				return
			}
		}
	})
}

func TestAThousandVotesASecondWhileEverybodyReads(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.mesh(100)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					n := 0
					last := ""
					w.c.EachStatus("", func(s *meshv1.CheckStatus) bool {
						if s.GetCheck() <= last {
							t.Errorf("%s after %s", s.GetCheck(), last)
						}
						last = s.GetCheck()
						n++
						return true
					})
					if _, ok := w.c.Status("checks/c7"); !ok || n != 100 {
						t.Errorf("%d statuses", n)
					}
					w.c.Probers()
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		for range 3 {
			w.probe(time.Second)
		}
		cancel()
		wg.Wait()
	})
}

func openOf(k *meshv1.Check) scheduler.Open {
	return scheduler.Open{Key: k.GetName(), CheckRevision: k.GetRevision(), Incident: storedOf(k)}
}
