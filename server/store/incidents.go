package store

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
)

func freshIncident() *statev1.StoredIncident { return &statev1.StoredIncident{} }

// encodeIncident is the incident as it is stored: without etag, and cut to what fits (see fit).
func encodeIncident(inc *statev1.StoredIncident) (string, error) {
	stored := proto.Clone(inc).(*statev1.StoredIncident)
	stored.Incident.Etag = ""
	return encode(stored)
}

// OpenIncident writes an incident and what its receivers are owed, in one transaction that requires the reign, no other open incident of the
// same subject, and, unless checkModRevision is 0, the check unchanged since that revision. It returns the revision of the write.
// An incident that is open under the same name already is this call's own work: success; one that is closed is that too, and is not opened again, however late
// a repeated attempt arrives. Evidence that does not fit into a transaction is cut, first in the notifications, then in the incident. Errors: ErrFenced,
// ErrConflict.
func (s *Store) OpenIncident(ctx context.Context, fence Fence, inc *statev1.StoredIncident, owed []*statev1.OutboxEntry, checkModRevision int64) (int64, error) {
	sub := subject(inc.GetIncident())
	key, name := openKey(sub), inc.GetIncident().GetName()
	value, puts, err := s.fit(ctx, inc, owed)
	if err != nil {
		return 0, err
	}
	t := txn{what: "open " + name,
		ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0), clientv3.Compare(clientv3.CreateRevision(closedKey(name)), "=", 0)},
		then: append([]clientv3.Op{clientv3.OpPut(key, value), clientv3.OpPut(idKey(name), sub)}, puts...),
		els:  []clientv3.Op{clientv3.OpGet(key)}}
	if checkModRevision != 0 {
		t.ifs = append(t.ifs, clientv3.Compare(clientv3.ModRevision(checkKey(inc.GetIncident().GetCheck())), "=", checkModRevision))
	}
	return s.write(ctx, fence, t, func(r *clientv3.TxnResponse) (int64, error) {
		held, err := firstIncident(r)
		switch {
		case err != nil:
			return 0, err
		case held == nil:
			return 0, conflict(inc.GetIncident().GetCheck(), "%s changed while its incident was being opened, or that is closed already; decide anew", inc.GetIncident().GetCheck())
		case held.Value.GetIncident().GetName() != name:
			return 0, conflict(held.Value.GetIncident().GetName(), "%s is open already for %s", held.Value.GetIncident().GetName(), subjectName(sub))
		}
		return held.ModRevision, nil
	})
}

// UpdateIncident replaces an open incident whose mod revision is still modRevision, adds what is owed because of the change, and deletes the outbox entries with the ids that
// are paid, those that still exist. It returns the revision of the write. Errors: ErrFenced, ErrConflict.
func (s *Store) UpdateIncident(ctx context.Context, fence Fence, inc *statev1.StoredIncident, owed []*statev1.OutboxEntry, modRevision int64, paid ...string) (int64, error) {
	key, name := openKey(subject(inc.GetIncident())), inc.GetIncident().GetName()
	value, puts, err := s.fit(ctx, inc, owed)
	if err != nil {
		return 0, err
	}
	t := txn{what: "change " + name,
		ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", modRevision)},
		then: append([]clientv3.Op{clientv3.OpPut(key, value)}, puts...),
		els:  []clientv3.Op{clientv3.OpGet(key)}}
	for _, id := range paid {
		t.then = append(t.then, clientv3.OpDelete(outboxKey(id)))
	}
	return s.write(ctx, fence, t, func(r *clientv3.TxnResponse) (int64, error) {
		return own(r, name, value)
	})
}

// ResolveIncident moves an open incident whose mod revision is still modRevision to the closed ones, and adds what is owed because of that. It
// returns the revision of the write. An incident that is closed under the same name already is this call's own work: success.
// Errors: ErrFenced, ErrConflict.
func (s *Store) ResolveIncident(ctx context.Context, fence Fence, inc *statev1.StoredIncident, owed []*statev1.OutboxEntry, modRevision int64) (int64, error) {
	key, name := openKey(subject(inc.GetIncident())), inc.GetIncident().GetName()
	value, puts, err := s.fit(ctx, inc, owed)
	if err != nil {
		return 0, err
	}
	t := txn{what: "resolve " + name,
		ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", modRevision)},
		then: append([]clientv3.Op{clientv3.OpDelete(key), clientv3.OpDelete(idKey(name)), clientv3.OpPut(closedKey(name), value)}, puts...),
		els:  []clientv3.Op{clientv3.OpGet(closedKey(name))}}
	return s.write(ctx, fence, t, func(r *clientv3.TxnResponse) (int64, error) {
		if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			return kvs[0].ModRevision, nil
		}
		return 0, conflict(name, "%s changed since it was read; read it again", name)
	})
}

// write commits a fenced transaction, repeating it while its outcome is unknown; refused tells whether a failed comparison is our own earlier
// work (and at which revision) or why it failed.
func (s *Store) write(ctx context.Context, fence Fence, t txn, refused func(*clientv3.TxnResponse) (int64, error)) (revision int64, err error) {
	t = t.fenced(fence)
	err = settle(ctx, func() error {
		r, err := s.commit(ctx, t)
		if err != nil {
			return err
		}
		if r.Succeeded {
			revision = r.Header.Revision
			return nil
		}
		if over(fence, r) {
			s.m.fenced.Add(ctx, 1)
			return fenced(fence)
		}
		revision, err = refused(r)
		return err
	})
	return revision, err
}

// firstIncident decodes the first answer of a failed transaction; nil when there is no such key.
func firstIncident(r *clientv3.TxnResponse) (*Versioned[*statev1.StoredIncident], error) {
	kvs := r.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return nil, nil
	}
	v, err := versioned(kvs[0], freshIncident())
	return &v, err
}

// own recognises the value of an earlier attempt.
func own(r *clientv3.TxnResponse, name, value string) (int64, error) {
	if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 && string(kvs[0].Value) == value {
		return kvs[0].ModRevision, nil
	}
	return 0, conflict(name, "%s changed since it was read; read it again", name)
}

// GetIncident reads an incident, open or closed, with its etag filled in. Errors: NOT_FOUND.
func (s *Store) GetIncident(ctx context.Context, name string) (Versioned[*statev1.StoredIncident], error) {
	v, _, err := s.findIncident(ctx, name)
	return v, err
}

// findIncident reads an incident and says under which key it is.
func (s *Store) findIncident(ctx context.Context, name string) (v Versioned[*statev1.StoredIncident], key string, err error) {
	// An incident that is resolved between the two reads below is found by the next round.
	for range 4 {
		kv, err := s.get(ctx, idKey(name), "read "+name)
		if err != nil {
			return v, "", err
		}
		key = closedKey(name)
		if kv != nil {
			key = openKey(string(kv.Value))
		}
		if kv, err = s.get(ctx, key, "read "+name); err != nil {
			return v, "", err
		}
		if kv == nil {
			continue
		}
		v, err = versioned(kv, freshIncident())
		if err != nil || v.Value.GetIncident().GetName() == name {
			stampIncident(v)
			return v, key, err
		}
	}
	return Versioned[*statev1.StoredIncident]{}, "", fault.NotFound(name)
}

func stampIncident(v Versioned[*statev1.StoredIncident]) {
	if v.Value.GetIncident() != nil {
		v.Value.Incident.Etag = etagOf(v.ModRevision)
	}
}

// ListOpenIncidents reads all open incidents, by subject, and the revision at which they were read.
func (s *Store) ListOpenIncidents(ctx context.Context) ([]Versioned[*statev1.StoredIncident], int64, error) {
	return s.listIncidents(ctx, page{prefix: openPrefix})
}

// ListClosedIncidents reads at most limit closed incidents (0: all), newest first, older than the incident before (empty: from the newest).
func (s *Store) ListClosedIncidents(ctx context.Context, before string, limit int) ([]Versioned[*statev1.StoredIncident], int64, error) {
	return s.listIncidents(ctx, page{prefix: closedPrefix, after: spec.ID(before), limit: limit, descend: true})
}

func (s *Store) listIncidents(ctx context.Context, p page) ([]Versioned[*statev1.StoredIncident], int64, error) {
	out, rev, err := listAll(ctx, s, p, "list incidents", freshIncident)
	for _, v := range out {
		stampIncident(v)
	}
	return out, rev, err
}

// PruneClosed deletes the oldest closed incidents until at most keep are left, and returns how many it deleted. Errors: ErrFenced.
func (s *Store) PruneClosed(ctx context.Context, fence Fence, keep int) (int, error) {
	names, err := s.closedNames(ctx)
	if err != nil {
		return 0, err
	}
	keep = max(keep, 0)
	deleted := 0
	for surplus := len(names) - keep; surplus > 0; surplus = len(names) - keep {
		n := min(surplus, chunkChanges)
		t := txn{what: "prune closed incidents"}
		for _, key := range names[:n] {
			t.then = append(t.then, clientv3.OpDelete(key))
		}
		_, err := s.write(ctx, fence, t, func(*clientv3.TxnResponse) (int64, error) { return 0, conflict("", "closed incidents were not pruned") })
		if err != nil {
			return deleted, err
		}
		deleted, names = deleted+n, names[n:]
	}
	return deleted, nil
}

// closedNames are the keys of the closed incidents, oldest first: their names are time-ordered.
func (s *Store) closedNames(ctx context.Context) ([]string, error) {
	var keys []string
	_, err := s.scan(ctx, page{prefix: closedPrefix, keysOnly: true}, "list closed incidents", func(kv *mvccpb.KeyValue) { keys = append(keys, string(kv.Key)) })
	return keys, err
}
