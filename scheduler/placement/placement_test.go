package placement

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func prober(name, dc string, domains ...string) Prober {
	p := Prober{Name: name, Datacenter: dc, Domains: map[string]string{"datacenter": dc}, Capabilities: map[string]bool{"tcp": true}, Serving: true}
	for i := 0; i+1 < len(domains); i += 2 {
		p.Domains[domains[i]] = domains[i+1]
	}
	return p
}

// mesh are the settled tables of so many datacenters with so many probers each.
func mesh(datacenters, each int) ([]*Table, []Prober) {
	var probers []Prober
	for d := range datacenters {
		for i := range each {
			dc := fmt.Sprintf("dc%02d", d)
			probers = append(probers, prober(fmt.Sprintf("%s-%d", dc, i), dc))
		}
	}
	var tables []*Table
	for d := range datacenters {
		tables = append(tables, Rebalance(NewTable(fmt.Sprintf("dc%02d", d)), probers, nil, Rows))
	}
	return tables, probers
}

func checkNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("checks/check-%d", i)
	}
	return names
}

func TestOneProberOfEachDatacenterBeforeASecondOfAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dcs, each := rapid.IntRange(1, 6).Draw(t, "dcs"), rapid.IntRange(1, 4).Draw(t, "each")
		tables, probers := mesh(dcs, each)
		want := rapid.IntRange(1, 30).Draw(t, "want")
		got := NewMap(tables, probers).Place(Check{Name: rapid.StringMatching(`checks/[a-z]{1,9}`).Draw(t, "name"), Probers: want, Needs: []string{"tcp"}})
		if len(got) != min(want, dcs*each) {
			t.Fatalf("%d probers, want %d", len(got), min(want, dcs*each))
		}
		seen, per := map[string]bool{}, map[string]int{}
		for i, p := range got {
			if seen[p] {
				t.Fatalf("%s twice in %v", p, got)
			}
			seen[p] = true
			per[p[:4]]++
			if per[p[:4]] > i/dcs+1 {
				t.Fatalf("%v takes a second of %s before one of each", got, p[:4])
			}
		}
	})
}

func TestProberWithoutTheCapabilityIsPassedOver(t *testing.T) {
	tables, probers := mesh(3, 3)
	for i := range probers {
		if probers[i].Name != "dc01-2" && probers[i].Datacenter == "dc01" {
			probers[i].Capabilities = nil
		}
	}
	m := NewMap(tables, probers)
	for _, n := range checkNames(200) {
		got := m.Place(Check{Name: n, Probers: 3, Needs: []string{"tcp"}})
		if len(got) != 3 || !contains(got, "dc01-2") {
			t.Fatalf("%s is placed on %v", n, got)
		}
	}
}

func TestOnlyTheDatacentersAskedForAreUsed(t *testing.T) {
	tables, probers := mesh(5, 2)
	got := NewMap(tables, probers).Place(Check{Name: "checks/a", Probers: 5, Datacenters: []string{"dc01", "dc03"}})
	if len(got) != 4 {
		t.Fatalf("%v, want the four of two datacenters", got)
	}
	for _, p := range got {
		if p[:4] != "dc01" && p[:4] != "dc03" {
			t.Fatalf("%v leaves the datacenters asked for", got)
		}
	}
}

func TestProberThatMovedHouseIsNotTakenFromItsOldTable(t *testing.T) {
	tables, probers := mesh(2, 1)
	probers[0].Datacenter = "dc09"
	if got := NewMap(tables, probers).Place(Check{Name: "checks/a", Probers: 2}); len(got) != 1 || got[0] != "dc01-0" {
		t.Fatalf("placed on %v", got)
	}
}

// moved is the share of (check, datacenter) pairs that differ.
func moved(a, b *Map, checks []string, n int) float64 {
	diff := 0
	for _, c := range checks {
		was := map[string]bool{}
		for _, p := range a.Place(Check{Name: c, Probers: n}) {
			was[p] = true
		}
		for _, p := range b.Place(Check{Name: c, Probers: n}) {
			if !was[p] {
				diff++
			}
		}
	}
	return float64(diff) / float64(len(checks)*n)
}

func TestAddingADatacenterMovesItsShareOnly(t *testing.T) {
	checks := checkNames(4000)
	for _, dcs := range []int{3, 5, 10, 30} {
		before, probers := mesh(dcs, 2)
		after, more := mesh(dcs+1, 2)
		got := moved(NewMap(before, probers), NewMap(after, more), checks, 3)
		want := 1 / float64(dcs+1)
		if got > want*1.15 || got < want*0.85 {
			t.Errorf("%d datacenters and one more: %.3f of the placements moved, want %.3f", dcs, got, want)
		}
		if back := moved(NewMap(after, more), NewMap(before, probers), checks, 3); math.Abs(back-got) > 1e-9 {
			t.Errorf("removing it moved %.3f, adding it %.3f", back, got)
		}
	}
}

func TestDatacentersGetChecksByTheirNumberOfProbers(t *testing.T) {
	probers := []Prober{prober("a-0", "a"), prober("b-0", "b"), prober("b-1", "b"), prober("b-2", "b")}
	m := NewMap([]*Table{Rebalance(NewTable("a"), probers, nil, Rows), Rebalance(NewTable("b"), probers, nil, Rows)}, probers)
	n := 0
	for _, c := range checkNames(8000) {
		if m.Place(Check{Name: c, Probers: 1})[0][0] == 'b' {
			n++
		}
	}
	if share := float64(n) / 8000; share < 0.73 || share > 0.77 {
		t.Fatalf("three of four probers get %.3f of the checks", share)
	}
}

func TestPlainPlacementDependsOnItsOwnDatacentersOnly(t *testing.T) {
	tables, probers := mesh(6, 2)
	m := NewMap(tables, probers)
	other := append([]*Table(nil), tables...)
	turned := &Table{Datacenter: "dc05", Probers: tables[5].Probers, Row: make([]uint16, Rows)}
	for i, r := range tables[5].Row {
		turned.Row[i] = 1 - r
	}
	other[5] = turned
	changed := NewMap(other, probers)
	plainOnes := 0
	for _, n := range checkNames(500) {
		a, plain := m.PlacePlain(Check{Name: n, Probers: 2})
		b := changed.Place(Check{Name: n, Probers: 2})
		if !plain || a[0][:4] == "dc05" || a[1][:4] == "dc05" {
			continue
		}
		if plainOnes++; fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("%s was placed on %v, now on %v", n, a, b)
		}
	}
	if plainOnes < 100 {
		t.Fatal("hardly any placement was plain")
	}
	if _, plain := m.PlacePlain(Check{Name: "checks/a", Probers: 9}); plain {
		t.Fatal("a placement in two rounds is called plain")
	}
}

func BenchmarkPlace(b *testing.B) {
	tables, probers := mesh(50, 4)
	m := NewMap(tables, probers)
	checks := checkNames(100_000)
	b.ReportAllocs()
	for b.Loop() {
		for _, c := range checks {
			m.Place(Check{Name: c, Probers: 5, Needs: []string{"tcp"}})
		}
	}
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "checks/s")
}

// Nobody in most datacenters can do what is asked for: the walk must end soon.
func BenchmarkPlaceRareCapability(b *testing.B) {
	tables, probers := mesh(50, 4)
	probers[0].Capabilities = map[string]bool{"icmp": true}
	m := NewMap(tables, probers)
	for b.Loop() {
		m.Place(Check{Name: "checks/a", Probers: 5, Needs: []string{"icmp"}})
	}
}
