package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// chunkChanges is how many changes one transaction of a plan carries.
const chunkChanges = 100

// Plan is a set of changes to checks and receivers, each decided on a revision of what it changes.
type Plan struct {
	// PutReceivers and PutChecks are created or replaced.
	PutReceivers []PlannedReceiver
	PutChecks    []PlannedCheck
	// DeleteChecks and DeleteReceivers are deleted.
	DeleteChecks    []PlannedDelete
	DeleteReceivers []PlannedDelete
}

// PlannedCheck is a check to write.
type PlannedCheck struct {
	// Check is written as it is, with its output-only fields replaced; a create time in it is kept.
	Check *meshv1.Check
	// ModRevision is the revision of the check that was planned on; 0 when there was none.
	ModRevision int64
}

// PlannedReceiver is a receiver to write; its fields are as those of PlannedCheck.
type PlannedReceiver struct {
	Receiver    *meshv1.Receiver
	ModRevision int64
}

// PlannedDelete is a resource to delete.
type PlannedDelete struct {
	// Name is the resource.
	Name string
	// ModRevision is the revision that was planned on.
	ModRevision int64
}

// change is one put (value not nil) or delete of a plan.
type change struct {
	name  string
	key   string
	value *string
	mod   int64
}

func (c change) compare() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(c.key), "=", c.mod)
}

func (c change) op() clientv3.Op {
	if c.value == nil {
		return clientv3.OpDelete(c.key)
	}
	return clientv3.OpPut(c.key, *c.value)
}

// ApplyBatch writes a plan: receivers first, then checks, then deletions of checks and of receivers, so that no check ever names a receiver
// that is not there. At most 100 changes and 1.4 MB go into one transaction; a larger plan takes several, and chunks says how many were written.
// Before the first is written, the revisions of the whole plan are compared, so that a stale plan changes nothing; only a change by somebody
// else during the writing can end it in the middle. Errors: ETAG_MISMATCH naming what changed.
// The revision is that of the last chunk.
func (s *Store) ApplyBatch(ctx context.Context, p Plan) (chunks int, revision int64, err error) {
	all, err := s.changes(p)
	if err != nil {
		return 0, 0, err
	}
	parts := split(all)
	if len(parts) > 1 {
		for _, part := range parts {
			if err := s.compareOnly(ctx, part); err != nil {
				return 0, 0, err
			}
		}
	}
	for _, part := range parts {
		rev, err := s.applyChunk(ctx, part)
		if err != nil {
			return chunks, revision, err
		}
		chunks, revision = chunks+1, rev
	}
	return chunks, revision, nil
}

// changes is the plan in the order in which it is written.
func (s *Store) changes(p Plan) ([]change, error) {
	now := timestamppb.New(time.Now())
	created := func(t *timestamppb.Timestamp) *timestamppb.Timestamp {
		if t == nil {
			return now
		}
		return t
	}
	var out []change
	for _, r := range p.PutReceivers {
		v, err := s.receivers().encode(r.Receiver, created(r.Receiver.GetCreateTime()), now)
		if err != nil {
			return nil, err
		}
		out = append(out, change{name: r.Receiver.GetName(), key: s.receivers().key(r.Receiver.GetName()), value: &v, mod: r.ModRevision})
	}
	for _, c := range p.PutChecks {
		v, err := s.checks().encode(c.Check, created(c.Check.GetCreateTime()), now)
		if err != nil {
			return nil, err
		}
		out = append(out, change{name: c.Check.GetName(), key: checkKey(c.Check.GetName()), value: &v, mod: c.ModRevision})
	}
	for _, d := range p.DeleteChecks {
		out = append(out, change{name: d.Name, key: checkKey(d.Name), mod: d.ModRevision})
	}
	for _, d := range p.DeleteReceivers {
		out = append(out, change{name: d.Name, key: s.receivers().key(d.Name), mod: d.ModRevision})
	}
	return out, unique(out)
}

// unique refuses a plan that changes one resource twice: etcd would refuse the transaction.
func unique(all []change) error {
	seen := make(map[string]bool, len(all))
	for _, c := range all {
		if seen[c.key] {
			return fault.New(codes.InvalidArgument, meshv1.ErrorReason_INVALID_FIELD, c.name, "%s is changed twice by one plan; name it once", c.name)
		}
		seen[c.key] = true
	}
	return nil
}

// split cuts changes into what fits into one transaction each.
func split(all []change) [][]change {
	var parts [][]change
	var part []change
	size := 0
	for _, c := range all {
		n := len(c.key)
		if c.value != nil {
			n += len(*c.value)
		}
		if len(part) > 0 && (len(part) == chunkChanges || size+n > maxRequestBytes) {
			parts, part, size = append(parts, part), nil, 0
		}
		part, size = append(part, c), size+n
	}
	if len(part) > 0 {
		parts = append(parts, part)
	}
	return parts
}

// compareOnly is nil when every resource of the part still has its planned revision.
func (s *Store) compareOnly(ctx context.Context, part []change) error {
	t := txn{what: "compare the plan with what is stored"}
	for _, c := range part {
		t.ifs = append(t.ifs, c.compare())
		t.els = append(t.els, clientv3.OpGet(c.key, clientv3.WithKeysOnly()))
	}
	r, err := s.commit(ctx, t)
	if err != nil {
		return err
	}
	if r.Succeeded {
		return nil
	}
	return stale(part, r)
}

func (s *Store) applyChunk(ctx context.Context, part []change) (revision int64, err error) {
	t := txn{what: fmt.Sprintf("write %d changes", len(part))}
	for _, c := range part {
		t.ifs = append(t.ifs, c.compare())
		t.then = append(t.then, c.op())
		t.els = append(t.els, clientv3.OpGet(c.key))
	}
	asked := false
	err = settle(ctx, func() error {
		r, err := s.commit(ctx, t)
		if err != nil {
			asked = true
			return err
		}
		revision = r.Header.Revision
		if r.Succeeded || (asked && written(part, r)) {
			return nil
		}
		return stale(part, r)
	})
	return revision, err
}

// written tells whether the failed branch shows exactly what the chunk would have written: our first attempt, whose answer was lost.
func written(part []change, r *clientv3.TxnResponse) bool {
	for i, c := range part {
		kvs := r.Responses[i].GetResponseRange().Kvs
		switch {
		case c.value == nil && len(kvs) > 0:
			return false
		case c.value != nil && (len(kvs) == 0 || string(kvs[0].Value) != *c.value):
			return false
		}
	}
	return true
}

// stale names what changed under the plan.
func stale(part []change, r *clientv3.TxnResponse) error {
	var names []string
	current := ""
	for i, c := range part {
		var mod int64
		if kvs := r.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			mod = kvs[0].ModRevision
		}
		if mod != c.mod {
			names, current = append(names, c.name), etagOf(mod)
		}
	}
	if len(names) == 1 {
		return fault.EtagMismatch(names[0], current).Because(ErrConflict)
	}
	return fault.New(codes.Aborted, meshv1.ErrorReason_ETAG_MISMATCH, "",
		"%s changed since the plan was made; make it again", strings.Join(names, ", ")).Because(ErrConflict)
}
