package scheduler

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/timeline"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// mayAct tells whether an effect on the incident under way now is this server's to wish for.
func (s *State) mayAct(until time.Time, now time.Time) bool {
	return s.lead.Leading && !now.Before(until)
}

// wishOpen wishes for the incident of a check, as part of a group or, with none, by itself.
func (s *State) wishOpen(c *check, now time.Time, v verdict.Verdict, group string) {
	if !s.mayAct(c.effectUntil, now) || !s.warm || s.store.unsettled || c.incident != nil {
		return
	}
	begin := c.failureStart(now)
	i := &meshv1.Incident{
		Name: spec.Name(spec.Incidents, incidentID(c.name, now, s.lead.Term)), Kind: meshv1.Incident_CHECK, Check: c.name, Uri: c.spec.GetUri(),
		State: meshv1.Incident_OPEN, Verdict: shownVerdict(v), Reason: c.reason, StartTime: timestamppb.New(begin), OpenTime: timestamppb.New(now),
		Evidence: c.voteList(now, true), Term: int32(s.lead.Term), Labels: c.spec.GetLabels(), Receivers: alert.Recipients(c.spec.GetReceivers()),
		Annotations: c.spec.GetAnnotations(), TraceId: c.traceID(), Group: group,
	}
	facts := c.facts(shownVerdict(v).String())
	facts.Until = c.until(now)
	i.Summary = alert.Opened(facts)
	st := &statev1.StoredIncident{Incident: i}
	note(i, now, meshv1.TimelineEntry_OPENED, i.Summary)
	c.effectUntil = now.Add(effectTimeout)
	s.do(Open{Key: c.name, Incident: st, Outbox: s.owe(st, c.spec, meshv1.Notification_OPENED, now), CheckRevision: c.revision})
}

func (s *State) wishEscalate(c *check, now time.Time) {
	if !s.mayAct(c.effectUntil, now) || !s.warm {
		return
	}
	st := proto.CloneOf(c.incident)
	i := st.GetIncident()
	i.Verdict, i.Reason, i.Evidence = meshv1.CheckStatus_DOWN, c.reason, c.voteList(now, true)
	i.Summary = alert.Opened(c.facts("DOWN"))
	note(i, now, meshv1.TimelineEntry_VERDICT_CHANGED, i.Summary)
	c.effectUntil = now.Add(effectTimeout)
	s.do(Escalate{Key: c.name, Incident: st, Outbox: s.owe(st, c.spec, meshv1.Notification_ESCALATED, now), ModRevision: c.incidentRev})
}

func (s *State) wishResolve(c *check, now time.Time, reason meshv1.CheckStatus_Reason) {
	if !s.mayAct(c.effectUntil, now) {
		return
	}
	if c.incident.GetIncident().GetGroup() != "" && !c.gone && !c.spec.GetPaused() && s.notYet(c, now) {
		return
	}
	st := proto.CloneOf(c.incident)
	i := st.GetIncident()
	end := now
	facts := c.facts(shownVerdict(c.tally.Verdict).String())
	switch reason {
	case meshv1.CheckStatus_CHECK_DELETED:
		facts.Note = "the check was deleted"
	case meshv1.CheckStatus_CHECK_PAUSED:
		facts.Note = "the check was paused"
	default:
		end = c.recoveryStart(now)
	}
	if begin := i.GetStartTime().AsTime(); end.Before(begin) {
		end = begin
	}
	facts.URI, facts.Lasted = i.GetUri(), end.Sub(i.GetStartTime().AsTime())
	i.State, i.EndTime, i.ResolveTime = meshv1.Incident_RESOLVED, timestamppb.New(end), timestamppb.New(now)
	i.Summary = alert.Resolved(facts)
	note(i, now, meshv1.TimelineEntry_RESOLVED, i.Summary)
	c.effectUntil = now.Add(effectTimeout)
	out := s.owe(st, c.spec, meshv1.Notification_RESOLVED, now)
	for _, o := range out {
		o.Notification.Verdict, o.Notification.Reason = shownVerdict(c.shown), reason
		o.Notification.EndTime = i.EndTime
		o.Notification.Evidence = c.voteList(now, true)
	}
	s.do(Resolve{Key: c.name, Incident: st, Outbox: out, ModRevision: c.incidentRev})
}

// owe makes the outbox entries of a transition, one for each receiver of the incident, and counts them in the incident. Of one that is part of a group nobody is told.
func (s *State) owe(st *statev1.StoredIncident, c *meshv1.Check, t meshv1.Notification_Transition, now time.Time) []*statev1.OutboxEntry {
	i := st.GetIncident()
	if i.GetGroup() != "" {
		return nil
	}
	st.Ordinals++
	var out []*statev1.OutboxEntry
	for _, r := range i.GetReceivers() {
		out = append(out, &statev1.OutboxEntry{
			Id:         alert.Key(spec.ID(i.GetName()), t.String(), spec.ID(r)),
			CreateTime: timestamppb.New(now),
			Ordinal:    st.Ordinals,
			Notification: &meshv1.Notification{
				Incident: i.GetName(), Transition: t, Check: i.GetCheck(), Uri: i.GetUri(), Verdict: i.GetVerdict(), Reason: i.GetReason(),
				StartTime: i.GetStartTime(), Evidence: i.GetEvidence(), Summary: i.GetSummary(), TraceId: i.GetTraceId(), Receiver: r,
				DecideTime: timestamppb.New(now), Labels: i.GetLabels(), Annotations: i.GetAnnotations(), DisplayName: c.GetDisplayName(),
				BreakGlassKey: i.GetBreakGlassKey(), Kind: i.GetKind(), Shared: i.GetShared(),
			},
		})
	}
	return out
}

// note adds to the timeline.
func note(i *meshv1.Incident, now time.Time, e meshv1.TimelineEntry_Event, text string) {
	timeline.Add(i, &meshv1.TimelineEntry{Time: timestamppb.New(now), Event: e, Text: text})
}

// title is what people call the check.
func (c *check) title() string {
	if name := c.spec.GetDisplayName(); name != "" {
		return name
	}
	return spec.ID(c.name)
}

func (c *check) facts(v string) alert.Facts {
	f := alert.Facts{Check: c.title(), URI: c.spec.GetUri(), Verdict: v, Failing: c.failing(), Limping: c.limping(), Heard: c.tally.Fresh, Quorum: c.policy.Quorum}
	f.Unsteady, f.Failed, f.Probes, f.Error = c.unsteady()
	if len(f.Unsteady) == 0 && len(f.Failing) == 0 && len(f.Limping) > 0 {
		f.Error = c.why()
	}
	for m := c.tally.FailVotes; m != 0; m &= m - 1 {
		if r := c.seats[bits.TrailingZeros64(m)].result; r.GetError() != "" {
			f.Error = r.GetError()
			break
		}
	}
	return f
}

// until is what ends an incident that is opened now, as a clause, when the check flaps; else empty.
func (c *check) until(now time.Time) string {
	if hold := c.damping.Add(now).Hold(c.interval, now); hold > c.gap() {
		return "it has answered for " + alert.Span(hold) + " without a break"
	}
	if c.tally.Unsteady >= c.policy.Quorum {
		return fmt.Sprintf("it has answered %d times in a row", verdict.SteadyRun)
	}
	return ""
}

// failureStart is when the first of the failing streaks (or, when nobody sees it fail, of the degraded ones) began that make up the quorum. Every prober probes once an interval, so a streak that began more than an
// interval before the quorum was complete is of a prober that failed alone, while the others saw the target answer: it may have done so for days, and the outage
// has not lasted for days.
func (c *check) failureStart(now time.Time) time.Time {
	if c.tally.Reason == verdict.Intermittent {
		return c.roughSince()
	}
	first := map[string]time.Time{} // by datacenter
	add := func(datacenter string, since time.Time) {
		if t, ok := first[datacenter]; !ok || since.Before(t) {
			first[datacenter] = since
		}
	}
	for m := c.tally.FailVotes; m != 0; m &= m - 1 {
		v := &c.votes[bits.TrailingZeros64(m)]
		add(v.Datacenter, v.Since)
	}
	for m := c.tally.DegradedVotes; m != 0 && c.tally.FailVotes == 0; m &= m - 1 {
		v := &c.votes[bits.TrailingZeros64(m)]
		add(v.Datacenter, v.LevelSince)
	}
	if len(first) == 0 {
		return now
	}
	began := slices.SortedFunc(maps.Values(first), time.Time.Compare)
	complete := began[min(max(c.policy.Quorum, 1), len(began))-1]
	for _, t := range began {
		if !t.Before(complete.Add(-c.interval)) {
			return t
		}
	}
	return complete
}

// roughSince is when the first of the failures began after which a quorum of datacenters has not been steady again.
func (c *check) roughSince() time.Time {
	var first time.Time
	for m := c.tally.UnsteadyVotes; m != 0; m &= m - 1 {
		if t := c.votes[bits.TrailingZeros64(m)].RoughSince; first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first
}

// recoveryStart is when the first of the answering streaks that go on now began.
func (c *check) recoveryStart(now time.Time) time.Time {
	begin := now
	for i := range c.votes {
		v := &c.votes[i]
		since := v.Since
		if !v.Degraded && !since.After(c.began()) {
			since = v.LevelSince // it answered all the time, and was degraded
		}
		if v.Outcome == verdict.OK && c.policy.IsFresh(v, now) && since.Before(begin) && since.After(c.began()) {
			begin = since
		}
	}
	return begin
}

func (c *check) traceID() string {
	for m := c.tally.FailVotes | c.tally.DegradedVotes; m != 0; m &= m - 1 {
		if t := c.seats[bits.TrailingZeros64(m)].result.GetTraceId(); t != "" {
			return t
		}
	}
	return ""
}

func (s *State) putIncident(now time.Time, e IncidentPut) {
	if e.Key == MeshKey {
		s.mesh.incident, s.mesh.incidentRev, s.mesh.effectUntil = e.Incident, e.ModRevision, time.Time{}
		return
	}
	switch {
	case strings.HasPrefix(e.Key, suspectPrefix):
		s.putSuspect(now, e)
		return
	case strings.HasPrefix(e.Key, haltedPrefix):
		s.putHalted(e)
		return
	}
	if IsGroup(e.Key) {
		s.putGroup(now, e)
		return
	}
	if strings.HasPrefix(e.Key, blamePrefix) {
		s.putBlame(now, e)
		return
	}
	c := s.checks[e.Key]
	if c == nil {
		// The check may come later in the same snapshot; if it does not, the incident is closed.
		c = &check{name: e.Key, index: -1, gone: true, told: true, since: now, updated: now, spec: &meshv1.Check{Name: e.Key}}
		s.checks[e.Key] = c
	}
	if !c.hearsay && e.ModRevision < c.incidentRev {
		return // this server has written a newer one itself
	}
	if name := e.Incident.GetIncident().GetName(); name != c.damped {
		c.damping, c.damped = c.damping.Add(now), name
	}
	if e.Incident.GetIncident().GetName() != c.incident.GetIncident().GetName() {
		c.heardAt = now
	}
	if c.closed.Incident == e.Incident.GetIncident().GetName() {
		c.closed = IncidentEnded{} // a snapshot has it again
		for _, key := range OutagesOf(e.Incident.GetIncident()) {
			c.unjoin(key)
		}
	}
	s.leaveGroup(c, c.incident)
	c.incident, c.incidentRev, c.hearsay, c.effectUntil = e.Incident, e.ModRevision, false, time.Time{}
	s.noteGroup(c)
	c.updated = now
	if c.shown == verdict.Down && openSeverity(e.Incident.GetIncident()) == verdict.Down {
		c.since = e.Incident.GetIncident().GetStartTime().AsTime() // the same in every server
	}
	s.incidentOfOutage(c)
	s.do(StatusChanged{Check: c.name, Before: shownVerdict(c.shown), After: shownVerdict(c.shown), Reason: c.reason})
	s.schedule(c, now)
}

// wroteIncident takes over what this server has written itself.
func (s *State) wroteIncident(now time.Time, e IncidentWritten) {
	if c := s.checks[e.Key]; c != nil && max(c.incidentRev, c.closed.ModRevision, s.readAt) < e.ModRevision {
		s.putIncident(now, IncidentPut(e))
	}
}

func (s *State) goneIncident(now time.Time, e IncidentGone) {
	key := e.Key
	if key == MeshKey {
		s.mesh.incident, s.mesh.effectUntil = nil, time.Time{}
		return
	}
	if strings.HasPrefix(key, suspectPrefix) {
		s.goneSuspect(now, key)
		return
	}
	if x := s.builds.byIncident(key); x != nil {
		x.incident, x.incidentRev, x.incidentUntil, s.builds.dirty = nil, 0, time.Time{}, true
		return
	}
	if IsGroup(key) {
		s.goneGroup(now, key)
		return
	}
	if strings.HasPrefix(key, blamePrefix) {
		s.goneBlame(now, key)
		return
	}
	if c := s.checks[key]; c != nil && c.incident != nil {
		if e.ModRevision != 0 && e.ModRevision < c.incidentRev {
			return // it is of one before
		}
		c.noteClosed(e.ModRevision)
		s.incidentOver(c, now)
	}
}

// incidentOver takes over that the incident of a check is open no more.
func (s *State) incidentOver(c *check, now time.Time) {
	gone := c.incident
	s.leaveGroup(c, gone)
	c.incident, c.incidentRev, c.hearsay, c.effectUntil, c.roundAt = nil, 0, false, time.Time{}, time.Time{}
	c.updated = now
	s.endOfOutage(c, gone, now)
	for _, key := range OutagesOf(gone.GetIncident()) {
		c.noteJoined(key)
	}
	s.do(StatusChanged{Check: c.name, Before: shownVerdict(c.shown), After: shownVerdict(c.shown), Reason: c.reason})
	s.schedule(c, now)
}

// TableKey is the key of a MoveRows in EffectFailed.
func TableKey(datacenter string) string { return "placement/" + datacenter }

func (s *State) effectFailed(now time.Time, e EffectFailed) {
	until := now.Add(max(e.Retry, 100*time.Millisecond))
	if d, ok := strings.CutPrefix(e.Key, "placement/"); ok {
		if t := s.roster.tables[d]; t != nil {
			t.until = until
			s.roster.unsettled = true
		}
		return
	}
	if e.Key == MeshKey {
		s.mesh.effectUntil = until
		return
	}
	if x := s.suspects[e.Key]; x != nil {
		x.effectUntil = until
		return
	}
	if s.buildFailed(e.Key, until) {
		return
	}
	if g := s.mass.groups[e.Key]; g != nil {
		g.effectUntil, g.closing = until, false
		return
	}
	if b := s.mass.blames[e.Key]; b != nil {
		b.effectUntil = until
		return
	}
	if c := s.checks[e.Key]; c != nil {
		c.effectUntil = until
		s.schedule(c, until)
	}
}

// crockford is the alphabet of ULIDs (github.com/ulid/spec), in lower case.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// incidentID is a time-ordered id of 26 characters: 48 bits of milliseconds and 80 bits that identify the decision. The same decision has the same id, so that repeating
// it cannot open a second incident.
func incidentID(key string, now time.Time, term int64) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	h := sha256.Sum256(fmt.Appendf(nil, "%s|%d|%d", key, now.UnixNano(), term))
	copy(b[6:], h[:10])
	// 128 bits are 26 characters of five bits with two bits to spare; ULIDs have the spare bits in front.
	var wide [17]byte
	copy(wide[1:], b[:])
	for i := 0; i < 16; i++ {
		wide[i] = wide[i]<<6 | wide[i+1]>>2
	}
	wide[16] <<= 6
	return crockford.EncodeToString(wide[:])[:26]
}
