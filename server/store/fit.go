package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// fit encodes an incident and its outbox entries so that they go into one transaction. Opening an incident must not fail because fifty probers
// saw a long page and sixteen receivers are to be told: what is cut, in this order, until it fits, is the body in the evidence of the
// notifications, their whole evidence, the bodies in the incident, and the incident's evidence. A cut is logged.
func (s *Store) fit(ctx context.Context, inc *statev1.StoredIncident, owed []*statev1.OutboxEntry) (value string, puts []clientv3.Op, err error) {
	stored := proto.Clone(inc).(*statev1.StoredIncident)
	stored.Incident.Etag = ""
	entries := make([]*statev1.OutboxEntry, len(owed))
	for i, e := range owed {
		entries[i] = proto.Clone(e).(*statev1.OutboxEntry)
	}
	cuts := []func(){
		func() { eachEvidence(entries, dropBodies) },
		func() { eachEvidence(entries, dropEvidence) },
		func() { dropBodies(stored.GetIncident().GetEvidence()) },
		func() { dropEvidence(stored.GetIncident().GetEvidence()) },
	}
	for i := 0; ; i++ {
		size := proto.Size(stored)
		for _, e := range entries {
			size += proto.Size(e)
		}
		if size <= maxRequestBytes-(16<<10) || i == len(cuts) {
			break
		}
		cuts[i]()
		s.m.cuts.Add(ctx, 1)
		s.log.WarnContext(ctx, "evidence cut to fit into one etcd transaction",
			"incident", inc.GetIncident().GetName(), "bytes", size, "limit", maxRequestBytes, "step", i+1)
	}
	if value, err = encode(stored); err != nil {
		return "", nil, err
	}
	for _, e := range entries {
		v, err := encode(e)
		if err != nil {
			return "", nil, err
		}
		puts = append(puts, clientv3.OpPut(outboxKey(e.GetId()), v))
	}
	return value, puts, nil
}

func eachEvidence(entries []*statev1.OutboxEntry, cut func([]*meshv1.Vote)) {
	for _, e := range entries {
		cut(e.GetNotification().GetEvidence())
	}
}

func dropBodies(votes []*meshv1.Vote) {
	for _, v := range votes {
		if e := v.GetEvidence(); e != nil {
			e.BodyTruncated = e.BodyTruncated || len(e.Body) > 0
			e.Body = nil
		}
	}
}

func dropEvidence(votes []*meshv1.Vote) {
	for _, v := range votes {
		v.Evidence = nil
	}
}
