package placement

import (
	"slices"
	"sort"
)

// Rebalance gives the table as it should be: every row of a prober that is not serving goes to one that is, and rows move from probers with more than
// their fair share to those with less, at most budget of them. It gives the old table itself when nothing is to change. When no prober of the datacenter
// serves, rows stay where they are: probers that have lost their servers go on probing what they hold.
//
// Among probers with room, a row goes to the one that shares the fewest failure domains with the owners of the same row in the other tables, so that the
// probers of one check differ in more than the datacenter where that is possible.
func Rebalance(t *Table, probers []Prober, others *Map, budget int) *Table {
	serving, known := split(t.Datacenter, probers)
	if len(serving) == 0 {
		return t.without(known)
	}
	next := t.onto(serving)
	load := make([]int, len(next.Probers))
	orphans := make([]int, 0, 64)
	for i, r := range next.Row {
		if r == Nobody {
			orphans = append(orphans, i)
		} else {
			load[r]++
		}
	}
	a := arranger{table: next, load: load, others: others, serving: indexesOf(next, serving), slack: max(1, Rows/len(load)/16)}
	for _, row := range orphans {
		a.give(row)
	}
	moved := a.level(budget)
	if len(orphans) == 0 && moved == 0 && sameNames(next.Probers, t.Probers) {
		return t
	}
	next.Epoch = t.Epoch + 1
	return next
}

// split gives the serving probers of the datacenter by name, and all names that are known there.
func split(datacenter string, probers []Prober) (serving map[string]Prober, known map[string]bool) {
	serving, known = map[string]Prober{}, map[string]bool{}
	for _, p := range probers {
		if p.Datacenter != datacenter {
			continue
		}
		known[p.Name] = true
		if p.Serving {
			serving[p.Name] = p
		}
	}
	return serving, known
}

// without gives the table without the forgotten probers, their rows set to Nobody, or the table itself.
func (t *Table) without(known map[string]bool) *Table {
	kept := map[string]Prober{}
	for _, p := range t.Probers {
		if known[p] {
			kept[p] = Prober{}
		}
	}
	if len(kept) == len(t.Probers) {
		return t
	}
	next := t.onto(kept)
	next.Epoch++
	return next
}

// onto gives a copy of the table over the serving probers only, in the order of their names; other rows are Nobody's.
func (t *Table) onto(serving map[string]Prober) *Table {
	next := NewTable(t.Datacenter)
	next.Epoch = t.Epoch
	for name := range serving {
		next.Probers = append(next.Probers, name)
	}
	sort.Strings(next.Probers)
	moved := make([]uint16, len(t.Probers)) // from the old indexes to the new
	for i, name := range t.Probers {
		moved[i] = Nobody
		if n, ok := slices.BinarySearch(next.Probers, name); ok {
			moved[i] = uint16(n)
		}
	}
	for i, r := range t.Row {
		if r != Nobody {
			next.Row[i] = moved[r]
		}
	}
	return next
}

func indexesOf(t *Table, serving map[string]Prober) []Prober {
	list := make([]Prober, len(t.Probers))
	for i, name := range t.Probers {
		list[i] = serving[name]
	}
	return list
}

// sameNames tells whether both lists have the same names, in any order.
func sameNames(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !contains(b, x) {
			return false
		}
	}
	return true
}

// arranger hands rows to probers.
type arranger struct {
	table   *Table
	load    []int
	serving []Prober
	others  *Map
	// slack is by how much loads may differ from the fair share: a sixteenth. Closer is not worth moving checks for.
	slack int
}

// give hands an ownerless row to the prober with the fewest domains shared with the row's owners elsewhere, among the least loaded.
func (a *arranger) give(row int) {
	best, bestCost := -1, 0
	least := slices.Min(a.load)
	elsewhere := a.elsewhere(row)
	for i := range a.load {
		if a.load[i] >= least+a.slack {
			continue
		}
		// One shared domain weighs as much as 16 rows of load: independence is worth a slightly uneven share.
		if cost := a.load[i] + 16*shared(&a.serving[i], elsewhere); best < 0 || cost < bestCost {
			best, bestCost = i, cost
		}
	}
	a.table.Row[row] = uint16(best)
	a.load[best]++
}

// level moves rows from the most to the least loaded until none has more than its fair share and the slack, nor less, at most budget rows.
func (a *arranger) level(budget int) int {
	fair := Rows / len(a.load)
	moved := 0
	for row := 0; row < Rows && moved < budget; row++ {
		// A stride that is coprime to Rows spreads what moves over the whole table.
		r := (row * 2029) % Rows
		from, to := int(a.table.Row[r]), 0
		for i := range a.load {
			if a.load[i] < a.load[to] {
				to = i
			}
		}
		if slices.Max(a.load) <= fair+a.slack && a.load[to] >= fair-a.slack {
			break
		}
		if a.load[from] <= fair+1 || a.load[to] >= fair || (a.load[from] <= fair+a.slack && a.load[to] >= fair-a.slack) {
			continue
		}
		a.load[from]--
		a.load[to]++
		a.table.Row[r] = uint16(to)
		moved++
	}
	return moved
}

type domain struct{ key, value string }

// elsewhere counts the domain values of the owners of the row in other datacenters.
func (a *arranger) elsewhere(row int) map[domain]int {
	if a.others == nil || len(a.serving) == 1 {
		return nil
	}
	seen := map[domain]int{}
	for i, t := range a.others.tables {
		if t.Datacenter == a.table.Datacenter || t.Row[row] == Nobody {
			continue
		}
		if o := a.others.owners[i][t.Row[row]]; o != nil {
			for k, v := range o.Domains {
				seen[domain{k, v}]++
			}
		}
	}
	return seen
}

// shared counts the domain values that the prober has in common with those.
func shared(p *Prober, elsewhere map[domain]int) int {
	n := 0
	if len(elsewhere) == 0 {
		return 0
	}
	for k, v := range p.Domains {
		if k != "datacenter" {
			n += elsewhere[domain{k, v}]
		}
	}
	return n
}
