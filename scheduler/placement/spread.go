package placement

import (
	"slices"
	"sort"
)

// Varied are the dimensions in which the probers in service have two values at least, sorted. When they change, any placement may.
func (m *Map) Varied() []string { return m.varied }

func varied(probers []Prober) (list []string) {
	first, more := map[string]string{}, map[string]bool{}
	for i := range probers {
		if !probers[i].Serving {
			continue
		}
		for k, v := range probers[i].Domains {
			if old, ok := first[k]; !ok {
				first[k] = v
			} else if old != v {
				more[k] = true
			}
		}
	}
	for k := range more {
		list = append(list, k)
	}
	sort.Strings(list)
	return list
}

// spreadable are those of the dimensions that can be spread at all.
func (m *Map) spreadable(dimensions []string) []string {
	n := 0
	for _, d := range dimensions {
		if contains(m.varied, d) {
			n++
		}
	}
	if n == len(dimensions) {
		return dimensions
	}
	list := make([]string, 0, n)
	for _, d := range dimensions {
		if contains(m.varied, d) {
			list = append(list, d)
		}
	}
	return list
}

// apart keeps the probers of a check apart in some dimensions.
type apart struct {
	dimensions []string
	taken      []*Prober
	// later are datacenters all of whose probers share something with one that is taken, best first.
	later []candidate
}

func (a *apart) take(p *Prober) {
	if len(a.dimensions) > 0 {
		a.taken = append(a.taken, p)
	}
}

// shares counts the dimensions in which a prober has the value of one that is taken.
func (a *apart) shares(p *Prober) (n int) {
	for _, d := range a.dimensions {
		v, ok := p.Domains[d]
		if ok && slices.ContainsFunc(a.taken, func(t *Prober) bool { return t.Domains[d] == v }) {
			n++
		}
	}
	return n
}

// least takes, of the datacenters that were left for later, the one whose prober shares least; of equal ones the best.
func (m *Map) least(a *apart, h uint64, needs, picked []string) (*Prober, candidate) {
	var chosen *Prober
	at, fewest := 0, 0
	for i, d := range a.later {
		p := m.pick(d.table, h, needs, picked, nil)
		if n := a.shares(p); chosen == nil || n < fewest {
			chosen, at, fewest = p, i, n
		}
	}
	from := a.later[at]
	a.later = slices.Delete(a.later, at, at+1)
	return chosen, from
}
