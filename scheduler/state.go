package scheduler

import (
	"container/heap"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/credibility"
	"github.com/probemesh/probemesh/scheduler/placement"
	"github.com/probemesh/probemesh/scheduler/rollout"
)

// Config are the constants of the mind. The zero value means the defaults, which every server of a mesh must share.
type Config struct {
	// OfflineAfter is how long a prober may be away before its rows move. Default 60 s: longer than a restart, shorter than a shift.
	OfflineAfter time.Duration
	// RowsPerMinute bounds how many rows of a table move a minute for the sake of balance. Default 164, which is 4 %.
	RowsPerMinute int
	// WarmUp is how long a new leader may close but not open incidents until it has heard 80 % of the votes, not counting those of probers that have been silent for as long if they are
	// the fewer. Default 5 s.
	WarmUp time.Duration
	// FreshSlack is what a vote may be older than interval + timeout before it stops counting: the way from the prober to here. Default 2 s.
	FreshSlack time.Duration
	// MeshGrace is how long a check may be UNKNOWN for want of votes before that is an incident of the mesh. Default 60 s.
	MeshGrace time.Duration
	// BreakGlassAfter is how long etcd must have been lost before a verdict that nobody can write down is told by a break-glass message. Default 5 s: an election of
	// etcd takes one to two seconds, and a new leader a moment more.
	BreakGlassAfter time.Duration
	// ConfirmRate is how many runs a second one prober is asked for, ConfirmBurst how many at once. Default 50 and 200.
	ConfirmRate, ConfirmBurst float64
	// Crowd is how many checks must share something to be told of together when they turn together, and how many must turn within seconds to be kept waiting for an
	// explanation. Default 20: fewer are read one by one. At least 5.
	Crowd int
	// Credibility are the constants of the test that finds sick probers.
	Credibility credibility.Config
	// Rollout are the constants of the test that finds bad builds.
	Rollout rollout.Config
	// TargetRate is how many runs a second one host is asked for, TargetBurst how many at once. Default 20 and 60.
	TargetRate, TargetBurst float64
}

func (c Config) withDefaults() Config {
	def := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	dur := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	dur(&c.OfflineAfter, time.Minute)
	dur(&c.WarmUp, 5*time.Second)
	dur(&c.FreshSlack, 2*time.Second)
	dur(&c.MeshGrace, time.Minute)
	dur(&c.BreakGlassAfter, 5*time.Second)
	if c.RowsPerMinute == 0 {
		c.RowsPerMinute = placement.Rows / 25
	}
	if c.Crowd == 0 {
		c.Crowd = 20
	}
	def(&c.ConfirmRate, 50)
	def(&c.ConfirmBurst, 200)
	def(&c.TargetRate, 20)
	def(&c.TargetBurst, 60)
	return c
}

// Counters count what the State did and did not do, for metrics. They only grow.
type Counters struct {
	// Votes are results that became votes.
	Votes int64
	// VotesRefused are results that did not, by reason.
	UnknownCheck, UnknownProber, OldRevision, OldResult int64
	// Confirmations asked for, and those that a budget refused.
	Confirmations, ConfirmationsRefused int64
	// Dissents are votes that went against the consensus of the others.
	Dissents int64
	// BuildDissents are votes of builds on trial that went against settled builds.
	BuildDissents int64
	// RowsMoved are placement rows that moved.
	RowsMoved int64
	// OutagesRefused are outages of checks that had too many waiting to be joined: they were not told of.
	OutagesRefused int64
}

// State is the mind. It is not safe for concurrent use: one goroutine, or one mutex, owns it.
type State struct {
	cfg       Config
	checks    map[string]*check
	roster    roster
	due       dueHeap
	lead      Leadership
	leadAt    time.Time
	started   time.Time
	warm      bool
	mesh      meshCondition
	book      *credibility.Book
	suspects  map[string]*suspect // what is set aside, by key
	builds    builds
	store     storeState
	readAt    int64 // the revision of etcd at which all of it was read last
	budget    budgets
	early     early
	mass      mass
	actions   []Action
	next      time.Time // next housekeeping
	receivers map[string]*meshv1.Receiver
	recalled  map[string]Recollection // what was held true before this server was started, by check; nil when nothing is left
	// unknown are the checks shown as UNKNOWN, for the mesh's own condition; assigned the probers whose assignments changed in this Apply.
	unknown  map[string]*check
	assigned map[string]bool
	placed   time.Time // when every check was last placed anew
	// Counters are read by the caller between calls of Apply.
	Counters Counters
}

// New is an empty mind.
func New(cfg Config) *State {
	cfg = cfg.withDefaults()
	return &State{
		cfg: cfg, checks: map[string]*check{}, roster: newRoster(), receivers: map[string]*meshv1.Receiver{},
		unknown: map[string]*check{}, assigned: map[string]bool{}, budget: newBudgets(cfg), early: newEarly(),
		book: credibility.New(cfg.Credibility), suspects: map[string]*suspect{}, builds: newBuilds(), mass: newMass(),
	}
}

// housekeeping is how often tables, the mesh's condition and the warm-up are looked at.
const housekeeping = time.Second

// Apply takes events that happened by now, in order, and gives the actions that follow. The slice is the caller's until the next call of Apply.
// now must not go back by more than clocks do; an earlier now than before is taken as it is, and freshness suffers accordingly.
func (s *State) Apply(now time.Time, events ...Event) []Action {
	s.actions = s.actions[:0]
	if s.started.IsZero() {
		s.started = now
	}
	for _, e := range events {
		s.apply(now, e)
	}
	if s.builds.dirty {
		s.markBuilds(now)
	}
	// A change of the roster is acted upon at once, but placing every check anew is not done more than once a second.
	if s.roster.dirty && now.Sub(s.placed) >= housekeeping {
		s.place(now)
	}
	if !now.Before(s.next) {
		s.next = now.Add(housekeeping)
		s.keepHouse(now)
	}
	s.castEarly(now)
	s.explainHeld(now)
	for len(s.due) > 0 && !s.due[0].at.After(now) {
		c := s.due[0].check
		heap.Pop(&s.due)
		s.evaluate(c, now)
	}
	s.combine()
	if len(s.assigned) > 0 {
		for _, p := range sortedKeys(s.assigned) {
			s.do(Assign{Prober: p})
		}
		clear(s.assigned)
	}
	return s.actions
}

// Due is when Apply must be called next at the latest, if no event comes before.
func (s *State) Due() time.Time {
	if len(s.due) > 0 && s.due[0].at.Before(s.next) {
		return s.due[0].at
	}
	return s.next
}

func (s *State) apply(now time.Time, e Event) {
	switch e := e.(type) {
	case Cast:
		s.cast(now, e)
	case RunRefused:
		s.runRefused(now, e)
	case CheckPut:
		s.putCheck(now, e)
	case CheckGone:
		s.goneCheck(now, e.Name)
	case Recalled:
		s.recall(now, e)
	case EnrolmentPut:
		s.roster.enrol(e.Enrolment, now)
		s.enrolBuild(spec.ID(e.Enrolment.GetName()))
		s.putInBook(now, spec.ID(e.Enrolment.GetName()))
	case EnrolmentGone:
		s.roster.forget(e.Name)
		s.book.Forget(spec.ID(e.Name))
		s.builds.dirty = true
	case BuildPut:
		s.putBuild(e)
	case BuildGone:
		s.goneBuild(e.Name)
	case BuildPolicyPut:
		s.builds.policy, s.builds.dirty = policyOf(e.Policy), true
	case TablePut:
		s.roster.putTable(e)
	case TableGone:
		s.roster.goneTable(e.Datacenter)
	case ProberOnline:
		s.proberOnline(now, e)
	case ProberOffline:
		s.roster.offline(e, now)
		if e.Leaving {
			s.next = now
		}
	case IncidentPut:
		s.putIncident(now, e)
	case IncidentWritten:
		s.wroteIncident(now, e)
	case IncidentGone:
		s.goneIncident(now, e)
	case ReceiverPut:
		s.receivers[e.Receiver.GetName()] = e.Receiver
	case ReceiverGone:
		delete(s.receivers, e.Name)
	case Leadership:
		s.leadership(now, e)
	case Store:
		s.takeStore(now, e)
	case IncidentKnown:
		s.knowIncident(now, e)
	case IncidentEnded:
		s.endIncident(now, e)
	case OutageSeen:
		s.seeOutage(now, e)
	case OutageOver:
		if c := s.checks[e.Check]; c != nil {
			s.forgetOutage(c, e.Key)
			s.schedule(c, now)
		}
	case EffectFailed:
		s.effectFailed(now, e)
	case Reset:
		s.reset(now, e.Revision)
	}
}

// leadership begins or ends a reign of this server. What it has in mind already, it wishes for now: effects, rows, and the runs that a leader before it may have
// asked for in vain. While it stood by it asked nobody, so what that has taken from the budgets is given back.
func (s *State) leadership(now time.Time, e Leadership) {
	s.lead, s.leadAt, s.warm = e, now, false
	s.next = now
	s.mesh.effectUntil = time.Time{}
	for _, x := range s.suspects {
		x.effectUntil = time.Time{}
	}
	s.builds.begin()
	s.forgetMass()
	s.roster.unsettled = true
	for _, t := range s.roster.tables {
		t.until = time.Time{}
	}
	if e.Leading {
		s.roster.excuse()
		s.budget = newBudgets(s.cfg)
	}
	var doubtful []string
	for n, c := range s.checks {
		c.effectUntil = time.Time{}
		s.schedule(c, now)
		if e.Leading {
			c.tokens, c.lates = bucket{}, bucket{}
		}
		if e.Leading && !c.gone && (c.confirming(now) || c.unconfirmed()) {
			doubtful = append(doubtful, n)
		}
	}
	sort.Strings(doubtful)
	for _, n := range doubtful {
		s.askAgain(now, s.checks[n])
	}
}

// reset marks everything that came from the store as gone; what the snapshot brings again stays as it was.
func (s *State) reset(now time.Time, revision int64) {
	for _, c := range s.checks {
		c.gone = true
		c.noteClosed(revision)
		c.incident, c.incidentRev, c.hearsay, c.effectUntil, c.roundAt = nil, 0, false, time.Time{}, time.Time{}
		s.schedule(c, now)
	}
	s.readAt = revision
	s.receivers = map[string]*meshv1.Receiver{}
	s.mesh.incident, s.mesh.incidentRev, s.mesh.effectUntil = nil, 0, time.Time{}
	for _, x := range s.suspects {
		x.incident, x.effectUntil = nil, time.Time{}
	}
	s.builds.reset()
	s.mass.reset()
	s.roster.reset()
	s.placed = time.Time{}
}

func (s *State) do(a Action) { s.actions = append(s.actions, a) }

// keepHouse does what is due every second: warm-up, tables, the mesh's own condition.
func (s *State) keepHouse(now time.Time) {
	if s.lead.Leading && !s.warm {
		if now.Sub(s.leadAt) >= s.cfg.WarmUp || s.heard(now) >= 0.8 {
			s.warm = true
			s.turnedBefore(now)
			for _, c := range s.checks {
				s.schedule(c, now)
			}
		}
	}
	s.roster.expire(now, s.leadAt, s.cfg.OfflineAfter)
	s.early.expire(now)
	if s.roster.dirty && now.After(s.placed) {
		s.place(now)
	}
	if s.lead.Leading {
		s.moveRows(now)
	}
	s.watchMesh(now)
	s.watchProbers(now)
	s.watchBuilds(now)
	s.keepGroups(now)
	s.keepBlames(now)
}

// heard is the share of seats that have a fresh vote, 1 when there are none. Seats of probers that have been silent for as long as a warm-up do not count, if they are the fewer: a datacenter that
// was lost before is not waited for by every leader after. Who misses most has been cut off itself, and they come back to it in a moment.
func (s *State) heard(now time.Time) float64 {
	var all, fresh, silent int
	for _, c := range s.checks {
		if c.spec.GetPaused() || c.gone {
			continue
		}
		for i := range c.votes {
			all++
			if c.policy.IsFresh(&c.votes[i], now) {
				fresh++
			} else if p := s.roster.get(c.votes[i].Prober); !p.online && now.Sub(p.since) >= s.cfg.WarmUp {
				silent++
			}
		}
	}
	if 2*silent < all {
		all -= silent
	}
	if all == 0 {
		return 1
	}
	return float64(fresh) / float64(all)
}

// Names are the names of all checks, sorted.
func (s *State) Names() []string {
	names := s.NamesAfter("")
	sort.Strings(names)
	return names
}

// NamesAfter are the names of all checks above one, in no order: a hundred thousand are sorted in tens of milliseconds, for which nobody need wait who is kept from
// voting meanwhile.
func (s *State) NamesAfter(after string) []string {
	names := make([]string, 0, len(s.checks))
	for n, c := range s.checks {
		if !c.gone && n > after {
			names = append(names, n)
		}
	}
	return names
}

// Leading tells whether this server leads, and its term.
func (s *State) Leading() (bool, int64) { return s.lead.Leading, s.lead.Term }

// Incident is the open incident under the key, nil when there is none. It must not be changed.
func (s *State) Incident(key string) *statev1.StoredIncident {
	if key == MeshKey {
		return s.mesh.incident
	}
	if x := s.suspects[key]; x != nil {
		return x.incident
	}
	if b := s.builds.byIncident(key); b != nil {
		return b.incident
	}
	if g := s.mass.groups[key]; g != nil {
		return g.incident
	}
	if b := s.mass.blames[key]; b != nil {
		return b.incident
	}
	if c := s.checks[key]; c != nil {
		return c.incident
	}
	return nil
}

// OpenIncidents are all open incidents, in no order. They must not be changed.
func (s *State) OpenIncidents() []*statev1.StoredIncident {
	var all []*statev1.StoredIncident
	for _, c := range s.checks {
		if c.incident != nil {
			all = append(all, c.incident)
		}
	}
	if s.mesh.incident != nil {
		all = append(all, s.mesh.incident)
	}
	for _, x := range s.suspects {
		if x.incident != nil {
			all = append(all, x.incident)
		}
	}
	for _, g := range s.mass.groups {
		if g.incident != nil {
			all = append(all, g.incident)
		}
	}
	for _, b := range s.mass.blames {
		if b.incident != nil {
			all = append(all, b.incident)
		}
	}
	for _, x := range s.builds.byName {
		if x.incident != nil {
			all = append(all, x.incident)
		}
	}
	return all
}

// Receivers are all receivers, in no order. They must not be changed.
func (s *State) Receivers() []*meshv1.Receiver { return slices.Collect(maps.Values(s.receivers)) }

// dueHeap orders checks by when they must be looked at, then by name, so that equal events give equal actions.
type dueItem struct {
	at    time.Time
	check *check
}

type dueHeap []dueItem

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if c := h[i].at.Compare(h[j].at); c != 0 {
		return c < 0
	}
	return h[i].check.name < h[j].check.name
}
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].check.index, h[j].check.index = i, j
}
func (h *dueHeap) Push(x any) {
	it := x.(dueItem)
	it.check.index = len(*h)
	*h = append(*h, it)
}
func (h *dueHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = dueItem{}
	*h = old[:len(old)-1]
	it.check.index = -1
	return it
}

// schedule sees to it that the check is looked at by the time, or earlier.
func (s *State) schedule(c *check, at time.Time) {
	switch {
	case c.index < 0:
		heap.Push(&s.due, dueItem{at, c})
	case at.Before(s.due[c.index].at):
		s.due[c.index].at = at
		heap.Fix(&s.due, c.index)
	}
}
