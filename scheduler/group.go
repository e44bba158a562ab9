package scheduler

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
	"github.com/probemesh/probemesh/scheduler/grouping"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// groupPrefix begins the keys of incidents of groups. One may be open for each value; the store makes the same key of the incident.
const groupPrefix = "_group-"

// IsGroup tells whether the key is that of an incident of a group of checks.
func IsGroup(key string) bool { return strings.HasPrefix(key, groupPrefix) }

func groupKey(v grouping.Value) string {
	if v == (grouping.Value{}) {
		return groupPrefix
	}
	return groupPrefix + url.PathEscape(v.String())
}

// group is an incident that stands for many checks. Each of them has an incident of its own, which names it, and of which nobody is told; so all that is known of a check
// stays where it was. The order of what is written is such that a crash in between neither loses a check nor tells of it twice:
//
//  1. The group is opened, with what its receivers are owed, and says which checks that tells of.
//  2. These, and later ones that have the value, open without a word, many in one transaction, but only once the group is seen in the store with all their receivers.
//  3. A receiver that is not among them is owed the group's opening first, in the transaction that makes it one of them.
//  4. When few are left that do not recover, or the group is gone, those are let go: their incident is told of from then on, in the transaction that says so.
//  5. The group ends when no incident is part of it any more.
type group struct {
	key   string
	value grouping.Value
	// incident is nil while it is not seen in the store; opening is then what was wished for.
	incident    *statev1.StoredIncident
	rev         int64
	opening     *Open
	effectUntil time.Time
	closing     bool
	// told are the checks that its first notifications told of.
	told map[string]bool
	// members are the checks with an open incident in it, waiting those that are due to have one and have a receiver which is still to be told, with when they were due last.
	members map[*check]bool
	waiting map[*check]time.Time
	// emptySince and fewSince are since when it has no members, or few; written is when it was written last.
	emptySince, fewSince, written time.Time
}

const (
	// maxTold bounds the checks that the incident of a group says it tells of: etcd takes 1.5 MiB in a request, and one that is too big could never be written. Further ones
	// join the group when it is open.
	maxTold = 10_000
	// maxReceivers bounds the receivers that one transaction adds to a group: etcd takes 128 operations.
	maxReceivers = 50
	// settle is how long those who were told of with a group may take to have their incident.
	settle = 30 * time.Second
	// lingers is how long a group is empty before it ends, and stays open at least.
	lingers, leastOpen = 2 * time.Second, 10 * time.Second
	// recount is how often the number of members is written down at most.
	recount = 5 * time.Second
	// batchEvery is the grid of moments at which members' incidents are opened and closed, so that many go into one transaction.
	batchEvery = 500 * time.Millisecond
)

// groupOf is the group that a check whose incident is due belongs to, nil when there is none: one that is open for something that it has, or that has told of it just now.
func (s *State) groupOf(c *check, now time.Time) *group {
	var found *group
	for _, g := range s.mass.groups {
		in := g.told[c.name] && (g.incident == nil || now.Sub(g.incident.GetIncident().GetOpenTime().AsTime()) < settle) || g.value != (grouping.Value{}) && c.has(g.value)
		if in && (found == nil || len(g.told) < len(found.told) || len(g.told) == len(found.told) && g.key < found.key) {
			found = g
		}
	}
	return found
}

// openGroup wishes for the incident of a group.
func (s *State) openGroup(now time.Time, cause grouping.Cause, members []*check) {
	key := groupKey(cause.Value)
	if g := s.mass.groups[key]; g != nil {
		for _, c := range members {
			g.told[c.name] = true // those that nothing explains, while a group of such is open
		}
		return
	}
	i := &meshv1.Incident{
		Name: spec.Name(spec.Incidents, incidentID(key, now, s.lead.Term)), Kind: meshv1.Incident_GROUP, State: meshv1.Incident_OPEN, Verdict: meshv1.CheckStatus_DEGRADED,
		Reason: meshv1.CheckStatus_SHARED_CAUSE, OpenTime: timestamppb.New(now), Term: int32(s.lead.Term), AffectedCount: int32(len(members)), Shared: sharedCause(cause, members),
	}
	g := &group{key: key, value: cause.Value, told: map[string]bool{}, members: map[*check]bool{}, waiting: map[*check]time.Time{}}
	st := &statev1.StoredIncident{Incident: i}
	start := now
	var receivers []string
	for _, c := range members {
		g.told[c.name] = true
		if len(st.ToldChecks) < maxTold {
			st.ToldChecks = append(st.ToldChecks, c.name)
		}
		if t := c.failureStart(now); t.Before(start) {
			start = t
		}
		if c.tally.Verdict == verdict.Down {
			i.Verdict = meshv1.CheckStatus_DOWN
		}
		receivers = append(receivers, c.spec.GetReceivers()...)
	}
	i.AffectedChecks = st.ToldChecks[:min(len(st.ToldChecks), maxAffected)]
	receivers = alert.Recipients(receivers)
	i.Receivers = receivers[:min(len(receivers), maxReceivers)]
	i.StartTime, i.Evidence, i.TraceId = timestamppb.New(start), members[0].voteList(now, true), members[0].traceID()
	i.Summary = groupSentence(i, st.GetToldChecks())
	note(i, now, meshv1.TimelineEntry_OPENED, i.Summary)
	g.opening = &Open{Key: key, Incident: st, Outbox: s.oweGroup(st, meshv1.Notification_OPENED, now)}
	g.effectUntil = now.Add(effectTimeout)
	s.mass.groups[key] = g
	s.do(*g.opening)
}

// oweGroup makes the outbox entries of a group for the receivers given, or all of them. Each names those of the checks that this receiver is told of.
func (s *State) oweGroup(st *statev1.StoredIncident, t meshv1.Notification_Transition, now time.Time, only ...string) []*statev1.OutboxEntry {
	out := s.owe(st, nil, t, now)
	if len(only) > 0 {
		out = slices.DeleteFunc(out, func(o *statev1.OutboxEntry) bool { return !slices.Contains(only, o.GetNotification().GetReceiver()) })
	}
	named := st.GetToldChecks()
	if len(named) == 0 {
		named = st.GetIncident().GetAffectedChecks()
	}
	for _, o := range out {
		n := o.Notification
		for _, name := range named {
			c := s.checks[name]
			if c == nil || !slices.Contains(c.spec.GetReceivers(), n.Receiver) {
				continue
			}
			if n.AffectedCount++; n.AffectedCount <= maxAffected {
				n.AffectedChecks = append(n.AffectedChecks, name)
			}
		}
	}
	return out
}

// enter opens the incident of a check as part of a group, when all its receivers have been told of that.
func (s *State) enter(g *group, c *check, now time.Time, v verdict.Verdict) {
	if g.incident == nil || g.closing {
		s.schedule(c, later(now.Add(time.Second), g.effectUntil))
		return
	}
	for _, r := range c.spec.GetReceivers() {
		if !slices.Contains(g.incident.GetIncident().GetReceivers(), r) {
			g.waiting[c] = now
			s.schedule(c, now.Add(time.Second))
			return
		}
	}
	delete(g.waiting, c)
	if s.notYet(c, now) {
		return
	}
	s.wishOpen(c, now, v, g.incident.GetIncident().GetName())
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// notYet puts off what is due for a member of a group to the moment at which it is done for all that are due.
func (s *State) notYet(c *check, now time.Time) bool {
	at, waits := s.mass.at[c]
	if !waits {
		at = now.Add(batchEvery - now.Sub(now.Truncate(batchEvery)))
		s.mass.at[c] = at
	}
	if now.Before(at) {
		s.schedule(c, at)
		return true
	}
	delete(s.mass.at, c)
	return false
}

// putGroup takes over the incident of a group from the store.
func (s *State) putGroup(now time.Time, e IncidentPut) {
	g := s.mass.groups[e.Key]
	if g == nil {
		g = &group{key: e.Key, members: map[*check]bool{}, waiting: map[*check]time.Time{}}
		s.mass.groups[e.Key] = g
	}
	first := g.incident.GetIncident().GetName() != e.Incident.GetIncident().GetName()
	if first && g.incident != nil {
		delete(s.mass.byName, g.incident.GetIncident().GetName())
	}
	x := e.Incident.GetIncident().GetShared()
	g.value = grouping.Value{Dimension: x.GetDimension(), Value: x.GetValue()}
	g.incident, g.rev, g.opening, g.effectUntil, g.closing = e.Incident, e.ModRevision, nil, time.Time{}, false
	s.mass.byName[e.Incident.GetIncident().GetName()] = g
	if first {
		before := g.told
		g.told, g.written = map[string]bool{}, e.Incident.GetIncident().GetOpenTime().AsTime()
		for _, n := range e.Incident.GetToldChecks() {
			g.told[n] = true
		}
		for n := range before {
			if c := s.checks[n]; c != nil {
				s.schedule(c, now)
			}
		}
		for c := range s.mass.orphans {
			s.noteGroup(c)
		}
	}
	for n := range g.told {
		if c := s.checks[n]; c != nil && c.incident == nil && first {
			s.schedule(c, now)
		}
	}
	for c := range g.waiting {
		s.schedule(c, now)
	}
}

// goneGroup lets go of what is still part of a group that is over.
func (s *State) goneGroup(now time.Time, key string) {
	g := s.mass.groups[key]
	if g == nil {
		return
	}
	delete(s.mass.groups, key)
	delete(s.mass.byName, g.incident.GetIncident().GetName())
	for c := range g.members {
		s.mass.orphans[c] = true
	}
	for c := range g.waiting {
		s.schedule(c, now)
	}
}

// noteGroup notes of which group the incident of a check is part.
func (s *State) noteGroup(c *check) {
	name := c.incident.GetIncident().GetGroup()
	delete(s.mass.orphans, c)
	switch g := s.mass.byName[name]; {
	case name == "":
	case g == nil:
		s.mass.orphans[c] = true
	default:
		g.members[c] = true
		delete(g.waiting, c)
	}
}

// leaveGroup forgets of which group the incident of a check was part.
func (s *State) leaveGroup(c *check, gone *statev1.StoredIncident) {
	delete(s.mass.orphans, c)
	if g := s.mass.byName[gone.GetIncident().GetGroup()]; g != nil {
		delete(g.members, c)
	}
}

// keepGroups does what is due for groups. Once a second.
func (s *State) keepGroups(now time.Time) {
	if !s.lead.Leading || !s.warm || s.store.unsettled || s.storeLost() {
		return
	}
	for _, c := range byName(s.mass.orphans) {
		s.letGo(now, c, "the group that it was part of is over")
	}
	for _, key := range sortedKeys(s.mass.groups) {
		if g := s.mass.groups[key]; !now.Before(g.effectUntil) {
			s.keepGroup(now, g)
		}
	}
}

func (s *State) keepGroup(now time.Time, g *group) {
	if g.incident == nil {
		if !s.stillFails(g) {
			delete(s.mass.groups, g.key) // etcd was away for so long that it is over
			return
		}
		g.effectUntil = now.Add(effectTimeout)
		s.do(*g.opening)
		return
	}
	for c, at := range g.waiting {
		if c.gone || c.incident != nil || now.Sub(at) > 3*time.Second {
			delete(g.waiting, c)
		}
	}
	i := g.incident.GetIncident()
	n, open := len(g.members), now.Sub(i.GetOpenTime().AsTime())
	if n > 0 || len(g.waiting) > 0 {
		g.emptySince = time.Time{}
	} else if g.emptySince.IsZero() {
		g.emptySince = now
	}
	few := n > 0 && n < grouping.Min && n <= int(i.GetShared().GetMembers())/5 && open > settle
	if !few {
		g.fewSince = time.Time{}
	} else if g.fewSince.IsZero() {
		g.fewSince = now
	}
	switch {
	case len(g.waiting) > 0:
		s.tellMore(now, g)
	case !g.emptySince.IsZero() && now.Sub(g.emptySince) >= lingers && open >= leastOpen:
		s.resolveGroup(now, g)
	case few && now.Sub(g.fewSince) >= g.patience():
		for _, c := range byName(g.members) {
			s.letGo(now, c, "the others of its group answer again, and it does not")
		}
	case int(i.GetAffectedCount()) != n && now.Sub(g.written) >= recount, i.GetVerdict() != meshv1.CheckStatus_DOWN && g.anyDown(), open > settle && len(g.incident.GetToldChecks()) > 0:
		s.recount(now, g)
	}
}

// stillFails tells whether anybody sees one of the checks fail that a group is to tell of.
func (s *State) stillFails(g *group) bool {
	for n := range g.told {
		if c := s.checks[n]; c != nil && c.tally.FailVotes != 0 {
			return true
		}
	}
	return false
}

// patience is how long the last of a group may take to recover: two of their intervals, and at least half a minute.
func (g *group) patience() time.Duration {
	longest := 15 * time.Second
	for c := range g.members {
		longest = max(longest, c.interval+c.timeout)
	}
	return 2 * longest
}

// tellMore owes the group's opening to receivers of checks that fail since, and that it did not know yet.
func (s *State) tellMore(now time.Time, g *group) {
	st := proto.CloneOf(g.incident)
	i := st.GetIncident()
	var more []string
	for _, c := range byName(g.waiting) {
		for _, r := range c.spec.GetReceivers() {
			if !slices.Contains(i.GetReceivers(), r) {
				more = append(more, r)
			}
		}
		if len(i.AffectedChecks) < maxAffected && !slices.Contains(i.AffectedChecks, c.name) {
			i.AffectedChecks = append(i.AffectedChecks, c.name)
		}
	}
	slices.Sort(i.AffectedChecks)
	more = alert.Recipients(more)
	more = more[:min(len(more), maxReceivers)]
	if len(more) == 0 {
		clear(g.waiting)
		return
	}
	i.Receivers = append(i.Receivers, more...)
	told := st.ToldChecks
	st.ToldChecks = nil
	out := s.oweGroup(st, meshv1.Notification_OPENED, now, more...)
	st.ToldChecks = told
	g.effectUntil, g.written = now.Add(effectTimeout), now
	s.do(Escalate{Key: g.key, Incident: st, Outbox: out, ModRevision: g.rev})
}

// recount writes down how many checks are in the group, and that those it told of have had their time.
func (s *State) recount(now time.Time, g *group) {
	st := proto.CloneOf(g.incident)
	i := st.GetIncident()
	n := len(g.members)
	i.AffectedCount = int32(n)
	known := slices.Clone(i.AffectedChecks)
	if i.Shared.Members = max(i.Shared.Members, int32(n)); len(i.AffectedChecks) < maxAffected {
		for _, c := range byName(g.members) {
			if _, has := slices.BinarySearch(known, c.name); !has {
				i.AffectedChecks = append(i.AffectedChecks, c.name)
			}
		}
		slices.Sort(i.AffectedChecks)
		i.AffectedChecks = i.AffectedChecks[:min(len(i.AffectedChecks), maxAffected)]
	}
	var out []*statev1.OutboxEntry
	if i.GetVerdict() != meshv1.CheckStatus_DOWN && g.anyDown() {
		// Of a member that has become worse nobody is told by itself.
		i.Verdict, i.Summary = meshv1.CheckStatus_DOWN, strings.Replace(i.GetSummary(), " DEGRADED ", " DOWN ", 1)
		note(i, now, meshv1.TimelineEntry_VERDICT_CHANGED, i.Summary)
		out = s.oweGroup(st, meshv1.Notification_ESCALATED, now)
	}
	if now.Sub(i.GetOpenTime().AsTime()) > settle {
		st.ToldChecks = nil
	}
	g.effectUntil, g.written = now.Add(effectTimeout), now
	s.do(Escalate{Key: g.key, Incident: st, Outbox: out, ModRevision: g.rev})
}

// anyDown tells whether a member is DOWN.
func (g *group) anyDown() bool {
	for c := range g.members {
		if c.incident.GetIncident().GetVerdict() == meshv1.CheckStatus_DOWN {
			return true
		}
	}
	return false
}

func (s *State) resolveGroup(now time.Time, g *group) {
	st := proto.CloneOf(g.incident)
	i := st.GetIncident()
	lasted := g.emptySince.Sub(i.GetStartTime().AsTime())
	i.State, i.EndTime, i.ResolveTime = meshv1.Incident_RESOLVED, timestamppb.New(g.emptySince), timestamppb.New(now)
	what := "that were told of together"
	if x := i.GetShared(); x.GetSide() == meshv1.SharedCause_TARGETS {
		what = sharing(grouping.Value{Dimension: x.GetDimension(), Value: x.GetValue()})
	}
	i.Summary = fmt.Sprintf("The %d checks %s are not %s together any more after %s; any that still is has been told of by itself.", i.GetShared().GetMembers(), what, i.GetVerdict(), alert.Span(lasted))
	i.AffectedCount = 0
	note(i, now, meshv1.TimelineEntry_RESOLVED, i.Summary)
	out := s.oweGroup(st, meshv1.Notification_RESOLVED, now)
	for _, o := range out {
		o.Notification.EndTime, o.Notification.Verdict = i.EndTime, meshv1.CheckStatus_UP
	}
	g.effectUntil, g.closing = now.Add(effectTimeout), true
	s.do(Resolve{Key: g.key, Incident: st, Outbox: out, ModRevision: g.rev})
}

// byName are checks in order.
func byName[V any](m map[*check]V) []*check {
	return slices.SortedFunc(maps.Keys(m), func(a, b *check) int { return strings.Compare(a.name, b.name) })
}

// letGo has the incident of a check told of by itself from now on.
func (s *State) letGo(now time.Time, c *check, why string) {
	if c.incident == nil || !s.mayAct(c.effectUntil, now) {
		return
	}
	st := proto.CloneOf(c.incident)
	i := st.GetIncident()
	i.Group = ""
	note(i, now, meshv1.TimelineEntry_OPENED, "It is told of by itself from now on: "+why+".")
	c.effectUntil = now.Add(effectTimeout)
	s.do(Escalate{Key: c.name, Incident: st, Outbox: s.owe(st, c.spec, meshv1.Notification_OPENED, now), ModRevision: c.incidentRev})
	s.scheduleEffect(c, now)
}
