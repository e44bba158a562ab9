package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// refuse has a prober at another server refuse so many checks besides one, which is the last of them in order; they are said in none.
func refuse(c *Controller, prober, check string, others int) {
	p := &peerv1.Presence{Prober: prober, BootId: "1", Since: timestamppb.Now()}
	p.Refusals = append(p.Refusals, &meshv1.AssignmentRefusal{Check: check, Reason: "this prober can send no ICMP."})
	for i := range others {
		p.Refusals = append(p.Refusals, &meshv1.AssignmentRefusal{Check: fmt.Sprintf("checks/a%d", (i*7919+1)%others), Reason: "no"})
	}
	c.PeerPresences("servers/b", false, []*peerv1.Presence{p})
}

// A listing asks for each check, under the mutex that votes wait for. A walk through all that a prober refuses takes ten thousand times as long when there are ten thousand times as many;
// the shortest of many tries is compared, which a busy machine does not lengthen.
func TestARefusalIsFoundWithoutAWalkThroughAllOthers(t *testing.T) {
	cost := func(others int) time.Duration {
		c := standing(t, 1)
		refuse(c, "fra-1", "checks/c0", others)
		least := time.Hour
		for range 100 {
			begun := time.Now()
			for range 20 {
				c.mu.Lock()
				found := len(c.refusals("checks/c0"))
				c.mu.Unlock()
				if found != 1 {
					t.Fatalf("%d refusals of the check among %d others; want 1", found, others)
				}
			}
			least = min(least, time.Since(begun))
		}
		return least
	}
	few, many := cost(10), cost(100_000)
	t.Logf("20 look-ups take %s among 10 others, %s among 100,000", few, many)
	if many > 20*few {
		t.Errorf("20 look-ups take %s among 10 others, but %s among 100,000: the others are walked through", few, many)
	}
}

func TestACheckThatAProberRefusesSaysSoEverywhere(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mesh(2)
		s := w.sessions["p2"]
		s.mu.Lock()
		s.refusals = []*meshv1.AssignmentRefusal{{Check: "checks/c1", Reason: "this prober can send no ICMP."}}
		s.mu.Unlock()
		const want = "p2 refuses to run it: this prober can send no ICMP; it has no vote until that is mended, or the prober is drained (probemesh drain prober p2)"
		seen := map[string][]string{}
		w.c.EachStatus("", func(st *meshv1.CheckStatus) bool {
			seen[st.GetCheck()] = st.GetWarnings()
			return true
		})
		if len(seen["checks/c0"]) != 0 || len(seen["checks/c1"]) != 1 || seen["checks/c1"][0] != want {
			t.Errorf("listed with %q", seen)
		}
		if st, _ := w.c.Status("checks/c1"); len(st.GetWarnings()) != 1 || st.GetWarnings()[0] != want {
			t.Errorf("status with %q", st.GetWarnings())
		}
		e, _ := w.c.Explain("checks/c1")
		if got := e.GetStatus().GetWarnings(); len(got) != 1 || !strings.Contains(e.GetText(), want) {
			t.Errorf("explained with %q in\n%s", got, e.GetText())
		}
	})
}
