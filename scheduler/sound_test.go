package scheduler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/grouping"
)

// othersAsked are the checks that somebody is asked about, besides one.
func (r *rig) othersAsked(but string) map[string]int {
	n := map[string]int{}
	for _, a := range r.asked {
		if c := strings.TrimPrefix(a.Run.GetCheck(), "checks/"); c != but {
			n[c]++
		}
	}
	return n
}

// Thirty hosts of a rack die. Before the first of them is confirmed, five others have been asked, on hosts of their own; it is told of with them, and not before.
func TestLabelIsSoundedSoThatTheFirstOfManyWaitsForTheOthers(t *testing.T) {
	r, places := massRig(t, 60, func(i int, c *meshv1.Check) {
		c.Labels = map[string]string{"rack": fmt.Sprint(i % 2), "env": "prod"}
		c.Uri = fmt.Sprintf("tcp://host%d.example.com:%d", i%30, i)
	})
	r.vote("c0003", "ams-1", fail)
	rack, hosts := 0, map[int]bool{}
	for n := range r.othersAsked("c0003") {
		var i int
		if _, err := fmt.Sscanf(n, "c%d", &i); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			rack++
		}
		hosts[i%30] = true
	}
	if rack < 5 || hosts[3] || len(r.othersAsked("c0003")) > 10 {
		t.Fatalf("asked about %v", r.othersAsked("c0003"))
	}
	asked := r.othersAsked("c0003")
	r.votes("c0003", fail, places[1:]...)
	r.wantOwed()
	for n := range asked {
		var i int
		_, _ = fmt.Sscanf(n, "c%d", &i)
		if i%2 == 1 {
			r.votes(n, fail, places...)
		} else {
			r.votes(n, ok, places...)
		}
	}
	r.after(3 * time.Second)
	r.wantOwed("OPENED ")
	if g := r.openGroups(); len(g) != 1 || g[0].GetShared().GetDimension() != "label.rack" || g[0].GetShared().GetValue() != "1" {
		t.Errorf("%v", g)
	}
}

// One check of a rack fails, and the others that are asked answer: it is told of at once.
func TestLoneOutageWaitsForNoLabel(t *testing.T) {
	r, places := massRig(t, 60, func(_ int, c *meshv1.Check) { c.Labels = map[string]string{"rack": "1"} })
	r.vote("c0003", "ams-1", fail)
	for n := range r.othersAsked("c0003") {
		r.votes(n, ok, places...)
	}
	r.votes("c0003", fail, places[1:]...)
	r.wantOwed("OPENED checks/c0003")
	// Another one in the next seconds asks nobody besides its own probers.
	r.asked = nil
	r.vote("c0009", "ams-1", fail)
	if n := r.othersAsked("c0009"); len(n) != 0 {
		t.Errorf("asked about %v", n)
	}
}

// Labels come and go, and the index of them has nobody twice and nobody who is gone.
func TestLabelsAreIndexedAsTheyAre(t *testing.T) {
	m := newMass()
	var all []*check
	for i := range 20 {
		c := &check{name: fmt.Sprint("checks/c", i)}
		all = append(all, c)
		m.setLabels(c, map[string]string{"env": "prod", "rack": fmt.Sprint(i % 3)})
	}
	m.setLabels(all[4], map[string]string{"env": "prod"})
	m.setLabels(all[7], map[string]string{"env": "test", "rack": "1"})
	m.setLabels(all[10], nil)
	for key, want := range map[grouping.Value]int{labelValue("env", "prod"): 18, labelValue("env", "test"): 1, labelValue("rack", "0"): 7, labelValue("rack", "1"): 5, labelValue("rack", "2"): 6} {
		r := m.byShare[key]
		if len(r.list) != want || r.at != nil && len(r.at) != want || r.at == nil && want > ringFew {
			t.Errorf("%s has %d, %d", key, len(r.list), len(r.at))
		}
		for i, c := range r.list {
			if r.at != nil && r.at[c] != i {
				t.Errorf("%s: %s is at %d, not at %d", key, c.name, i, r.at[c])
			}
		}
	}
	for _, c := range all {
		m.setLabels(c, nil)
	}
	if len(m.byShare) != 0 {
		t.Errorf("left: %v", m.byShare)
	}
}

// Forty hosts are aliases of one name, or have certificates of one issuer. When the first of them fails, five others have been asked before it is confirmed: it is told of with them.
func TestProvidersAreSoundedSoThatTheFirstOfManyWaitsForTheOthers(t *testing.T) {
	for name, x := range map[string]struct {
		tells told
		class meshv1.Result_ErrorClass
		named string
	}{
		"alias":  {aliasOf(edge), meshv1.Result_CONNECTION_REFUSED, "cname=" + edge},
		"issuer": {issued(letsEncrypt), meshv1.Result_TLS, "issuer=" + letsEncrypt},
	} {
		t.Run(name, func(t *testing.T) {
			r, places := sharedRig(t, 40, x.tells)
			first := func(i int) bool { return i == 3 }
			r.tellOf(first, fail, x.class, x.tells, places[0])
			asked := r.othersAsked("c0003")
			if len(asked) != 5 {
				t.Fatalf("asked about %v", asked)
			}
			r.tellOf(first, fail, x.class, x.tells, places[1:]...)
			r.wantOwed()
			names := r.s.Names()
			r.tellOf(func(i int) bool { return asked[strings.TrimPrefix(names[i], "checks/")] > 0 }, fail, x.class, x.tells, places...)
			r.after(3 * time.Second)
			r.wantOwed("OPENED ")
			if r.named() != x.named {
				t.Error(r.named())
			}
		})
	}
}

// A certificate expires, and the others of its issuer, who are asked, answer: it is told of at once. One that refuses connections asks nobody for its issuer's sake.
func TestLoneOutageWaitsForNoProvider(t *testing.T) {
	r, places := sharedRig(t, 40, issued(letsEncrypt))
	first, answer := func(i int) bool { return i == 3 }, func(i int) bool { return i != 3 && i != 4 }
	r.tellOf(first, fail, meshv1.Result_TLS, issued(letsEncrypt), places[0])
	r.answerAsked(answer, issued(letsEncrypt))
	r.tellOf(first, fail, meshv1.Result_TLS, issued(letsEncrypt), places[1:]...)
	r.wantOwed("OPENED checks/c0003")
	r.after(11 * time.Second)
	r.asked = nil
	r.tellOf(func(i int) bool { return i == 4 }, fail, meshv1.Result_CONNECTION_REFUSED, nil, places[0])
	if n := r.othersAsked("c0004"); len(n) != 0 {
		t.Errorf("asked about %v", n)
	}
}

// Labels with as many checks and the same value are sounded in the same order on every server.
func TestLabelsOfOneValueAreSoundedInOrder(t *testing.T) {
	a, b := shared{value: labelValue("env", "x")}, shared{value: labelValue("tier", "x")}
	for _, list := range [][]shared{{a, b}, {b, a}} {
		if got := fewest(list, 1); got[0].value != a.value {
			t.Errorf("got %v", got[0].value)
		}
	}
}
