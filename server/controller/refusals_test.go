package controller

import (
	"strings"
	"testing"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

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
