// Package placement decides which probers run a check.
//
// The map is published, not the assignments: each datacenter has a [Table] of 4,096 rows, each row naming a prober. A check picks its datacenters by
// weighted rendezvous hashing and, inside one, the prober of row hash(check) mod 4,096. So the placement of every check is a pure function of the
// tables ([Map.Place]), any server can compute it, and a new check needs nobody's leave. The leader only moves rows ([Rebalance]): those of probers that
// are gone, and a fair share to new ones, few at a time.
//
// Weighted rendezvous hashing: Schindelhauer and Schomaker, "Weighted Distributed Hash Tables" (2005), the logarithmic method.
package placement

import (
	"hash/fnv"
	"math"
	"slices"
	"sort"
)

// Rows is the number of rows of a table. With 4,096, the shares of 50 probers differ by at most 1.2 %.
const Rows = 4096

// Nobody is the owner of a row that has none.
const Nobody = 0xFFFF

// Table says which prober of one datacenter owns which row.
type Table struct {
	// Datacenter is whose table it is.
	Datacenter string
	// Epoch grows by one with each change.
	Epoch int64
	// Probers are the names that rows refer to.
	Probers []string
	// Row holds indexes into Probers, or Nobody. Its length is Rows.
	Row []uint16
}

// NewTable is an empty table.
func NewTable(datacenter string) *Table {
	t := &Table{Datacenter: datacenter, Row: make([]uint16, Rows)}
	for i := range t.Row {
		t.Row[i] = Nobody
	}
	return t
}

// Valid tells whether every row refers to a prober or to Nobody and the number of rows is right. A table that is not valid must not be used.
func (t *Table) Valid() bool {
	if len(t.Row) != Rows {
		return false
	}
	for _, r := range t.Row {
		if r != Nobody && int(r) >= len(t.Probers) {
			return false
		}
	}
	return true
}

// Prober is what placement needs to know of a prober.
type Prober struct {
	// Name is its bare name.
	Name string
	// Datacenter is where it runs.
	Datacenter string
	// Domains are its failure domains, for arranging rows.
	Domains map[string]string
	// Capabilities are what it can do.
	Capabilities map[string]bool
	// Serving: it is in service. Not set for one that is drained, deleted, or gone for longer than the grace period.
	Serving bool
	// Beside: its votes do not count like others' now. Checks go to others of its datacenter, where there are any that can run them, and it runs them beside these.
	Beside bool
}

// Check is what placement needs to know of a check.
type Check struct {
	// Name is its resource name.
	Name string
	// Probers is how many shall run it.
	Probers int
	// Datacenters, if not empty, are the only ones allowed.
	Datacenters []string
	// Needs are capabilities that its probers must have.
	Needs []string
	// Spread are dimensions besides the datacenter in which its probers should differ, where they can.
	Spread []string
}

// Map is the whole of the tables with the probers they name. It is immutable after NewMap.
type Map struct {
	tables  []*Table
	known   map[string]*Prober
	weights []float64
	hashes  []uint64
	// owners are, for each table, the probers its rows refer to, by index; nil for one that is not known or lives elsewhere.
	owners [][]*Prober
	// beside: there is a prober of that kind.
	beside bool
	// varied are the dimensions in which the probers in service have two values at least, sorted: in others nothing can be spread.
	varied []string
}

// NewMap prepares tables and probers for Place. Rows that name an unknown prober, or one that lives in another datacenter, are skipped by Place. It keeps
// both slices' contents, which must not change afterwards.
func NewMap(tables []*Table, probers []Prober) *Map {
	m := &Map{}
	m.varied = varied(probers)
	known := make(map[string]*Prober, len(probers))
	m.known = known
	for i := range probers {
		known[probers[i].Name] = &probers[i]
	}
	m.tables = append(m.tables, tables...)
	sort.Slice(m.tables, func(i, j int) bool { return m.tables[i].Datacenter < m.tables[j].Datacenter })
	for _, t := range m.tables {
		n := 0
		owners := make([]*Prober, len(t.Probers))
		for i, name := range t.Probers {
			if p := known[name]; p != nil && p.Datacenter == t.Datacenter {
				owners[i] = p
				m.beside = m.beside || p.Beside
				n++
			}
		}
		m.owners = append(m.owners, owners)
		m.weights = append(m.weights, float64(n))
		m.hashes = append(m.hashes, hash(t.Datacenter))
	}
	return m
}

// Place gives the probers that run the check, best first: the order is the rank. It gives fewer than asked for when there are no more that fit.
// One prober of each datacenter is taken before a second of any. Of the datacenters, and of the probers in one, those are taken first that share no value of the dimensions of
// Spread with a prober that is taken already. Where there are datacenters enough, most of the probers are not of those that run checks beside others.
func (m *Map) Place(c Check) []string {
	names, _ := m.PlacePlain(c)
	return names
}

type candidate struct {
	table int
	score float64
}

// PlacePlain is Place. plain tells that every datacenter looked at gave one prober, and none was looked at twice: then the placement depends on the weights of
// all datacenters, and on the rows and probers of only those that the check is placed in.
func (m *Map) PlacePlain(c Check) (names []string, plain bool) {
	h := hash(c.Name)
	var buf [64]candidate
	order := buf[:0]
	for i, t := range m.tables {
		if m.weights[i] != 0 && allowed(c.Datacenters, t.Datacenter) {
			order = append(order, candidate{i, score(h, m.hashes[i], m.weights[i])})
		}
	}
	picked := make([]string, 0, c.Probers)
	// The first round looks for the best of the rest, one after the other: a check needs few of many datacenters.
	left := order[:0:len(order)]
	plain = true
	a := apart{dimensions: m.spreadable(c.Spread)}
	rest := order
	for ; len(rest) > 0 && len(picked) < c.Probers; rest = rest[1:] {
		best(rest)
		p := m.pick(rest[0].table, h, c.Needs, picked, nil)
		if p != nil && a.shares(p) > 0 {
			plain = false
			if p = m.pick(rest[0].table, h, c.Needs, picked, &a); p == nil {
				a.later = append(a.later, rest[0])
				continue
			}
		}
		if p != nil {
			picked, left = append(picked, p.Name), append(left, rest[0])
			a.take(p)
		} else {
			plain = false
		}
	}
	for len(a.later) > 0 && len(picked) < c.Probers {
		p, from := m.least(&a, h, c.Needs, picked)
		picked, left = append(picked, p.Name), append(left, from)
		a.take(p)
	}
	if m.beside && m.relieve(c, h, picked, append(rest, a.later...)) {
		plain = false
	}
	for len(picked) < c.Probers && len(left) > 0 {
		plain = false
		again := left[:0:len(left)]
		for _, d := range left {
			if len(picked) == c.Probers {
				break
			}
			p := m.pick(d.table, h, c.Needs, picked, &a)
			if p == nil {
				p = m.pick(d.table, h, c.Needs, picked, nil)
			}
			if p != nil {
				picked, again = append(picked, p.Name), append(again, d)
				a.take(p)
			}
		}
		left = again
	}
	return picked, plain
}

// relieve gives places of probers that only run checks beside others, the last first, to datacenters that were not taken and have others, until most of the check's
// probers are such as count. It reports whether it did.
func (m *Map) relieve(c Check, h uint64, picked []string, spare []candidate) (changed bool) {
	count := 0
	var beside []int
	for i, name := range picked {
		if p := m.known[name]; p.Beside {
			beside = append(beside, i)
		} else {
			count++
		}
	}
	for ; len(spare) > 0 && len(beside) > 0 && count <= c.Probers/2; spare = spare[1:] {
		best(spare)
		if p := m.pick(spare[0].table, h, c.Needs, picked, nil); p != nil && !p.Beside && p.Serving {
			picked[beside[len(beside)-1]] = p.Name
			beside, count, changed = beside[:len(beside)-1], count+1, true
		}
	}
	return changed
}

// best swaps the candidate with the highest score to the front; of equal ones the first table wins.
func best(list []candidate) {
	top := 0
	for i := range list {
		if d := list[i].score - list[top].score; d > 0 || d == 0 && list[i].table < list[top].table {
			top = i
		}
	}
	list[0], list[top] = list[top], list[0]
}

// Besides gives the probers that run the check beside those that Place has given, and for each the index of the one whose place it would have: at the same moments it
// probes the same. It is nil when there is no prober of that kind.
func (m *Map) Besides(c Check, placed []string) (names []string, places []int) {
	if !m.beside {
		return nil, nil
	}
	h := hash(c.Name)
	for i := range m.tables {
		for _, p := range m.owners[i] {
			if k := slices.Index(placed, nameOf(p)); k >= 0 && !p.Beside {
				if b := m.pickAny(i, h, c.Needs, placed); b != nil && b.Beside {
					names, places = append(names, b.Name), append(places, k)
				}
				break
			}
		}
	}
	return names, places
}

func nameOf(p *Prober) string {
	if p == nil {
		return ""
	}
	return p.Name
}

// pick gives the prober of a datacenter that runs the check: the first from the check's row on that fits and is not picked yet, of those that run checks beside others only if
// there is no other. With a it is one that shares nothing with those that are picked, and none that runs checks beside others.
func (m *Map) pick(table int, h uint64, needs, picked []string, a *apart) *Prober {
	return m.walk(table, h, needs, picked, m.beside, a)
}

// pickAny is the one that would run the check if all were alike, among those that may still be picked and the ones that are.
func (m *Map) pickAny(table int, h uint64, needs, placed []string) *Prober {
	p := m.walk(table, h, needs, nil, false, nil)
	if p != nil && contains(placed, p.Name) {
		return nil
	}
	return p
}

// walk goes from the check's row to the first prober that fits and is not picked yet. With last, those that run checks beside others come after all others. It ends as
// soon as every prober was met once.
func (m *Map) walk(table int, h uint64, needs, picked []string, last bool, a *apart) *Prober {
	var fallback *Prober
	t, owners := m.tables[table], m.owners[table]
	var met uint64 // of the first 64 probers
	left := len(owners)
	for i := uint64(0); i < Rows && left > 0; i++ {
		r := t.Row[(h+i)%Rows]
		if r == Nobody {
			continue
		}
		if r < 64 {
			if met&(1<<r) != 0 {
				continue
			}
			met |= 1 << r
			left--
		}
		if p := owners[r]; p != nil && fits(p, needs) && !contains(picked, p.Name) && (a == nil || a.shares(p) == 0) {
			if !last || !p.Beside {
				return p
			}
			if fallback == nil && a == nil {
				fallback = p
			}
		}
	}
	return fallback
}

func fits(p *Prober, needs []string) bool {
	for _, n := range needs {
		if !p.Capabilities[n] {
			return false
		}
	}
	return true
}

func allowed(datacenters []string, d string) bool {
	return len(datacenters) == 0 || contains(datacenters, d)
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// score is the weighted rendezvous score: -w / ln(u), u uniform in (0,1) from both hashes.
func score(check, datacenter uint64, weight float64) float64 {
	u := (float64(mix(check^datacenter)>>11) + 0.5) / (1 << 53)
	return -weight / math.Log(u)
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return mix(h.Sum64())
}

// mix is the finalizer of splitmix64 (Steele, Lea, Flood 2014): FNV alone leaves short keys correlated.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// Equal tells whether both tables name the same owners of the same rows at the same epoch.
func (t *Table) Equal(o *Table) bool {
	return t.Datacenter == o.Datacenter && t.Epoch == o.Epoch && slices.Equal(t.Probers, o.Probers) && slices.Equal(t.Row, o.Row)
}
