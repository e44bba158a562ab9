package scheduler

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestOldLeaderActsNoMoreAndTheNewOneWishesAtOnce(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.apply(Leadership{})
	r.acted = nil
	r.votes("shop", fail, "ams", "fra", "iad")
	r.after(10 * time.Second)
	r.want("shop", "DOWN QUORUM_DOWN")
	for _, a := range r.acted {
		switch a.(type) {
		case Open, Confirm, Resolve, MoveRows:
			t.Fatalf("a server that does not lead wished for %T", a)
		}
	}
	r.apply(Leadership{Leading: true, Term: 2})
	r.wantOwed("OPENED checks/shop")
}

func TestNewLeaderAsksForTheRunsItHadInMind(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.apply(Leadership{})
	r.votes("shop", fail, "fra")
	if len(r.asked) != 0 {
		t.Fatal("a server that does not lead asked for a run")
	}
	r.apply(Leadership{Leading: true, Term: 2})
	if len(r.asked) != 3 {
		t.Fatalf("the new leader asked for %d runs, want 3", len(r.asked))
	}
}

func TestProberWhoseServerDiedIsAskedAgainAtItsNextOne(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.after(time.Second)
	r.votes("shop", fail, "fra")
	run := map[string]string{}
	for _, a := range r.asked {
		run[a.Prober] = a.Run.GetRunId()
	}
	prober := func(datacenter string) string {
		for p := range run {
			if strings.HasPrefix(p, datacenter) {
				return p
			}
		}
		t.Fatalf("nobody of %s was asked: %v", datacenter, run)
		return ""
	}
	ams, iad := prober("ams"), prober("iad")
	// The run of one went to a server that was dead already; that of the other could not be sent at all.
	r.apply(RunRefused{Prober: iad, RunID: run[iad]})
	r.asked = nil
	r.apply(ProberOnline{Name: ams, Server: "servers/b"})
	if len(r.asked) != 1 || r.asked[0].Prober != ams || r.asked[0].Run.GetRunId() != run[ams] {
		t.Errorf("%s moved and was asked %v, want the same run again", ams, r.asked)
	}
	r.asked = nil
	r.apply(ProberOnline{Name: iad, Server: "servers/b"})
	if len(r.asked) != 1 || r.asked[0].Prober != iad {
		t.Errorf("%s moved and was asked %v, want a new run", iad, r.asked)
	}
	r.asked = nil
	r.apply(ProberOnline{Name: iad, Server: "servers/b"})
	if len(r.asked) != 0 {
		t.Errorf("%s did not move and was asked %v", iad, r.asked)
	}
	r.votes("shop", ok, "ams", "iad")
	r.votes("shop", fail, "fra")
	r.asked = nil
	r.after(100 * time.Millisecond)
	r.apply(ProberOnline{Name: iad, Server: "servers/c"})
	if len(r.asked) != 0 {
		t.Errorf("%s has answered since, and was asked %v", iad, r.asked)
	}
}

func TestNewLeaderThatHearsNobodyOpensNothingBeforeItIsWarm(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	for i := range 8 {
		r.check(tcpCheck(fmt.Sprint("other", i), 2))
	}
	r.apply(Leadership{Leading: true, Term: 2})
	r.votes("shop", fail, "ams", "fra", "iad")
	r.after(4 * time.Second)
	r.wantOwed()
	r.after(2 * time.Second)
	r.wantOwed("OPENED checks/shop")
}

func TestRefusedEffectIsNotWishedForInATightLoop(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.held = true
	r.votes("shop", fail, "ams", "fra", "iad")
	count := func() (n int) {
		for _, a := range r.acted {
			if _, yes := a.(Open); yes {
				n++
			}
		}
		return n
	}
	r.apply(EffectFailed{Key: "checks/shop"})
	if n := count(); n != 1 {
		t.Fatalf("%d wishes at once, want 1", n)
	}
	r.after(200 * time.Millisecond)
	if n := count(); n != 2 {
		t.Fatalf("%d wishes after 200 ms, want 2", n)
	}
}
