package meshtest

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// A server that cannot reach etcd while the others can keeps quiet, and they open an incident of which it hears nothing. When they lose etcd too, it is not the one to
// tell that incident by a break-glass message, whichever place its name gives it: they know that it is open, and say so.
func TestServerThatLostEtcdFirstTellsNothingThatIsOpen(t *testing.T) {
	t.Parallel()
	kinds := []string{"one way from etcd to", "one way to etcd from", "slow to etcd from"}
	if testing.Short() {
		kinds = kinds[:1] // the others lose etcd so, and mostly hear of what is written all the same
	}
	for i, kind := range kinds {
		for _, node := range []string{"follower", "leader"} {
			t.Run(fmt.Sprint(kind, " ", node), func(t *testing.T) {
				t.Parallel()
				p := plan{servers: []string{"a", "b", "c"}, probers: []string{"fra-1", "iad-1", "nrt-1"}, checks: 3, faults: []planned{
					{at: 2 * time.Second, lasts: 50 * time.Second, kind: kind, node: node, n: 3000},
					{at: 8 * time.Second, lasts: 80 * time.Second, kind: "target is down", node: "checks/c0"},
					{at: 25 * time.Second, lasts: time.Duration(15+5*i) * time.Second, kind: "etcd is lost"},
				}}
				inMesh(t, func(m *mesh) {
					w := newWorld(m, p)
					defer w.users.stop()
					w.whole()
					if d := m.box.of("checks/c0"); !slices.Equal(d, once) {
						t.Errorf("told %v\n%s", d, joined(w.log))
						for _, d := range m.box.all() {
							t.Log(d.key, w.since(d.at), d.n.GetSummary())
						}
					}
				})
			})
		}
	}
}
