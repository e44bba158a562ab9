package controller

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestAdHocRunsWorkFromEveryServer(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		for name, w := range x.servers {
			results, failures, err := w.collect("checks/c0")
			if err != nil || len(results) != 3 || len(failures) != 0 {
				t.Errorf("server %s: %v, %v, %v", name, results, failures, err)
			}
		}
		c := x.servers["c"]
		p1, p2 := x.servers["a"].sessions["p1"], x.servers["b"].sessions["p2"]
		p1.answer = func(r *meshv1.RunNow) { x.servers["a"].c.RunRefused("p1", r.GetRunId(), "no ICMP here") }
		begun := time.Now()
		results, failures, err := c.collect("checks/c0")
		if err != nil || !slices.Equal(results, []string{"probers/p2", "probers/p3"}) || failures["probers/p1"] != "no ICMP here" || time.Since(begun) > time.Second {
			t.Errorf("%v, %v, %v after %v", results, failures, err, time.Since(begun))
		}
		// One does not answer, and its server dies meanwhile.
		p2.answer = func(*meshv1.RunNow) { x.isolate("b") }
		results, failures, err = c.collect("checks/c0", "p2", "p3")
		if err != nil || !slices.Equal(results, []string{"probers/p3"}) || !strings.Contains(failures["probers/p2"], "servers/b, which held its session, is not heard") {
			t.Errorf("%v, %v, %v", results, failures, err)
		}
		if took := time.Since(begun); took > 4*time.Second {
			t.Errorf("told after %v", took)
		}
		if _, _, err := c.collect("checks/c0", "p2"); !fault.IsReason(err, meshv1.ErrorReason_NO_PROBER) {
			t.Errorf("%v", err)
		}
		c.c.mu.Lock()
		defer c.c.mu.Unlock()
		if len(c.c.runs) != 0 {
			t.Errorf("%d runs are still waited for", len(c.c.runs))
		}
	})
}

// A prober that has moved is asked at both servers; the refusal of the one that lost it does not end the waiting.
func TestProberThatMovesStillAnswersARun(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		hung := x.servers["a"].sessions["p1"]
		hung.answer = func(r *meshv1.RunNow) { x.servers["a"].c.RunRefused("p1", r.GetRunId(), "it hangs") }
		next := x.attach("p1", "b")
		next.answer = func(r *meshv1.RunNow) {
			time.Sleep(time.Second)
			x.servers["b"].cast("p1", r.GetCheck(), r.GetRunId())
		}
		time.Sleep(100 * time.Millisecond)
		results, failures, err := x.servers["c"].collect("checks/c0", "p1")
		if err != nil || !slices.Equal(results, []string{"probers/p1"}) {
			t.Errorf("%v, %v, %v", results, failures, err)
		}
	})
}

// It was asked where it was, and answers where it is; at the server that waits, the end of its old session is known before the answer.
func TestProberThatMovesInTheMiddleOfARunAnswersFromTheOtherServer(t *testing.T) {
	inTrio(t, func(x *trio) {
		t := x.t
		x.spread(1)
		old := x.servers["a"].sessions["p1"]
		old.answer = func(r *meshv1.RunNow) {
			x.attach("p1", "b").answer = nil
			time.Sleep(time.Second)
			x.servers["a"].c.Detach("p1", old, false)
			time.Sleep(time.Second)
			x.servers["b"].cast("p1", r.GetCheck(), r.GetRunId())
		}
		results, failures, err := x.servers["c"].collect("checks/c0", "p1")
		if err != nil || !slices.Equal(results, []string{"probers/p1"}) {
			t.Errorf("%v, %v, %v", results, failures, err)
		}
	})
}
