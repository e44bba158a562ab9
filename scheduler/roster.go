package scheduler

import (
	"encoding/binary"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/domain"
	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/placement"
	"github.com/probemesh/probemesh/scheduler/verdict"
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
	turned   time.Time // when it was drained or put back, if that was seen
	back     time.Time // when it was last heard again after it had not been
	leaving  bool
	// aside is the domain for which it is set aside; empty when its votes count.
	aside string
	// trial is how far its build is trusted, halted that it is not at all; marked: as what its votes count.
	trial  verdict.Trial
	halted bool
	marked mark
	build  string // as what it was enrolled last
	// unheard: nothing says that it is gone, only its server is; it begins so.
	unheard bool
	// away: it has been offline for so long that its rows move.
	away        bool
	assignments map[string]*meshv1.Assignment
}

// beside tells whether it runs checks beside others where it can, because its votes do not count like theirs.
func (p *prober) beside() bool { return p.halted || p.trial == verdict.Shadow }

// stateSince is since when it is in the state that people are shown.
func (p *prober) stateSince() time.Time {
	if p.turned.After(p.since) {
		return p.turned
	}
	return p.since
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
	// world and places are the map and the number of datacenters as long as nothing has changed; world is nil afterwards.
	world  *placement.Map
	places int
	// enrolledIn are the datacenters in which somebody is enrolled, sorted; nil when that has changed.
	enrolledIn []string
	// varied are the dimensions in which probers could be kept apart by the last map.
	varied []string
	// touched are the datacenters in which something has changed since the checks were placed; all: it concerns every check.
	touched map[string]bool
	all     bool
}

// changed says that the placement of every check must be computed anew.
func (r *roster) changed() {
	r.dirty, r.all, r.world, r.places, r.enrolledIn = true, true, nil, -1, nil
}

// changedIn says that something in a datacenter has changed, though not how many checks it should run.
func (r *roster) changedIn(datacenter string) {
	r.dirty, r.world = true, nil
	r.touched[datacenter] = true
}

// concerns tells whether the changes may concern a check whose placement is plain.
func (r *roster) concerns(c *check) bool {
	if r.all || len(c.votes) < int(c.eff.GetProbers()) {
		return true
	}
	for i := range c.votes {
		if c.seats[i].rank < 0 || r.touched[c.votes[i].Datacenter] {
			return true
		}
	}
	return false
}

// inhabited are the datacenters in which somebody is enrolled, drained or not, sorted.
func (r *roster) inhabited() []string {
	if r.enrolledIn == nil {
		seen := map[string]bool{}
		for _, p := range r.probers {
			if p.enrolled != nil {
				seen[p.enrolled.GetDatacenter()] = true
			}
		}
		r.enrolledIn = append([]string{}, sortedKeys(seen)...)
	}
	return r.enrolledIn
}

func newRoster() roster {
	return roster{probers: map[string]*prober{}, tables: map[string]*table{}, places: -1, touched: map[string]bool{}}
}

func (r *roster) get(name string) *prober {
	p := r.probers[name]
	if p == nil {
		p = &prober{name: name, unheard: true, assignments: map[string]*meshv1.Assignment{}}
		r.probers[name] = p
	}
	return p
}

func (r *roster) enrol(e *statev1.Enrolment, now time.Time) {
	p := r.get(spec.ID(e.GetName()))
	if p.since.IsZero() {
		p.since = now
	}
	// A prober that comes back as what it was changes nothing.
	same := p.enrolled != nil && proto.Equal(p.enrolled, e)
	if p.enrolled != nil && p.enrolled.GetDrained() != e.GetDrained() {
		p.turned = now
	}
	// Draining may change how many datacenters are in service, and with that how many probers a check asks for by default.
	stays := p.enrolled != nil && p.enrolled.GetDatacenter() == e.GetDatacenter() && p.enrolled.GetDrained() == e.GetDrained()
	p.enrolled = e
	if same {
		return
	}
	p.domains = domain.Of(e.GetDatacenter(), e.GetBuild(), e.GetLabels(), e.GetObserved())
	p.can = map[string]bool{}
	for _, c := range e.GetCapabilities() {
		p.can[c] = true
	}
	if stays {
		r.changedIn(e.GetDatacenter())
	} else {
		r.changed()
	}
	r.unsettled = true
}

func (r *roster) forget(name string) {
	if p := r.probers[spec.ID(name)]; p != nil {
		p.enrolled = nil
		r.changed()
		r.unsettled = true
	}
}

func (r *roster) reset() {
	for _, p := range r.probers {
		p.enrolled = nil
	}
	r.tables = map[string]*table{}
	r.changed()
	r.unsettled = true
}

func (s *State) proberOnline(now time.Time, e ProberOnline) {
	p := s.roster.get(e.Name)
	if p.away || p.leaving {
		s.roster.unsettled = true
	}
	if !p.online {
		p.since, p.back = now, now
		if !e.Since.IsZero() && e.Since.Before(now) {
			p.since = e.Since
		}
	}
	moved := !p.online || p.server != e.Server
	p.online, p.server, p.leaving, p.away, p.unheard = true, e.Server, false, false, false
	if moved {
		s.askMoved(now, p)
	}
}

func (r *roster) offline(e ProberOffline, now time.Time) {
	p := r.get(e.Name)
	if p.online {
		p.since = now
	}
	p.online, p.server, p.leaving, p.unheard = false, "", e.Leaving, e.Unheard
	r.unsettled = r.unsettled || e.Leaving
}

// excuse takes back that probers are gone whose server is what this one has not heard, or of which it never heard. A server that begins to lead may have been cut
// off from the others, and that says nothing of their probers: without this the first to come back would be given the rows of all others.
func (r *roster) excuse() {
	for _, p := range r.probers {
		if !p.online && p.unheard {
			p.away = false
		}
	}
}

// expire marks probers as away whose grace is over. Of one that is only unheard, it begins when this server begins to lead.
func (r *roster) expire(now, led time.Time, grace time.Duration) {
	for _, p := range r.probers {
		if !p.online && !p.away && now.Sub(p.since) >= grace && (!p.unheard || now.Sub(led) >= grace) {
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
	switch {
	case held.Table == nil || !slices.Equal(held.Probers, t.Probers):
		r.changed()
	case !t.Equal(held.Table):
		r.changedIn(t.Datacenter)
	}
	held.Table, held.modRevision, held.until = t, e.ModRevision, time.Time{}
	r.unsettled = true
}

func (r *roster) goneTable(datacenter string) {
	delete(r.tables, datacenter)
	r.changed()
	r.unsettled = true
}

// datacenters counts those that have an enrolled prober which no operator has drained.
func (r *roster) datacenters() int {
	if r.places >= 0 {
		return r.places
	}
	seen := map[string]bool{}
	for _, p := range r.probers {
		if p.enrolled != nil && !p.enrolled.GetDrained() {
			seen[p.enrolled.GetDatacenter()] = true
		}
	}
	r.places = len(seen)
	return r.places
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
			Beside:  p.beside(),
			Serving: !p.enrolled.GetDrained() && !p.away && !p.leaving,
		})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

func (r *roster) worldMap() *placement.Map {
	if r.world != nil {
		return r.world
	}
	tables := make([]*placement.Table, 0, len(r.tables))
	for _, t := range r.tables {
		tables = append(tables, t.Table)
	}
	r.world = placement.NewMap(tables, r.list())
	if !slices.Equal(r.varied, r.world.Varied()) {
		r.varied, r.all = r.world.Varied(), true
	}
	return r.world
}

// moveRows is the leader's part of placement: it wishes for tables as they should be, until there is nothing more to wish for.
func (s *State) moveRows(now time.Time) {
	r := &s.roster
	if !r.unsettled {
		return
	}
	probers := r.list()
	datacenters := map[string]bool{}
	for _, p := range probers {
		datacenters[p.Datacenter] = true
	}
	for d := range r.tables {
		datacenters[d] = true
	}
	unsettled := false
	for _, d := range sortedKeys(datacenters) {
		if !s.moveRowsOf(d, probers, now) {
			unsettled = true
		}
	}
	r.unsettled = unsettled
}

// moveRowsOf wishes for the table of one datacenter as it should be. It reports whether it is so already.
func (s *State) moveRowsOf(datacenter string, probers []placement.Prober, now time.Time) bool {
	r := &s.roster
	full := float64(s.cfg.RowsPerMinute)
	t := r.tables[datacenter]
	if t == nil {
		t = &table{Table: placement.NewTable(datacenter)}
		r.tables[datacenter] = t
	}
	if now.Before(t.until) {
		return false
	}
	if t.budgetAt.IsZero() {
		t.budget, t.budgetAt = full, now
	}
	t.budget = min(t.budget+now.Sub(t.budgetAt).Minutes()*full, full)
	t.budgetAt = now
	// Balance is restored in a few steps a minute and not row by row: each step makes every server place every check anew.
	budget := 0
	if t.budget >= full/4 {
		budget = int(t.budget)
	}
	next := placement.Rebalance(t.Table, probers, r.worldMap(), budget)
	if next == t.Table {
		return budget > 0
	}
	moved := differing(t.Table, next)
	s.Counters.RowsMoved += int64(moved)
	t.budget -= float64(min(moved, budget))
	t.until = now.Add(effectTimeout)
	s.do(MoveRows{Table: s.stored(next), ModRevision: t.modRevision})
	return false
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

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
