package placement

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func owners(t *Table) map[string]int {
	load := map[string]int{}
	for _, r := range t.Row {
		if r == Nobody {
			load[""]++
		} else {
			load[t.Probers[r]]++
		}
	}
	return load
}

func differ(a, b *Table) (n int) {
	name := func(t *Table, i int) string {
		if t.Row[i] == Nobody {
			return ""
		}
		return t.Probers[t.Row[i]]
	}
	for i := range a.Row {
		if name(a, i) != name(b, i) {
			n++
		}
	}
	return n
}

// genProbers are up to six of one datacenter, some of which do not serve.
func genProbers(t *rapid.T, label string) []Prober {
	var list []Prober
	for i := range 6 {
		if rapid.Bool().Draw(t, fmt.Sprint(label, i)) {
			p := prober(fmt.Sprintf("fra-%d", i), "fra", "storage", fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "storage")))
			p.Serving = rapid.IntRange(0, 3).Draw(t, "serving") > 0
			list = append(list, p)
		}
	}
	return list
}

func serving(list []Prober) (n int) {
	for _, p := range list {
		if p.Serving {
			n++
		}
	}
	return n
}

func TestRebalanceMovesLittleOwnsEveryRowAndSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := NewTable("fra")
		for step := range 4 {
			probers, budget := genProbers(t, fmt.Sprint("step", step)), rapid.IntRange(0, 300).Draw(t, "budget")
			before := owners(table)
			next := Rebalance(table, probers, nil, budget)
			if !next.Valid() {
				t.Fatal("the table is not valid")
			}
			// What must move: rows of nobody, and of those that no longer serve.
			must := before[""]
			alive := map[string]bool{}
			for _, p := range probers {
				alive[p.Name] = p.Serving
			}
			for name, n := range before {
				if name != "" && !alive[name] {
					must += n
				}
			}
			if n := serving(probers); n > 0 {
				if owners(next)[""] != 0 {
					t.Fatalf("%d rows have no owner although %d probers serve", owners(next)[""], n)
				}
				if d := differ(table, next); d > must+budget {
					t.Fatalf("%d rows moved; %d had to and the budget is %d", d, must, budget)
				}
			}
			for name := range owners(next) {
				if _, known := alive[name]; name != "" && !known {
					t.Fatalf("%s is forgotten and owns rows", name)
				}
			}
			table = next
			for range 100 {
				if next = Rebalance(table, probers, nil, Rows); next == table {
					break
				}
				table = next
			}
			if Rebalance(table, probers, nil, Rows) != table {
				t.Fatal("rows go on moving without a cause")
			}
		}
	})
}

func TestSharesAreFairWithinASixteenth(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 20, 50} {
		tables, _ := mesh(1, n)
		fair := Rows / n
		for name, load := range owners(tables[0]) {
			if load < fair-fair/16-1 || load > fair+fair/16+1 {
				t.Errorf("%d probers: %s has %d rows, the fair share is %d", n, name, load, fair)
			}
		}
	}
}

func TestNewProberGetsItsShareWithinTheBudget(t *testing.T) {
	one, two := prober("fra-0", "fra"), prober("fra-1", "fra")
	table := Rebalance(NewTable("fra"), []Prober{one}, nil, 0)
	steps := 0
	for ; steps < 100; steps++ {
		next := Rebalance(table, []Prober{one, two}, nil, 163)
		if next == table {
			break
		}
		if d := differ(table, next); d > 163 {
			t.Fatalf("%d rows moved with a budget of 163", d)
		}
		table = next
	}
	if load := owners(table); load["fra-1"] < Rows/2-Rows/32 || steps > 13 {
		t.Fatalf("after %d steps fra-1 has %d rows", steps, load["fra-1"])
	}
}

func TestRowsStayWhenNobodyServes(t *testing.T) {
	tables, probers := mesh(1, 2)
	probers[0].Serving, probers[1].Serving = false, false
	if Rebalance(tables[0], probers, nil, Rows) != tables[0] {
		t.Fatal("rows were moved although nobody can take them")
	}
	next := Rebalance(tables[0], probers[:1], nil, Rows)
	if load := owners(next); load["dc00-1"] != 0 || load["dc00-0"] == 0 {
		t.Fatalf("owners %v after one was forgotten", load)
	}
	if Rebalance(next, probers[:1], nil, Rows) != next {
		t.Fatal("forgetting does not settle")
	}
}

func TestSameRowInDifferentDatacentersAvoidsSharedStorage(t *testing.T) {
	var probers []Prober
	for _, dc := range []string{"fra", "iad"} {
		probers = append(probers, prober(dc+"-a", dc, "storage", "san-1"), prober(dc+"-b", dc, "storage", "san-2"))
	}
	fra := Rebalance(NewTable("fra"), probers, nil, Rows)
	iad := Rebalance(NewTable("iad"), probers, NewMap([]*Table{fra}, probers), Rows)
	shared := 0
	for i := range Rows {
		if fra.Probers[fra.Row[i]][3:] == iad.Probers[iad.Row[i]][3:] {
			shared++
		}
	}
	if shared > Rows/5 {
		t.Fatalf("%d of %d rows share their storage, by chance it would be half", shared, Rows)
	}
}

func TestTableThatCannotBeReadIsNotValid(t *testing.T) {
	short := NewTable("fra")
	short.Row = short.Row[:10]
	wrong := NewTable("fra")
	wrong.Row[7] = 3
	if short.Valid() || wrong.Valid() || !NewTable("fra").Valid() {
		t.Fatal("validity is judged wrongly")
	}
}

func BenchmarkRebalanceFirstTime(b *testing.B) {
	tables, probers := mesh(50, 5)
	for i := range probers {
		probers[i].Domains["provider"] = fmt.Sprint(i % 7)
		probers[i].Domains["build"] = fmt.Sprint(i % 2)
	}
	world := NewMap(tables, probers)
	for b.Loop() {
		Rebalance(NewTable("dc00"), probers, world, Rows)
	}
}
