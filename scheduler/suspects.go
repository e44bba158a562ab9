package scheduler

import (
	"fmt"
	"math"
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
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// suspectPrefix begins the keys of incidents about probers that are set aside. What is set aside is what such an incident is open for: so it is decided once, by the
// leader, fenced, and every server, and the next leader, knows it.
const suspectPrefix = "_mesh-suspect_probers-"

// suspect is a domain that is set aside, or about to be.
type suspect struct {
	domain      credibility.Domain
	incident    *statev1.StoredIncident // nil while it is not open
	rev         int64
	effectUntil time.Time
}

func suspectKey(d credibility.Domain) string { return suspectPrefix + url.PathEscape(d.String()) }

func (s *State) putInBook(now time.Time, name string) {
	p := s.roster.get(name)
	if p.enrolled.GetDrained() || p.trial != verdict.Trusted || p.halted {
		s.book.Forget(name)
	} else {
		s.book.Put(name, p.enrolled.GetDatacenter(), p.domains)
	}
	// The others' places in the book are as before. Looking at all of them for each of ten thousand enrolments would take minutes.
	s.mark(now, map[string]*prober{name: p})
}

// putSuspect sets aside what the incident says.
func (s *State) putSuspect(now time.Time, e IncidentPut) {
	a := e.Incident.GetIncident().GetSetAside()
	x := s.suspects[e.Key]
	if x == nil {
		x = &suspect{domain: credibility.Domain{Dimension: a.GetDimension(), Value: a.GetValue()}}
		s.suspects[e.Key] = x
	}
	x.incident, x.rev, x.effectUntil = e.Incident, e.ModRevision, time.Time{}
	s.book.SetAside(x.domain, e.Incident.GetIncident().GetOpenTime().AsTime())
	s.markAside(now)
}

func (s *State) goneSuspect(now time.Time, key string) {
	x := s.suspects[key]
	if x == nil {
		return
	}
	delete(s.suspects, key)
	s.book.Restore(now, x.domain)
	s.markAside(now)
}

// markAside has the votes of every prober count, or not, as the book says.
func (s *State) markAside(now time.Time) {
	s.mark(now, s.roster.probers)
}

// mark does so for some probers.
func (s *State) mark(now time.Time, probers map[string]*prober) {
	changed := map[string]bool{}
	for name, p := range probers {
		is := ""
		if d, away := s.book.Aside(name); away {
			is = d.String()
		}
		if p.halted {
			is = p.buildDomain()
		}
		if p.aside != is {
			p.aside = is
			changed[name] = true
		}
	}
	if len(changed) == 0 {
		return
	}
	for _, c := range s.checks {
		hit := false
		for i := range c.votes {
			if v := &c.votes[i]; changed[v.Prober] {
				c.seats[i].aside = s.roster.probers[v.Prober].aside
				v.Aside, hit = c.seats[i].aside != "", true
			}
		}
		if hit {
			s.schedule(c, now)
		}
	}
}

// asideSince is since when people are to be told that it is set aside: since the incident about it is open, whichever server is asked, but not for longer than it has
// a session.
func (s *State) asideSince(p *prober) time.Time {
	at := p.stateSince()
	if d, away := s.book.Aside(p.name); away {
		if x := s.suspects[suspectKey(d)]; x != nil && x.incident != nil && x.incident.GetIncident().GetOpenTime().AsTime().After(at) {
			return x.incident.GetIncident().GetOpenTime().AsTime()
		}
	}
	return at
}

// watchProbers judges who is sick and who is well again. Every server does; the leader acts.
func (s *State) watchProbers(now time.Time) {
	for key, x := range s.suspects {
		// A snapshot of the store did not have it any more, or it could not be written for long.
		if x.incident == nil && !now.Before(x.effectUntil) {
			s.goneSuspect(now, key)
		}
	}
	for _, ch := range s.book.Judge(now) {
		key := suspectKey(ch.Finding.Domain)
		x := s.suspects[key]
		switch {
		case !s.lead.Leading || !s.warm || s.store.unsettled:
		case ch.Return && x != nil && s.mayAct(x.effectUntil, now):
			s.restore(now, key, x)
		case !ch.Return && x == nil && !s.blamed(ch.Finding):
			s.setAside(now, key, ch.Finding)
		}
	}
	s.watchForBlackout(now)
}

// watchForBlackout has the leader set aside at once what sees nearly everything fail that others see answer.
func (s *State) watchForBlackout(now time.Time) {
	if !s.lead.Leading || !s.warm || s.store.unsettled || s.storeLost() {
		return
	}
	if f, is := s.blackout(now); is && !s.blamed(f) && s.suspects[suspectKey(f.Domain)] == nil {
		s.setAside(now, suspectKey(f.Domain), f)
	}
}

func (s *State) setAside(now time.Time, key string, f credibility.Finding) {
	a := &meshv1.SetAside{
		Dimension: f.Domain.Dimension, Value: f.Domain.Value, Since: timestamppb.New(f.Since), Dissents: int32(math.Round(f.Dissents)), Agreements: int32(math.Round(f.Agreements)),
		FailedShare: f.Failed, Checks: f.Checks, Kinds: f.Kinds,
	}
	for _, d := range f.Also {
		a.Also = append(a.Also, d.String())
	}
	for _, p := range f.Probers {
		a.Probers = append(a.Probers, spec.Name(spec.Probers, p))
	}
	a.Comparisons = s.comparisons(now, f)
	i := &meshv1.Incident{
		Name: spec.Name(spec.Incidents, incidentID(key, now, s.lead.Term)), Kind: meshv1.Incident_MESH, State: meshv1.Incident_OPEN, Verdict: meshv1.CheckStatus_UNKNOWN,
		Reason: meshv1.CheckStatus_SUSPECT_PROBERS, StartTime: timestamppb.New(f.Since), OpenTime: timestamppb.New(now), Term: int32(s.lead.Term), Receivers: s.meshReceivers(),
		SetAside: a, AffectedChecks: f.Checks, AffectedCount: int32(len(f.Checks)), Summary: asideSentence(f),
	}
	st := &statev1.StoredIncident{Incident: i}
	note(i, now, meshv1.TimelineEntry_OPENED, i.Summary)
	s.suspects[key] = &suspect{domain: f.Domain, effectUntil: now.Add(effectTimeout)}
	s.do(Open{Key: key, Incident: st, Outbox: s.owe(st, nil, meshv1.Notification_OPENED, now)})
}

// asideSentence says what is set aside and why.
func asideSentence(f credibility.Finding) string {
	who := "Prober " + f.Domain.Value + " is"
	if f.Domain.Dimension != credibility.ProberDimension {
		who = fmt.Sprintf("The %d probers of %s are", len(f.Probers), f.Domain)
	}
	if len(f.Also) > 0 {
		also := make([]string, len(f.Also))
		for i, d := range f.Also {
			also[i] = d.String()
		}
		who = strings.TrimSuffix(strings.TrimSuffix(who, " is"), " are") + " (also " + strings.Join(also, ", ") + ")" + who[strings.LastIndexByte(who, ' '):]
	}
	what := "see failures that nobody else sees"
	switch {
	case f.Failed == 0:
		what = "see answers where everybody else sees failures"
	case f.Failed < 1:
		what = "see failures that nobody else sees, and answers where everybody else sees failures"
	}
	if f.Domain.Dimension == credibility.ProberDimension {
		what = strings.Replace(what, "see ", "it sees ", 1)
	} else {
		what = "they " + what
	}
	return fmt.Sprintf("%s set aside: %s, in %.0f of %.0f comparisons lately (%s; for example %s). Votes from there do not count until they agree again.", who, what, math.Round(f.Dissents),
		math.Round(f.Dissents+f.Agreements), strings.Join(f.Kinds, ", "), spec.ID(f.Checks[0]))
}

// restore ends the incident of what may count again.
func (s *State) restore(now time.Time, key string, x *suspect) {
	st := proto.CloneOf(x.incident)
	i := st.GetIncident()
	i.State, i.EndTime, i.ResolveTime = meshv1.Incident_RESOLVED, timestamppb.New(now), timestamppb.New(now)
	who := x.domain.String()
	if x.domain.Dimension == credibility.ProberDimension {
		who = "Prober " + x.domain.Value
	}
	i.Summary = fmt.Sprintf("%s agrees with the others again after %s; votes from there count.", who, alert.Span(now.Sub(i.GetStartTime().AsTime())))
	note(i, now, meshv1.TimelineEntry_RESOLVED, i.Summary)
	x.effectUntil = now.Add(effectTimeout)
	out := s.owe(st, nil, meshv1.Notification_RESOLVED, now)
	for _, o := range out {
		o.Notification.EndTime = i.EndTime
		o.Notification.Verdict = meshv1.CheckStatus_UP
	}
	s.do(Resolve{Key: key, Incident: st, Outbox: out, ModRevision: x.rev})
}

// Suspects are what looks sick and is not set aside because of a limit, worst first, with the limit.
func (s *State) Suspects() []credibility.Finding { return s.book.Suspects() }
