package breakglass

import (
	"time"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
)

// Peer is another server as this one hears it.
type Peer struct {
	// Server is its resource name.
	Server string
	// Heard: it has been heard within the last 600 ms.
	Heard bool
	// Beat is its newest beat, nil when there was none. It is not changed.
	Beat *peerv1.Beat
}

// judgement is what follows from this server's reads of etcd and from the others' beats.
type judgement struct {
	// lost: no server that is heard can read etcd; since is since when.
	lost  bool
	since time.Time
	// cutOff: this server cannot, another can.
	cutOff bool
	// alone: there are other servers, and none of them is heard.
	alone bool
	// rank is how many servers that are heard come before this one, by name, when something is to be sent.
	rank int
	// term is the newest that any of them knows of.
	term int64
}

// judge decides whether the mesh has lost etcd, or this server alone. failed is since when this server's reads have failed, zero while they succeed. Times of others
// are taken as spans before their beats, so that clocks need not agree.
func judge(now, failed time.Time, self string, term int64, peers []Peer) judgement {
	j := judgement{term: term, since: failed}
	lost := !failed.IsZero()
	j.alone = len(peers) > 0
	for _, p := range peers {
		j.term = max(j.term, p.Beat.GetTerm())
		if !p.Heard || p.Beat == nil {
			continue
		}
		j.alone = false
		if p.Beat.GetEtcdLostTime() == nil {
			j.cutOff = j.cutOff || lost
			continue
		}
		ago := max(p.Beat.GetTime().AsTime().Sub(p.Beat.GetEtcdLostTime().AsTime()), 0)
		if at := now.Add(-ago); at.After(j.since) {
			j.since = at
		}
		if p.Server < self {
			j.rank++
		}
	}
	j.lost = lost && !j.cutOff
	if !j.lost {
		j.since = time.Time{}
	}
	return j
}
