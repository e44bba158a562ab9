package scheduler

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
)

// MeshKey is the key of the mesh's own incident: checks that cannot be judged because votes are missing. It is one incident, however many checks there are.
// It is what the store derives from the incident's reason, MESH_BLIND, and tells as the subject.
const MeshKey = "_mesh-mesh_blind"

// IsMesh tells whether the key is that of an incident of the mesh itself.
func IsMesh(key string) bool { return strings.HasPrefix(key, "_mesh-") }

// maxAffected bounds the checks that the mesh's incident names.
const maxAffected = 100

type meshCondition struct {
	incident    *statev1.StoredIncident
	incidentRev int64
	effectUntil time.Time
	clearSince  time.Time
}

// watchMesh opens the mesh's incident when a check has been UNKNOWN for want of votes for longer than the grace, and closes it when none has been for
// half of that. A check that asks for more domains than the mesh has, or for a target that its probers may not connect to, is its owner's affair and does not count.
func (s *State) watchMesh(now time.Time) {
	var blind []string
	longest := now
	any := false
	for n, c := range s.unknown {
		if c.gone || c.reason == meshv1.CheckStatus_TOO_FEW_DOMAINS || c.forbidden() {
			continue
		}
		since := c.since
		if s.leadAt.After(since) {
			since = s.leadAt
		}
		// A check that is new, or was edited, has no votes for a while; that is no sign of blindness.
		any = any || c.reason != meshv1.CheckStatus_NO_VOTES || now.Sub(since) >= s.cfg.MeshGrace
		if now.Sub(since) >= max(s.cfg.MeshGrace, c.interval+c.timeout) {
			blind = append(blind, n)
			if since.Before(longest) {
				longest = since
			}
		}
	}
	switch {
	case any:
		s.mesh.clearSince = time.Time{}
	case s.mesh.clearSince.IsZero():
		s.mesh.clearSince = now
	}
	switch {
	case !s.mayAct(s.mesh.effectUntil, now):
	case s.mesh.incident == nil && len(blind) > 0:
		s.openMesh(now, blind, longest)
	case s.mesh.incident != nil && !any && now.Sub(s.mesh.clearSince) >= s.cfg.MeshGrace/2:
		s.resolveMesh(now)
	}
}

// meshReceivers are the receivers that want incidents of the mesh.
func (s *State) meshReceivers() []string {
	var names []string
	for n, r := range s.receivers {
		if r.GetMeshIncidents() {
			names = append(names, n)
		}
	}
	return alert.Recipients(names)
}

func (s *State) openMesh(now time.Time, blind []string, since time.Time) {
	sort.Strings(blind)
	i := &meshv1.Incident{
		Name: spec.Name(spec.Incidents, incidentID(MeshKey, now, s.lead.Term)), Kind: meshv1.Incident_MESH, State: meshv1.Incident_OPEN,
		Verdict: meshv1.CheckStatus_UNKNOWN, Reason: meshv1.CheckStatus_MESH_BLIND, StartTime: timestamppb.New(since), OpenTime: timestamppb.New(now),
		Term: int32(s.lead.Term), Receivers: s.meshReceivers(), AffectedCount: int32(len(blind)), AffectedChecks: blind[:min(len(blind), maxAffected)],
	}
	i.Summary = s.blindSentence(blind)
	st := &statev1.StoredIncident{Incident: i}
	note(i, now, meshv1.TimelineEntry_OPENED, i.Summary)
	s.mesh.effectUntil = now.Add(effectTimeout)
	s.do(Open{Key: MeshKey, Incident: st, Outbox: s.owe(st, nil, meshv1.Notification_OPENED, now)})
}

func (s *State) blindSentence(blind []string) string {
	checks := len(blind)
	silent := 0
	places := map[string]bool{}
	for _, p := range s.roster.probers {
		if p.enrolled != nil && !p.online && !p.enrolled.GetDrained() {
			silent++
			places[p.enrolled.GetDatacenter()] = true
		}
	}
	subject := fmt.Sprintf("The mesh is blind: %d checks cannot be judged for want of votes", checks)
	if checks == 1 {
		subject = "The mesh is blind: 1 check cannot be judged for want of votes"
	}
	if _, aside := s.missing(blind); silent == 0 && len(aside) > 0 {
		return subject + "; " + s.asideClause(aside) + "."
	}
	if silent == 0 {
		return subject + ", although every prober has a session; see the status of the checks."
	}
	probers := "probers are"
	if silent == 1 {
		probers = "prober is"
	}
	return fmt.Sprintf("%s; %d %s silent (%s).", subject, silent, probers, alert.Places(sortedKeys(places)))
}

// asideClause says how many probers are set aside, and for what.
func (s *State) asideClause(aside []string) string {
	domains := map[string]bool{}
	for _, n := range aside {
		domains[s.roster.probers[spec.ID(n)].aside] = true
	}
	return fmt.Sprintf("%d %s set aside (%s)", len(aside), plural(len(aside), "prober is", "probers are"), strings.Join(sortedKeys(domains), ", "))
}

func (s *State) resolveMesh(now time.Time) {
	st := proto.CloneOf(s.mesh.incident)
	i := st.GetIncident()
	lasted := now.Sub(i.GetStartTime().AsTime())
	i.State, i.EndTime, i.ResolveTime = meshv1.Incident_RESOLVED, timestamppb.New(s.mesh.clearSince), timestamppb.New(now)
	i.Summary = fmt.Sprintf("The mesh sees again after %s: every check can be judged.", alert.Span(lasted))
	note(i, now, meshv1.TimelineEntry_RESOLVED, i.Summary)
	s.mesh.effectUntil = now.Add(effectTimeout)
	out := s.owe(st, nil, meshv1.Notification_RESOLVED, now)
	for _, o := range out {
		o.Notification.EndTime = i.EndTime
		o.Notification.Verdict = meshv1.CheckStatus_UP
	}
	s.do(Resolve{Key: MeshKey, Incident: st, Outbox: out, ModRevision: s.mesh.incidentRev})
}
