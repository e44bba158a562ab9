package placement

import "sort"

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
	next := t.onto(serving, known)
	load := make([]int, len(next.Probers))
	orphans := make([]int, 0, 64)
	for i, r := range next.Row {
		if r == Nobody {
			orphans = append(orphans, i)
		} else {
			load[r]++
		}
	}
	a := arranger{table: next, load: load, others: others, serving: indexesOf(next, serving)}
	for _, row := range orphans {
		a.give(row)
	}
	moved := a.level(budget)
	if len(orphans) == 0 && moved == 0 && len(next.Probers) == len(t.Probers) {
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

// without gives the table with the rows of forgotten probers set to Nobody, or the table itself.
func (t *Table) without(known map[string]bool) *Table {
	gone := false
	for _, p := range t.Probers {
		gone = gone || !known[p]
	}
	if !gone {
		return t
	}
	next := &Table{Datacenter: t.Datacenter, Epoch: t.Epoch + 1, Probers: append([]string(nil), t.Probers...), Row: append([]uint16(nil), t.Row...)}
	for i, r := range next.Row {
		if r != Nobody && !known[next.Probers[r]] {
			next.Row[i] = Nobody
		}
	}
	return next
}

// onto gives a copy of the table over the serving probers only, in the order of their names; other rows are Nobody's.
func (t *Table) onto(serving map[string]Prober, known map[string]bool) *Table {
	next := NewTable(t.Datacenter)
	next.Epoch = t.Epoch
	index := map[string]uint16{}
	for name := range serving {
		next.Probers = append(next.Probers, name)
	}
	sort.Strings(next.Probers)
	for i, name := range next.Probers {
		index[name] = uint16(i)
	}
	for i, r := range t.Row {
		if r == Nobody {
			continue
		}
		if n, ok := index[t.Probers[r]]; ok {
			next.Row[i] = n
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

// arranger hands rows to probers.
type arranger struct {
	table   *Table
	load    []int
	serving []Prober
	others  *Map
}

// give hands an ownerless row to the prober with the fewest domains shared with the row's owners elsewhere, among the least loaded.
func (a *arranger) give(row int) {
	best, bestCost := -1, 0
	least := a.load[0]
	for _, l := range a.load {
		least = min(least, l)
	}
	for i := range a.load {
		if a.load[i] > least+Rows/64 {
			continue
		}
		// One shared domain weighs as much as 16 rows of load: independence is worth a slightly uneven share.
		if cost := a.load[i] + 16*a.shared(row, i); best < 0 || cost < bestCost {
			best, bestCost = i, cost
		}
	}
	a.table.Row[row] = uint16(best)
	a.load[best]++
}

// level moves rows from the most to the least loaded until they differ by little, at most budget rows.
func (a *arranger) level(budget int) int {
	n := len(a.load)
	fair := Rows / n
	moved := 0
	for row := 0; row < Rows && moved < budget; row++ {
		// A stride that is coprime to Rows spreads what moves over the whole table.
		r := (row * 2029) % Rows
		from := int(a.table.Row[r])
		if from == Nobody || a.load[from] <= fair+1 {
			continue
		}
		to := -1
		for i := range a.load {
			if a.load[i] < fair && (to < 0 || a.load[i] < a.load[to]) {
				to = i
			}
		}
		if to < 0 {
			break
		}
		a.load[from]--
		a.load[to]++
		a.table.Row[r] = uint16(to)
		moved++
	}
	return moved
}

// shared counts the domain values that prober i has in common with the owners of the row in other datacenters.
func (a *arranger) shared(row, i int) int {
	if a.others == nil {
		return 0
	}
	n := 0
	for _, t := range a.others.tables {
		if t.Datacenter == a.table.Datacenter || t.Row[row] == Nobody {
			continue
		}
		o, ok := a.others.probers[t.Probers[t.Row[row]]]
		if !ok {
			continue
		}
		for k, v := range a.serving[i].Domains {
			if k != "datacenter" && o.Domains[k] == v {
				n++
			}
		}
	}
	return n
}
