package scheduler

import (
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// hearsayFor is how long after etcd is back, and everything settled, an incident that only another server spoke of keeps a check waiting for etcd to tell of it itself.
const hearsayFor = 10 * time.Second

// knowIncident takes over that an incident is open, from a server that etcd told of it before both lost etcd. It stands for the stored one as long as etcd is lost, so
// that nobody is told of it a second time; nothing is ever written from it, since it is not all of it.
func (s *State) knowIncident(now time.Time, e IncidentKnown) {
	c := s.checks[e.Incident.GetCheck()]
	if c == nil || c.gone || !s.storeLost() || e.ModRevision <= s.readAt || max(c.incidentRev, c.closed.ModRevision) >= e.ModRevision || c.incident.GetIncident().GetName() == e.Incident.GetName() {
		return
	}
	st := &statev1.StoredIncident{Incident: proto.CloneOf(e.Incident)}
	st.Incident.State = meshv1.Incident_OPEN
	if st.Incident.OpenTime == nil {
		st.Incident.OpenTime = st.Incident.GetStartTime()
	}
	s.leaveGroup(c, c.incident)
	c.incident, c.incidentRev, c.hearsay, c.heardAt = st, e.ModRevision, true, now
	s.dropCovered(c, st)
	c.updated = now
	s.do(StatusChanged{Check: c.name, Before: shownVerdict(c.shown), After: shownVerdict(c.shown), Reason: c.reason})
	s.schedule(c, now)
}

// awaitStored tells whether a check must wait for etcd to tell of its incident, of which only another server has spoken so far. It does not wait for ever.
func (s *State) awaitStored(c *check, now time.Time) bool {
	if !c.hearsay {
		return false
	}
	if s.store.settled.IsZero() || now.Sub(s.store.settled) < hearsayFor {
		s.schedule(c, now.Add(time.Second))
		return true
	}
	c.dropHearsay()
	s.schedule(c, now)
	return true
}

// dropHearsay forgets an incident of which only another server has spoken.
func (c *check) dropHearsay() {
	if c.hearsay {
		c.incident, c.incidentRev, c.hearsay = nil, 0, false
	}
}

// OpenAfter are the incidents of checks that are open and were changed after a revision of etcd, as etcd told this server, in no order. They must not be changed.
func (s *State) OpenAfter(revision int64) (list []IncidentKnown) {
	for _, c := range s.checks {
		if c.incident != nil && !c.hearsay && c.incidentRev > revision {
			list = append(list, IncidentKnown{Incident: c.incident.GetIncident(), ModRevision: c.incidentRev})
		}
	}
	return list
}

// endIncident takes over that an incident is open no more, from a server that etcd told of it before both lost etcd: its end has been told.
func (s *State) endIncident(now time.Time, e IncidentEnded) {
	c := s.checks[e.Check]
	if c == nil || e.Incident == "" || !s.storeLost() || c.incidentRev >= e.ModRevision || c.incident.GetIncident().GetName() != e.Incident {
		return
	}
	c.closed = e
	s.incidentOver(c, now)
}

// noteClosed notes that the incident of a check is open no more, as of a revision, if etcd has told of it at all, and with it the outages that it has taken in.
func (c *check) noteClosed(revision int64) {
	if c.incident != nil && !c.hearsay {
		for _, key := range OutagesOf(c.incident.GetIncident()) {
			c.noteJoined(key)
		}
		c.closed = IncidentEnded{Check: c.name, Incident: c.incident.GetIncident().GetName(), ModRevision: revision}
	}
}

// ClosedAfter are the incidents of checks that have ended after a revision of etcd, as etcd told this server: of each check the last, in no order.
func (s *State) ClosedAfter(revision int64) (list []IncidentEnded) {
	for _, c := range s.checks {
		if c.closed.ModRevision > revision {
			list = append(list, c.closed)
		}
	}
	return list
}
