package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/probemesh/probemesh/internal/fault"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
)

// ListOutbox reads everything owed, by id, and the revision at which it was read.
func (s *Store) ListOutbox(ctx context.Context) ([]Versioned[*statev1.OutboxEntry], int64, error) {
	return listAll(ctx, s, page{prefix: outboxPrefix}, "list what is owed", func() *statev1.OutboxEntry { return &statev1.OutboxEntry{} })
}

// UpdateOutbox replaces an entry that still exists. Errors: ErrFenced, NOT_FOUND.
func (s *Store) UpdateOutbox(ctx context.Context, fence Fence, e *statev1.OutboxEntry) error {
	value, err := encode(e)
	if err != nil {
		return err
	}
	key := outboxKey(e.GetId())
	_, err = s.write(ctx, fence, txn{what: "change what is owed",
		ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), ">", 0)},
		then: []clientv3.Op{clientv3.OpPut(key, value)}},
		func(*clientv3.TxnResponse) (int64, error) { return 0, fault.NotFound("outbox/" + e.GetId()) })
	return err
}

// DeleteOutbox deletes an entry: it is delivered, or given up. One that is gone already is no error. Errors: ErrFenced.
func (s *Store) DeleteOutbox(ctx context.Context, fence Fence, id string) error {
	_, err := s.write(ctx, fence, txn{what: "settle what is owed", then: []clientv3.Op{clientv3.OpDelete(outboxKey(id))}},
		func(*clientv3.TxnResponse) (int64, error) { return 0, fenced(fence) })
	return err
}
