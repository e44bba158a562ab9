package store

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/probemesh/probemesh/internal/fault"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// AmendIncident changes an incident, open or closed: it reads it, lets change edit the caller's copy, and writes it if nobody was faster, else
// begins anew; change may therefore run several times, and an error of it ends the call without a change. With a fence, the write requires the
// reign; without one (nil), anybody may. What is returned is the incident as written. Errors: NOT_FOUND, ErrFenced, ErrConflict after many rounds.
func (s *Store) AmendIncident(ctx context.Context, fence *Fence, name string, change func(*statev1.StoredIncident) error) (Versioned[*statev1.StoredIncident], error) {
	return s.amend(ctx, fence, name, change)
}

// SettleOutbox deletes an outbox entry that was delivered or given up and records that in its incident, in one transaction. change is as that of
// AmendIncident. An entry that is gone already, or whose incident is, is no error. Errors: ErrFenced.
func (s *Store) SettleOutbox(ctx context.Context, fence Fence, id, incident string, change func(*statev1.StoredIncident) error) error {
	_, err := s.amend(ctx, &fence, incident, change, clientv3.OpDelete(outboxKey(id)))
	if fault.IsReason(err, meshv1.ErrorReason_RESOURCE_NOT_FOUND) {
		return s.DeleteOutbox(ctx, fence, id)
	}
	return err
}

// amend is AmendIncident with more to do in the same transaction.
func (s *Store) amend(ctx context.Context, fence *Fence, name string, change func(*statev1.StoredIncident) error, more ...clientv3.Op) (Versioned[*statev1.StoredIncident], error) {
	var none Versioned[*statev1.StoredIncident]
	for round := range 32 {
		v, key, err := s.findIncident(ctx, name)
		if err != nil {
			return none, err
		}
		if err := change(v.Value); err != nil {
			return none, err
		}
		value, err := encodeIncident(v.Value)
		if err != nil {
			return none, err
		}
		rev, err := s.amendOnce(ctx, fence, key, name, value, v.ModRevision, more)
		if err == nil {
			v.ModRevision = rev
			stampIncident(v)
			return v, nil
		}
		if !errors.Is(err, ErrConflict) {
			return none, err
		}
		// Many amend one incident at once only when many receivers answer at once; stepping aside lets one of them through.
		select {
		case <-ctx.Done():
			return none, writeFault("change "+name, ctx.Err())
		case <-time.After(time.Duration(round) * time.Millisecond):
		}
	}
	return none, conflict(name, "%s is being changed by many at once; try again", name)
}

func (s *Store) amendOnce(ctx context.Context, fence *Fence, key, name, value string, mod int64, more []clientv3.Op) (revision int64, err error) {
	t := txn{what: "change " + name,
		ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", mod)},
		then: append([]clientv3.Op{clientv3.OpPut(key, value)}, more...),
		els:  []clientv3.Op{clientv3.OpGet(key)}}
	refused := func(r *clientv3.TxnResponse) (int64, error) { return own(r, name, value) }
	if fence != nil {
		return s.write(ctx, *fence, t, refused)
	}
	err = settle(ctx, func() error {
		r, err := s.commit(ctx, t)
		if err != nil {
			return err
		}
		if r.Succeeded {
			revision = r.Header.Revision
			return nil
		}
		revision, err = refused(r)
		return err
	})
	return revision, err
}
