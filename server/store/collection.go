package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// resource is what the API lets users create, change and delete.
type resource interface {
	proto.Message
	GetName() string
	GetEtag() string
	GetCreateTime() *timestamppb.Timestamp
}

// collection is how one kind of resource is kept. stamp fills in what is known from the key's revisions; strip removes what is not stored
// and sets the two times.
type collection[T resource] struct {
	s      *Store
	prefix string
	fresh  func() T
	stamp  func(T, *mvccpb.KeyValue)
	strip  func(r T, created, updated *timestamppb.Timestamp)
}

func (s *Store) checks() collection[*meshv1.Check] {
	return collection[*meshv1.Check]{s: s, prefix: checkPrefix, fresh: func() *meshv1.Check { return &meshv1.Check{} },
		stamp: func(c *meshv1.Check, kv *mvccpb.KeyValue) {
			c.Etag, c.Revision = etagOf(kv.ModRevision), kv.ModRevision
		},
		strip: func(c *meshv1.Check, created, updated *timestamppb.Timestamp) {
			c.Etag, c.Revision, c.Status, c.CreateTime, c.UpdateTime = "", 0, nil, created, updated
		}}
}

func (s *Store) receivers() collection[*meshv1.Receiver] {
	return collection[*meshv1.Receiver]{s: s, prefix: receiverPrefix, fresh: func() *meshv1.Receiver { return &meshv1.Receiver{} },
		stamp: func(r *meshv1.Receiver, kv *mvccpb.KeyValue) { r.Etag = etagOf(kv.ModRevision) },
		strip: func(r *meshv1.Receiver, created, updated *timestamppb.Timestamp) {
			r.Etag, r.Owed, r.LastError, r.LastDeliveryTime, r.DeliveryUnknown, r.CreateTime, r.UpdateTime = "", 0, "", nil, false, created, updated
		}}
}

func (c collection[T]) key(name string) string { return c.prefix + spec.ID(name) }

func (c collection[T]) decode(kv *mvccpb.KeyValue) (T, error) {
	r := c.fresh()
	if err := decode(kv, r); err != nil {
		return r, err
	}
	c.stamp(r, kv)
	return r, nil
}

// encode is the resource as it is stored.
func (c collection[T]) encode(r T, created, updated *timestamppb.Timestamp) (string, error) {
	stored := proto.Clone(r).(T)
	c.strip(stored, created, updated)
	return encode(stored)
}

func (c collection[T]) get(ctx context.Context, name string) (T, error) {
	var none T
	kv, err := c.s.get(ctx, c.key(name), "read "+name)
	if err != nil {
		return none, err
	}
	if kv == nil {
		return none, fault.NotFound(name)
	}
	return c.decode(kv)
}

func (c collection[T]) list(ctx context.Context, after string, limit int) ([]T, int64, error) {
	var out []T
	var broken error
	p := page{prefix: c.prefix, after: spec.ID(after), limit: limit}
	rev, err := c.s.scan(ctx, p, "list resources", func(kv *mvccpb.KeyValue) {
		r, err := c.decode(kv)
		if err != nil {
			broken = errors.Join(broken, err)
			return
		}
		out = append(out, r)
	})
	if err == nil {
		err = broken
	}
	return out, rev, err
}

// put writes value at key if its mod revision is still mod (0: it does not exist). It returns the key as it is after the attempt, and whether
// the value is ours. A lost answer is settled by reading back.
func (c collection[T]) put(ctx context.Context, name, value string, mod int64) (kv *mvccpb.KeyValue, ours bool, err error) {
	key, asked := c.key(name), false
	err = settle(ctx, func() error {
		r, err := c.s.commit(ctx, txn{what: "write " + name,
			ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", mod)},
			then: []clientv3.Op{clientv3.OpPut(key, value), clientv3.OpGet(key)},
			els:  []clientv3.Op{clientv3.OpGet(key)}})
		if err != nil {
			asked = true
			return err
		}
		if kvs := r.Responses[len(r.Responses)-1].GetResponseRange().Kvs; len(kvs) > 0 {
			kv = kvs[0]
		}
		// A failed comparison with our own value in place is our first attempt, whose answer was lost.
		ours = r.Succeeded || (asked && kv != nil && string(kv.Value) == value)
		return nil
	})
	return kv, ours, err
}

func (c collection[T]) create(ctx context.Context, r T) (T, error) {
	var none T
	now := timestamppb.New(time.Now())
	value, err := c.encode(r, now, now)
	if err != nil {
		return none, err
	}
	kv, ours, err := c.put(ctx, r.GetName(), value, 0)
	switch {
	case err != nil:
		return none, err
	case !ours:
		return none, fault.Exists(r.GetName())
	}
	return c.decode(kv)
}

func (c collection[T]) update(ctx context.Context, r T, etag string) (T, error) {
	var none T
	name := r.GetName()
	now := timestamppb.New(time.Now())
	for range 16 {
		held, err := c.get(ctx, name)
		if err != nil {
			return none, err
		}
		if etag != "" && held.GetEtag() != etag {
			return none, fault.EtagMismatch(name, held.GetEtag())
		}
		value, err := c.encode(r, held.GetCreateTime(), now)
		if err != nil {
			return none, err
		}
		kv, ours, err := c.put(ctx, name, value, revisionOf(held.GetEtag()))
		if err != nil {
			return none, err
		}
		if ours {
			return c.decode(kv)
		}
	}
	return none, conflict(name, "%s is being changed by many at once; try again", name)
}

func (c collection[T]) delete(ctx context.Context, name, etag string) error {
	key := c.key(name)
	for range 16 {
		held, err := c.get(ctx, name)
		if err != nil {
			return err
		}
		if etag != "" && held.GetEtag() != etag {
			return fault.EtagMismatch(name, held.GetEtag())
		}
		done, err := c.deleteAt(ctx, name, key, revisionOf(held.GetEtag()))
		if err != nil || done {
			return err
		}
	}
	return conflict(name, "%s is being changed by many at once; try again", name)
}

// deleteAt deletes the key if it still has the mod revision. A lost answer is settled: a key that is gone after we asked is gone.
func (c collection[T]) deleteAt(ctx context.Context, name, key string, mod int64) (done bool, err error) {
	asked := false
	err = settle(ctx, func() error {
		r, err := c.s.commit(ctx, txn{what: "delete " + name,
			ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", mod)},
			then: []clientv3.Op{clientv3.OpDelete(key)},
			els:  []clientv3.Op{clientv3.OpGet(key, clientv3.WithKeysOnly())}})
		if err != nil {
			asked = true
			return err
		}
		gone := !r.Succeeded && len(r.Responses[0].GetResponseRange().Kvs) == 0
		done = r.Succeeded || (asked && gone)
		return nil
	})
	return done, err
}
