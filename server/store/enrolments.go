package store

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/fault"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
)

// GetEnrolment reads a prober's enrolment. Errors: NOT_FOUND.
func (s *Store) GetEnrolment(ctx context.Context, name string) (Versioned[*statev1.Enrolment], error) {
	kv, err := s.get(ctx, enrolmentKey(name), "read "+name)
	if err != nil {
		return Versioned[*statev1.Enrolment]{}, err
	}
	if kv == nil {
		return Versioned[*statev1.Enrolment]{}, fault.NotFound(name)
	}
	return versioned(kv, &statev1.Enrolment{})
}

// ListEnrolments reads all enrolments by name, and the revision at which they were read.
func (s *Store) ListEnrolments(ctx context.Context) ([]Versioned[*statev1.Enrolment], int64, error) {
	return listAll(ctx, s, page{prefix: enrolmentPrefix}, "list probers", func() *statev1.Enrolment { return &statev1.Enrolment{} })
}

// PutEnrolment writes an enrolment whose mod revision is still modRevision (0: it must not exist) and returns the new one.
// Errors: ErrConflict.
func (s *Store) PutEnrolment(ctx context.Context, e *statev1.Enrolment, modRevision int64) (int64, error) {
	return s.putAt(ctx, nil, enrolmentKey(e.GetName()), e.GetName(), e, modRevision)
}

// DeleteEnrolment deletes an enrolment whose mod revision is still modRevision. One that is gone already is no error. Errors: ErrConflict.
func (s *Store) DeleteEnrolment(ctx context.Context, name string, modRevision int64) error {
	key := enrolmentKey(name)
	return settle(ctx, func() error {
		r, err := s.commit(ctx, txn{what: "delete " + name,
			ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", modRevision)},
			then: []clientv3.Op{clientv3.OpDelete(key)},
			els:  []clientv3.Op{clientv3.OpGet(key, clientv3.WithKeysOnly())}})
		if err != nil {
			return err
		}
		if !r.Succeeded && len(r.Responses[0].GetResponseRange().Kvs) > 0 {
			return conflict(name, "%s changed since it was read; read it again", name)
		}
		return nil
	})
}

// ListTables reads the placement tables by datacenter, and the revision at which they were read.
func (s *Store) ListTables(ctx context.Context) ([]Versioned[*statev1.PlacementTable], int64, error) {
	return listAll(ctx, s, page{prefix: tablePrefix}, "list placement tables", func() *statev1.PlacementTable { return &statev1.PlacementTable{} })
}

// PutTable writes a datacenter's placement table whose mod revision is still modRevision (0: there is none) and returns the new one.
// Errors: ErrFenced, ErrConflict.
func (s *Store) PutTable(ctx context.Context, fence Fence, t *statev1.PlacementTable, modRevision int64) (int64, error) {
	return s.putAt(ctx, &fence, tableKey(t.GetDatacenter()), "placement of "+t.GetDatacenter(), t, modRevision)
}

// putAt writes m at key if its mod revision is still mod, under the fence if there is one.
func (s *Store) putAt(ctx context.Context, fence *Fence, key, name string, m proto.Message, mod int64) (revision int64, err error) {
	value, err := encode(m)
	if err != nil {
		return 0, err
	}
	t := txn{what: "write " + name,
		ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", mod)},
		then: []clientv3.Op{clientv3.OpPut(key, value)},
		els:  []clientv3.Op{clientv3.OpGet(key)}}
	if fence != nil {
		t = t.fenced(*fence)
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
		if fence != nil && over(*fence, r) {
			s.m.fenced.Add(ctx, 1)
			return fenced(*fence)
		}
		kvs := r.Responses[0].GetResponseRange().Kvs
		if len(kvs) > 0 && string(kvs[0].Value) == value && kvs[0].ModRevision > mod {
			revision = kvs[0].ModRevision
			return nil
		}
		return conflict(name, "%s changed since it was read; read it again", name)
	})
	return revision, err
}

// fenced adds the fence to the comparisons, and to the failed branch a look at the leader's key, always as its last answer.
func (t txn) fenced(f Fence) txn {
	t.ifs = append(t.ifs, f.compare())
	t.els = append(t.els, clientv3.OpGet(f.Key, clientv3.WithKeysOnly()))
	t.reign = true
	return t
}

// over tells whether a transaction made by fenced failed because the reign is over.
func over(f Fence, r *clientv3.TxnResponse) bool {
	kvs := r.Responses[len(r.Responses)-1].GetResponseRange().Kvs
	return len(kvs) == 0 || kvs[0].CreateRevision != f.CreateRevision
}

func versioned[T proto.Message](kv *mvccpb.KeyValue, into T) (Versioned[T], error) {
	err := decode(kv, into)
	return Versioned[T]{Value: into, ModRevision: kv.ModRevision, CreateRevision: kv.CreateRevision}, err
}

// listAll reads a page of values of one type.
func listAll[T proto.Message](ctx context.Context, s *Store, p page, what string, fresh func() T) ([]Versioned[T], int64, error) {
	var out []Versioned[T]
	var broken error
	rev, err := s.scan(ctx, p, what, func(kv *mvccpb.KeyValue) {
		v, err := versioned(kv, fresh())
		if err != nil {
			broken = err
			return
		}
		out = append(out, v)
	})
	if err == nil {
		err = broken
	}
	return out, rev, err
}
