package scheduler

import (
	"encoding/binary"
	"sort"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/placement"
)

// prober is what the mind knows of a prober.
type prober struct {
	name     string // bare
	enrolled *statev1.Enrolment
	domains  map[string]string
	can      map[string]bool
	online   bool
	server   string
	since    time.Time // of online or offline
	leaving  bool
	// away: it has been offline for so long that its rows move.
	away        bool
	assignments map[string]*meshv1.Assignment
}

type table struct {
	*placement.Table
	modRevision int64
	// moving: a MoveRows is under way until then.
	until time.Time
	// budget for balancing moves, refilled with time.
	budget   float64
	budgetAt time.Time
}

// roster knows probers and tables.
type roster struct {
	probers map[string]*prober
	tables  map[string]*table
	// dirty: placement must be computed anew.
	dirty bool
	// unsettled: the tables may have to change.
	unsettled bool
}

func newRoster() roster {
	return roster{probers: map[string]*prober{}, tables: map[string]*table{}}
}

func (r *roster) get(name string) *prober {
	p := r.probers[name]
	if p == nil {
		p = &prober{name: name, assignments: map[string]*meshv1.Assignment{}}
		r.probers[name] = p
	}
	return p
}

func (r *roster) enrol(e *statev1.Enrolment, now time.Time) {
	p := r.get(spec.ID(e.GetName()))
	if p.since.IsZero() {
		p.since = now
	}
	p.enrolled = e
	p.domains = map[string]string{}
	for k, v := range e.GetLabels() {
		p.domains[k] = v
	}
	p.domains["datacenter"] = e.GetDatacenter()
	p.domains["build"] = e.GetBuild()
	p.can = map[string]bool{}
	for _, c := range e.GetCapabilities() {
		p.can[c] = true
	}
	r.dirty, r.unsettled = true, true
}

func (r *roster) forget(name string) {
	if p := r.probers[spec.ID(name)]; p != nil {
		p.enrolled = nil
		r.dirty, r.unsettled = true, true
	}
}

func (r *roster) reset() {
	for _, p := range r.probers {
		p.enrolled = nil
	}
	r.tables = map[string]*table{}
	r.dirty, r.unsettled = true, true
}

func (s *State) proberOnline(now time.Time, e ProberOnline) {
	p := s.roster.get(e.Name)
	if p.away {
		s.roster.unsettled = true
	}
	if !p.online {
		p.since = now
	}
	p.online, p.server, p.leaving, p.away = true, e.Server, false, false
	s.next = now
}

func (r *roster) offline(e ProberOffline, now time.Time) {
	p := r.get(e.Name)
	if p.online {
		p.since = now
	}
	p.online, p.server, p.leaving = false, "", e.Leaving
}

// expire marks probers as away whose grace is over. One that never had a session since the mind began is given the same grace.
func (r *roster) expire(now time.Time, grace time.Duration) {
	for _, p := range r.probers {
		if !p.online && !p.away && now.Sub(p.since) >= grace {
			p.away = true
			r.unsettled = true
		}
	}
}

func (r *roster) putTable(e TablePut) {
	t := &placement.Table{Datacenter: e.Table.GetDatacenter(), Epoch: e.Table.GetEpoch(), Probers: e.Table.GetProbers(), Row: make([]uint16, len(e.Table.GetRows())/2)}
	for i := range t.Row {
		t.Row[i] = binary.BigEndian.Uint16(e.Table.GetRows()[2*i:])
	}
	if !t.Valid() {
		// A table that cannot be read is as good as none; the leader writes a whole one over it.
		t = placement.NewTable(e.Table.GetDatacenter())
	}
	held := r.tables[t.Datacenter]
	if held == nil {
		held = &table{}
		r.tables[t.Datacenter] = held
	}
	held.Table, held.modRevision, held.until = t, e.ModRevision, time.Time{}
	r.dirty = true
}

func (r *roster) goneTable(datacenter string) {
	delete(r.tables, datacenter)
	r.dirty, r.unsettled = true, true
}

// datacenters counts those that have an enrolled prober.
func (r *roster) datacenters() int {
	seen := map[string]bool{}
	for _, p := range r.probers {
		if p.enrolled != nil {
			seen[p.enrolled.GetDatacenter()] = true
		}
	}
	return len(seen)
}

// list gives the enrolled probers as placement sees them, sorted by name.
func (r *roster) list() []placement.Prober {
	var all []placement.Prober
	for _, p := range r.probers {
		if p.enrolled == nil {
			continue
		}
		all = append(all, placement.Prober{
			Name: p.name, Datacenter: p.enrolled.GetDatacenter(), Domains: p.domains, Capabilities: p.can,
			Serving: !p.enrolled.GetDrained() && !p.away && !p.leaving,
		})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

func (r *roster) worldMap() *placement.Map {
	tables := make([]*placement.Table, 0, len(r.tables))
	for _, t := range r.tables {
		tables = append(tables, t.Table)
	}
	return placement.NewMap(tables, r.list())
}

// moveRows is the leader's part of placement: it wishes for tables as they should be.
func (s *State) moveRows(now time.Time) {
	r := &s.roster
	probers := r.list()
	datacenters := map[string]bool{}
	for _, p := range probers {
		datacenters[p.Datacenter] = true
	}
	for d := range r.tables {
		datacenters[d] = true
	}
	var world *placement.Map
	for _, d := range sortedKeys(datacenters) {
		t := r.tables[d]
		if t == nil {
			t = &table{Table: placement.NewTable(d), budget: float64(s.cfg.RowsPerMinute), budgetAt: now}
			r.tables[d] = t
		}
		if now.Before(t.until) {
			continue
		}
		if t.budgetAt.IsZero() {
			t.budget, t.budgetAt = float64(s.cfg.RowsPerMinute), now
		}
		t.budget = min(t.budget+now.Sub(t.budgetAt).Minutes()*float64(s.cfg.RowsPerMinute), float64(s.cfg.RowsPerMinute))
		t.budgetAt = now
		if !r.unsettled && t.budget < 1 {
			continue
		}
		if world == nil {
			world = r.worldMap()
		}
		next := placement.Rebalance(t.Table, probers, world, int(t.budget))
		if next == t.Table {
			continue
		}
		moved := differing(t.Table, next)
		s.Counters.RowsMoved += int64(moved)
		t.budget -= float64(min(moved, int(t.budget)))
		t.until = now.Add(effectTimeout)
		s.do(MoveRows{Table: s.stored(next), ModRevision: t.modRevision})
	}
	r.unsettled = false
}

func differing(a, b *placement.Table) int {
	n := 0
	for i := range a.Row {
		if ownerName(a, i) != ownerName(b, i) && a.Row[i] != placement.Nobody {
			n++
		}
	}
	return n
}

func ownerName(t *placement.Table, row int) string {
	if t.Row[row] == placement.Nobody {
		return ""
	}
	return t.Probers[t.Row[row]]
}

func (s *State) stored(t *placement.Table) *statev1.PlacementTable {
	rows := make([]byte, 0, 2*len(t.Row))
	for _, r := range t.Row {
		rows = binary.BigEndian.AppendUint16(rows, r)
	}
	return &statev1.PlacementTable{Datacenter: t.Datacenter, Epoch: t.Epoch, Probers: t.Probers, Rows: rows, Term: s.lead.Term}
}

func sortedKeys(m map[string]bool) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
