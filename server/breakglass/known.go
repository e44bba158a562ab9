package breakglass

import (
	"cmp"
	"math"
	"slices"
	"time"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// known is what this server knows to be open, or to be closed, and another may not: one that lost etcd before it did, or whose watch did not tell it of every change.
type known struct {
	// after and applied are the revisions that the lists were made for: the lowest that a server which is heard has applied, and this one's own.
	after, applied int64
	open           []*peerv1.KnownIncident
	closed         []*peerv1.ClosedIncident
}

// know brings that up to date: both are empty while etcd answers this server.
func (g *Glass) know(mesh Mesh, failed time.Time, peers []Peer) {
	k := known{after: math.MaxInt64}
	for _, p := range peers {
		if p.Heard && p.Beat != nil && !failed.IsZero() {
			k.after = min(k.after, p.Beat.GetRevision())
		}
	}
	if k.after < math.MaxInt64 {
		if k.applied = mesh.Applied(); g.known.after == k.after && g.known.applied == k.applied {
			return // without etcd, neither changes
		}
		k.open = worthTelling(mesh.OpenAfter(0), k.after)
		k.closed = worthTelling(mesh.ClosedAfter(0), k.after)
	}
	g.mu.Lock()
	g.known = k
	g.mu.Unlock()
}

// worthTelling are those of a list that somebody has not been told of for certain, being of a revision that not all have applied; and besides, as far as a beat has room,
// those that changed last, which a watch may have lost.
func worthTelling[T interface{ GetModRevision() int64 }](list []T, after int64) []T {
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(b.GetModRevision(), a.GetModRevision()) })
	n := 0
	for n < len(list) && list[n].GetModRevision() > after {
		n++
	}
	return list[:max(n, min(len(list), inBeat))]
}

// learned are the incidents that others without etcd know to be open, or closed.
func learned(peers []Peer) (events []scheduler.Event) {
	for _, p := range peers {
		if !p.Heard || p.Beat.GetEtcdLostTime() == nil {
			continue
		}
		for _, k := range p.Beat.GetKnownIncidents() {
			events = append(events, scheduler.IncidentKnown{ModRevision: k.GetModRevision(), Incident: &meshv1.Incident{Name: k.GetIncident(), Check: k.GetCheck(),
				Verdict: k.GetVerdict(), Reason: k.GetReason(), StartTime: k.GetStartTime(), OpenTime: k.GetOpenTime(), BreakGlassKey: k.GetBreakGlassKey(), Group: k.GetGroup()}})
		}
		for _, k := range p.Beat.GetClosedIncidents() {
			events = append(events, scheduler.IncidentEnded{Check: k.GetCheck(), Incident: k.GetIncident(), ModRevision: k.GetModRevision()})
		}
	}
	return events
}
