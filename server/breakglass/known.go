package breakglass

import (
	"math"
	"time"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// known is what this server knows to be open, or to be closed, and another that lost etcd before it does not.
type known struct {
	// after and applied are the revisions that the lists were made for: the lowest that a server which is heard has applied, and this one's own.
	after, applied int64
	open           []*peerv1.KnownIncident
	closed         []*peerv1.ClosedIncident
}

// know brings that up to date: both are empty while etcd answers this server, and, as nearly always, when all that are heard have been told as much as this one.
func (g *Glass) know(mesh Mesh, failed time.Time, peers []Peer) {
	k := known{after: math.MaxInt64}
	for _, p := range peers {
		if p.Heard && p.Beat != nil && !failed.IsZero() {
			k.after = min(k.after, p.Beat.GetRevision())
		}
	}
	if k.applied = mesh.Applied(); k.applied > k.after {
		if g.known.after == k.after && g.known.applied == k.applied {
			return // without etcd, neither changes
		}
		k.open, k.closed = mesh.OpenAfter(k.after), mesh.ClosedAfter(k.after)
	}
	g.mu.Lock()
	g.known = k
	g.mu.Unlock()
}

// learned are the incidents that others without etcd know to be open, or closed, of revisions that etcd has not told this server of.
func learned(applied int64, peers []Peer) (events []scheduler.Event) {
	for _, p := range peers {
		if !p.Heard || p.Beat.GetEtcdLostTime() == nil {
			continue
		}
		for _, k := range p.Beat.GetKnownIncidents() {
			if k.GetModRevision() > applied {
				events = append(events, scheduler.IncidentKnown{ModRevision: k.GetModRevision(), Incident: &meshv1.Incident{Name: k.GetIncident(), Check: k.GetCheck(),
					Verdict: k.GetVerdict(), Reason: k.GetReason(), StartTime: k.GetStartTime(), OpenTime: k.GetOpenTime(), BreakGlassKey: k.GetBreakGlassKey(), Group: k.GetGroup()}})
			}
		}
		for _, k := range p.Beat.GetClosedIncidents() {
			if k.GetModRevision() > applied {
				events = append(events, scheduler.IncidentEnded{Check: k.GetCheck(), Incident: k.GetIncident(), ModRevision: k.GetModRevision()})
			}
		}
	}
	return events
}
