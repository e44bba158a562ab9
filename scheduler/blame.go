package scheduler

import (
	"fmt"
	"math/bits"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
	"github.com/probemesh/probemesh/scheduler/credibility"
	"github.com/probemesh/probemesh/scheduler/grouping"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// blamePrefix begins the keys of incidents of the mesh about a failure domain of probers that explains why many checks turned at once.
const blamePrefix = "_mesh-shared_cause-"

// blame is a failure domain of probers whose word alone does not count for a quorum: while its incident is open, a check that only its probers see fail, and that nobody
// outside sees fail, is DEGRADED and not DOWN. Its votes count with those of others, so that a target that fails for everybody is found all the same.
type blame struct {
	key         string
	value       grouping.Value
	incident    *statev1.StoredIncident
	rev         int64
	opening     *Open
	effectUntil time.Time
	// covered are the checks of which it keeps an incident; true: somebody outside sees it answer.
	covered map[*check]bool
	// witnessed is how many of these there were at the last count: without as many as make a group, what nobody outside looks at is not kept back.
	witnessed int
	fewSince  time.Time
}

// blameHold is how long fewer than a group's worth of checks must be covered before a blame ends.
const blameHold = 30 * time.Second

func (s *State) blame(now time.Time, cause grouping.Cause, members []*check) {
	key := blamePrefix + url.PathEscape(cause.Value.String())
	if s.mass.blames[key] != nil {
		return
	}
	i := &meshv1.Incident{
		Name: spec.Name(spec.Incidents, incidentID(key, now, s.lead.Term)), Kind: meshv1.Incident_MESH, State: meshv1.Incident_OPEN, Verdict: meshv1.CheckStatus_UNKNOWN,
		Reason: meshv1.CheckStatus_SHARED_CAUSE, OpenTime: timestamppb.New(now), StartTime: timestamppb.New(now), Term: int32(s.lead.Term), Receivers: s.meshReceivers(),
		AffectedCount: int32(len(members)), AffectedChecks: cause.Checks[:min(len(cause.Checks), maxAffected)], Shared: sharedCause(cause, members),
		Evidence: members[0].voteList(now, true),
	}
	for _, c := range members {
		if t := c.failureStart(now); t.Before(i.StartTime.AsTime()) {
			i.StartTime = timestamppb.New(t)
		}
	}
	also := ""
	if len(i.Shared.Also) > 0 {
		also = " (also " + strings.Join(i.Shared.Also, ", ") + ")"
	}
	i.Shared.Sharing = 0 // it counts checks, and the cause counts probers
	i.Summary = fmt.Sprintf("The %s of %s%s alone see %d checks fail (%s), and others see %d of these answer: what only they see fail is not told of.",
		plural(cause.Extent.All, "1 prober", fmt.Sprint(cause.Extent.All, " probers")), cause.Value, also, len(members), nameSome(cause.Checks), cause.Extent.Answering)
	st := &statev1.StoredIncident{Incident: i}
	note(i, now, meshv1.TimelineEntry_OPENED, i.Summary)
	b := &blame{key: key, value: cause.Value, effectUntil: now.Add(effectTimeout), covered: map[*check]bool{}, witnessed: len(members)}
	b.opening = &Open{Key: key, Incident: st, Outbox: s.owe(st, nil, meshv1.Notification_OPENED, now)}
	s.mass.blames[key] = b
	s.do(*b.opening)
}

// holds tells whether only probers of the domain see the check fail, and whoever else has a fresh vote sees it answer, and whether there is such a witness.
func (b *blame) holds(c *check, now time.Time) (is, witnessed bool) {
	if c.tally.FailVotes == 0 {
		return false, false
	}
	outside, answers := false, false
	for i := range c.votes {
		v := &c.votes[i]
		in := v.Domains[b.value.Dimension] == b.value.Value || b.value.Dimension == "datacenter" && v.Datacenter == b.value.Value
		switch {
		case in:
		case c.tally.FailVotes&(1<<i) != 0:
			return false, false
		case c.policy.IsFresh(v, now) && v.Outcome == verdict.OK:
			outside, answers = true, true
		case c.policy.IsFresh(v, now) && v.Outcome != verdict.None && v.Outcome != verdict.Fault:
			outside = true
		}
	}
	return answers || !outside && b.witnessed >= grouping.Min, answers
}

// blameOf is the blame that keeps an incident of the check from being opened; nil when none does.
func (s *State) blameOf(c *check, now time.Time) *blame {
	for _, b := range s.mass.blames {
		if is, _ := b.holds(c, now); is {
			return b
		}
	}
	return nil
}

// excuse makes DEGRADED of a DOWN that rests on blamed probers alone.
func (s *State) excuse(c *check, now time.Time) {
	if len(s.mass.blames) == 0 {
		return
	}
	for _, key := range sortedKeys(s.mass.blames) {
		b := s.mass.blames[key]
		is, witnessed := b.holds(c, now)
		if !is {
			delete(b.covered, c)
			continue
		}
		b.covered[c] = witnessed
		if c.tally.Verdict == verdict.Down {
			c.tally.Verdict, c.tally.Reason, c.tally.Undistinct = verdict.Degraded, verdict.NotDistinct, b.value.Dimension
		}
	}
}

func (s *State) putBlame(now time.Time, e IncidentPut) {
	x := e.Incident.GetIncident().GetShared()
	b := s.mass.blames[e.Key]
	if b == nil {
		b = &blame{key: e.Key, value: grouping.Value{Dimension: x.GetDimension(), Value: x.GetValue()}, covered: map[*check]bool{}, witnessed: grouping.Min}
		s.mass.blames[e.Key] = b
		s.lookAtFailing(now)
	}
	b.incident, b.rev, b.opening, b.effectUntil = e.Incident, e.ModRevision, nil, time.Time{}
}

func (s *State) goneBlame(now time.Time, key string) {
	if s.mass.blames[key] != nil {
		delete(s.mass.blames, key)
		s.lookAtFailing(now)
	}
}

func (s *State) lookAtFailing(now time.Time) {
	for _, c := range s.checks {
		if bits.OnesCount64(c.tally.FailVotes) > 0 {
			s.schedule(c, now)
		}
	}
}

// keepBlames does what is due for blames. Once a second.
func (s *State) keepBlames(now time.Time) {
	for _, key := range sortedKeys(s.mass.blames) {
		b := s.mass.blames[key]
		b.witnessed = 0
		for _, is := range b.covered {
			if is {
				b.witnessed++
			}
		}
		if b.witnessed >= grouping.Min {
			b.fewSince = time.Time{}
		} else if b.fewSince.IsZero() {
			b.fewSince = now
			s.lookAtFailing(now)
		}
		switch {
		case !s.mayAct(b.effectUntil, now) || !s.warm || s.store.unsettled || s.storeLost():
		case b.incident == nil:
			b.effectUntil = now.Add(effectTimeout)
			s.do(*b.opening)
		case !b.fewSince.IsZero() && now.Sub(b.fewSince) >= blameHold:
			s.resolveBlame(now, b)
		}
	}
}

func (s *State) resolveBlame(now time.Time, b *blame) {
	st := proto.CloneOf(b.incident)
	i := st.GetIncident()
	i.State, i.EndTime, i.ResolveTime = meshv1.Incident_RESOLVED, timestamppb.New(b.fewSince), timestamppb.New(now)
	i.Summary = fmt.Sprintf("The probers of %s do not see many checks fail alone any more after %s.", b.value, alert.Span(b.fewSince.Sub(i.GetStartTime().AsTime())))
	note(i, now, meshv1.TimelineEntry_RESOLVED, i.Summary)
	b.effectUntil = now.Add(effectTimeout)
	out := s.owe(st, nil, meshv1.Notification_RESOLVED, now)
	for _, o := range out {
		o.Notification.EndTime, o.Notification.Verdict = i.EndTime, meshv1.CheckStatus_UP
	}
	s.do(Resolve{Key: b.key, Incident: st, Outbox: out, ModRevision: b.rev})
}

// blamed tells whether a finding is of probers that are blamed already: the mesh has its incident, and one is enough.
func (s *State) blamed(f credibility.Finding) bool {
	for _, b := range s.mass.blames {
		all := len(f.Probers) > 0
		for _, name := range f.Probers {
			p := s.roster.probers[name]
			all = all && p != nil && p.domains[b.value.Dimension] == b.value.Value
		}
		if all {
			return true
		}
	}
	return false
}
