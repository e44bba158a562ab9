package sim

import (
	"errors"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

var (
	errFenced   = errors.New("the term is over")
	errConflict = errors.New("something has changed meanwhile")
)

type stored[V any] struct {
	value V
	rev   int64
}

// store is linearizable: what it does, it does at once and in order. Slow and lost are only the ways to it and back.
type store struct {
	w          *World
	rev        int64
	term       int64 // of the leader whose effects it takes
	checks     map[string]stored[*meshv1.Check]
	receivers  map[string]stored[*meshv1.Receiver]
	enrolments map[string]stored[*statev1.Enrolment]
	tables     map[string]stored[*statev1.PlacementTable]
	open       map[string]stored[*statev1.StoredIncident]
	closed     []*statev1.StoredIncident
	outbox     map[string]*statev1.OutboxEntry
}

func newStore(w *World) *store {
	return &store{
		w: w, checks: map[string]stored[*meshv1.Check]{}, receivers: map[string]stored[*meshv1.Receiver]{}, enrolments: map[string]stored[*statev1.Enrolment]{},
		tables: map[string]stored[*statev1.PlacementTable]{}, open: map[string]stored[*statev1.StoredIncident]{}, outbox: map[string]*statev1.OutboxEntry{},
	}
}

// changed tells every server's watch.
func (s *store) changed(e scheduler.Event) {
	for _, v := range s.w.servers {
		v.watch(e)
	}
}

func (s *store) next() int64 { s.rev++; return s.rev }

func (s *store) putCheck(c *meshv1.Check) {
	r := s.next()
	s.checks[c.GetName()] = stored[*meshv1.Check]{c, r}
	s.w.rosterAt = s.w.now
	s.changed(scheduler.CheckPut{Check: c, ModRevision: r})
}

func (s *store) deleteCheck(name string) {
	s.next()
	delete(s.checks, name)
	s.w.rosterAt = s.w.now
	s.changed(scheduler.CheckGone{Name: name})
}

func (s *store) putReceiver(r *meshv1.Receiver) {
	s.receivers[r.GetName()] = stored[*meshv1.Receiver]{r, s.next()}
	s.changed(scheduler.ReceiverPut{Receiver: r})
}

func (s *store) enrol(e *statev1.Enrolment) {
	if old, ok := s.enrolments[e.GetName()]; ok && proto.Equal(old.value, e) {
		return
	}
	s.enrolments[e.GetName()] = stored[*statev1.Enrolment]{e, s.next()}
	s.w.rosterAt = s.w.now
	s.changed(scheduler.EnrolmentPut{Enrolment: e})
}

// snapshot is the whole store as events.
func (s *store) snapshot() []scheduler.Event {
	events := []scheduler.Event{scheduler.Reset{}}
	for _, n := range sorted(s.checks) {
		events = append(events, scheduler.CheckPut{Check: s.checks[n].value, ModRevision: s.checks[n].rev})
	}
	for _, n := range sorted(s.open) {
		events = append(events, scheduler.IncidentPut{Key: n, Incident: s.open[n].value, ModRevision: s.open[n].rev})
	}
	for _, n := range sorted(s.receivers) {
		events = append(events, scheduler.ReceiverPut{Receiver: s.receivers[n].value})
	}
	for _, n := range sorted(s.enrolments) {
		events = append(events, scheduler.EnrolmentPut{Enrolment: s.enrolments[n].value})
	}
	for _, n := range sorted(s.tables) {
		events = append(events, scheduler.TablePut{Table: s.tables[n].value, ModRevision: s.tables[n].rev})
	}
	return events
}

// effect carries out an action in one transaction.
func (s *store) effect(term int64, a scheduler.Action) error {
	if term != s.term {
		if !s.w.opt.NoFence {
			return errFenced
		}
		s.w.violate("an effect of term %d was taken in term %d: %T", term, s.term, a)
	}
	switch a := a.(type) {
	case scheduler.Open:
		if _, open := s.open[a.Key]; open {
			return errConflict
		}
		if isCheck(a.Key) && s.checks[a.Key].rev != a.CheckRevision {
			return errConflict
		}
		s.putIncident(a.Key, a.Incident)
		s.owe(a.Outbox)
		s.w.opened(a.Key, a.Incident.GetIncident())
		s.w.joined(a.Key, a.Incident.GetIncident())
	case scheduler.Escalate:
		if s.open[a.Key].rev != a.ModRevision {
			return errConflict
		}
		s.putIncident(a.Key, a.Incident)
		s.owe(a.Outbox)
		switch t := a.Incident.GetIncident().GetTimeline(); {
		case len(a.Outbox) > 0 && a.Outbox[0].GetNotification().GetTransition() == meshv1.Notification_OPENED:
			s.w.log("incident of %s is told of to %d more: %s", a.Key, len(a.Outbox), t[len(t)-1].GetText())
		case isCheck(a.Key):
			s.w.log("incident of %s is now DOWN: %s", a.Key, a.Incident.GetIncident().GetSummary())
		}
	case scheduler.Resolve:
		if s.open[a.Key].rev != a.ModRevision {
			return errConflict
		}
		s.next()
		delete(s.open, a.Key)
		s.closed = append(s.closed, a.Incident)
		s.owe(a.Outbox)
		s.changed(scheduler.IncidentGone{Key: a.Key})
		s.w.log("incident resolved: %s", a.Incident.GetIncident().GetSummary())
	case scheduler.MoveRows:
		d := a.Table.GetDatacenter()
		if s.tables[d].rev != a.ModRevision {
			return errConflict
		}
		r := s.next()
		s.tables[d] = stored[*statev1.PlacementTable]{a.Table, r}
		s.w.rosterAt = s.w.now
		s.changed(scheduler.TablePut{Table: a.Table, ModRevision: r})
	}
	return nil
}

func (s *store) putIncident(key string, i *statev1.StoredIncident) {
	r := s.next()
	s.open[key] = stored[*statev1.StoredIncident]{i, r}
	s.changed(scheduler.IncidentPut{Key: key, Incident: i, ModRevision: r})
}

func (s *store) owe(out []*statev1.OutboxEntry) {
	for _, o := range out {
		if _, twice := s.outbox[o.GetId()]; twice || s.w.hook.effects[o.GetId()] > 0 {
			s.w.violate("the notification %s is owed twice", o.GetId())
		}
		s.outbox[o.GetId()] = o
		s.w.hook.owed[o.GetId()] = s.w.now
	}
}
