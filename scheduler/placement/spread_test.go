package placement

import (
	"fmt"
	"slices"
	"testing"
)

// spreadWorld is five datacenters with two probers each: in each one of provider x, and one of a provider that two datacenters share.
func spreadWorld() *Map {
	var probers []Prober
	var tables []*Table
	for i, d := range []string{"ams", "fra", "iad", "nrt", "syd"} {
		for n, provider := range []string{"x", fmt.Sprint("p", i/2)} {
			probers = append(probers, Prober{Name: fmt.Sprintf("%s-%d", d, n), Datacenter: d, Serving: true, Capabilities: map[string]bool{"tcp": true},
				Domains: map[string]string{"provider": provider, "os": "debian"}})
		}
	}
	for _, d := range []string{"ams", "fra", "iad", "nrt", "syd"} {
		tables = append(tables, Rebalance(NewTable(d), probers, NewMap(nil, probers), Rows))
	}
	return NewMap(tables, probers)
}

func providers(m *Map, names []string) (list []string) {
	for _, owners := range m.owners {
		for _, p := range owners {
			if slices.Contains(names, p.Name) {
				list = append(list, p.Domains["provider"])
			}
		}
	}
	slices.Sort(list)
	return list
}

func TestProbersOfACheckShareNoProviderWhereThereAreEnough(t *testing.T) {
	m := spreadWorld()
	shared := 0
	for i := range 500 {
		c := Check{Name: fmt.Sprint("checks/c", i), Probers: 3, Needs: []string{"tcp"}}
		if p := providers(m, m.Place(c)); len(slices.Compact(p)) < 3 {
			shared++
		}
		c.Spread = []string{"provider", "network", "os"}
		names := m.Place(c)
		p := providers(m, names)
		places := map[string]bool{}
		for _, n := range names {
			places[n[:3]] = true
		}
		if len(p) != 3 || len(slices.Compact(p)) != 3 || len(places) != 3 {
			t.Fatalf("%s: %v of providers %v", c.Name, names, p)
		}
		if again := m.Place(c); !slices.Equal(again, names) {
			t.Fatalf("%v, then %v", names, again)
		}
	}
	if shared < 100 {
		t.Errorf("only %d of 500 share a provider without spread: the test shows nothing", shared)
	}
}

func TestPlacesAreRatherSharedThanLeftEmpty(t *testing.T) {
	m := spreadWorld()
	for i := range 100 {
		c := Check{Name: fmt.Sprint("checks/c", i), Probers: 5, Needs: []string{"tcp"}, Spread: []string{"provider"}}
		names := m.Place(c)
		places := map[string]bool{}
		for _, n := range names {
			places[n[:3]] = true
		}
		if p := providers(m, names); len(names) != 5 || len(places) != 5 || len(slices.Compact(slices.Clone(p))) < 3 {
			t.Fatalf("%v of providers %v; want three at least", names, p)
		}
		c.Probers = 10
		if names := m.Place(c); len(names) != 10 {
			t.Fatalf("%v", names)
		}
	}
}

func TestDimensionThatAllShareChangesNoPlacement(t *testing.T) {
	m := spreadWorld()
	for i := range 100 {
		c := Check{Name: fmt.Sprint("checks/c", i), Probers: 3, Needs: []string{"tcp"}}
		with := c
		with.Spread = []string{"os", "nothing"}
		a, plainA := m.PlacePlain(c)
		b, plainB := m.PlacePlain(with)
		if !slices.Equal(a, b) || plainA != plainB {
			t.Fatalf("%v, %v", a, b)
		}
	}
}
