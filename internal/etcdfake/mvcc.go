package etcdfake

import (
	"bytes"
	"sort"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"
)

// version is a key as it was from its mod revision on; a tombstone has Version 0.
type version = mvccpb.KeyValue

// mvcc is the multi-version map. Server.mu guards it.
type mvcc struct {
	rev       int64
	compacted int64
	keys      []string // sorted; every key with at least one version
	versions  map[string][]*version
	events    []*mvccpb.Event // in revision order, back to the last compaction
	hidden    map[*mvccpb.Event]bool
}

func newMVCC() *mvcc {
	// A fresh etcd is at revision 1.
	return &mvcc{rev: 1, versions: map[string][]*version{}, hidden: map[*mvccpb.Event]bool{}}
}

// at is the key's live version at a revision, or nil.
func (m *mvcc) at(key string, rev int64) *version {
	vs := m.versions[key]
	i := sort.Search(len(vs), func(i int) bool { return vs[i].ModRevision > rev })
	if i == 0 || vs[i-1].Version == 0 {
		return nil
	}
	return vs[i-1]
}

// inRange tells whether a key is in [from, end) as etcd writes ranges: no end is the one key, "\x00" is no upper bound.
func inRange(key string, from, end []byte) bool {
	switch {
	case len(end) == 0:
		return key == string(from)
	case len(end) == 1 && end[0] == 0:
		return key >= string(from)
	default:
		return key >= string(from) && key < string(end)
	}
}

// span is every key in the range that lives at rev, by key.
func (m *mvcc) span(from, end []byte, rev int64) []*version {
	var out []*version
	for i := sort.SearchStrings(m.keys, string(from)); i < len(m.keys) && inRange(m.keys[i], from, end); i++ {
		if v := m.at(m.keys[i], rev); v != nil {
			out = append(out, v)
		}
	}
	return out
}

// read answers a range request at revision now (which in a transaction is one ahead of rev).
func (m *mvcc) read(r *pb.RangeRequest, now int64) (*pb.RangeResponse, error) {
	rev := r.Revision
	switch {
	case rev > m.rev:
		return nil, rpctypes.ErrGRPCFutureRev
	case rev > 0 && rev < m.compacted:
		return nil, rpctypes.ErrGRPCCompacted
	case len(r.Key) == 0:
		return nil, rpctypes.ErrGRPCEmptyKey
	case rev <= 0:
		rev = now
	}
	all := m.span(r.Key, r.RangeEnd, rev)
	resp := &pb.RangeResponse{Count: int64(len(all))}
	if r.CountOnly {
		return resp, nil
	}
	all = filtered(all, r)
	sortVersions(all, r.SortTarget, r.SortOrder)
	if r.Limit > 0 && int64(len(all)) > r.Limit {
		all, resp.More = all[:r.Limit], true
	}
	for _, v := range all {
		kv := proto.Clone(v).(*mvccpb.KeyValue)
		if r.KeysOnly {
			kv.Value = nil
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	return resp, nil
}

func filtered(all []*version, r *pb.RangeRequest) []*version {
	out := all[:0:0]
	for _, v := range all {
		if (r.MinModRevision > 0 && v.ModRevision < r.MinModRevision) || (r.MaxModRevision > 0 && v.ModRevision > r.MaxModRevision) ||
			(r.MinCreateRevision > 0 && v.CreateRevision < r.MinCreateRevision) || (r.MaxCreateRevision > 0 && v.CreateRevision > r.MaxCreateRevision) {
			continue
		}
		out = append(out, v)
	}
	return out
}

func sortVersions(all []*version, target pb.RangeRequest_SortTarget, order pb.RangeRequest_SortOrder) {
	if order == pb.RangeRequest_NONE {
		if target == pb.RangeRequest_KEY {
			return
		}
		order = pb.RangeRequest_ASCEND
	}
	less := func(a, b *version) int {
		switch target {
		case pb.RangeRequest_VERSION:
			return int(a.Version - b.Version)
		case pb.RangeRequest_CREATE:
			return int(a.CreateRevision - b.CreateRevision)
		case pb.RangeRequest_MOD:
			return int(a.ModRevision - b.ModRevision)
		case pb.RangeRequest_VALUE:
			return bytes.Compare(a.Value, b.Value)
		default:
			return bytes.Compare(a.Key, b.Key)
		}
	}
	sort.SliceStable(all, func(i, j int) bool {
		if order == pb.RangeRequest_DESCEND {
			return less(all[i], all[j]) > 0
		}
		return less(all[i], all[j]) < 0
	})
}

// put writes a version at revision rev, which is not yet the current one.
func (m *mvcc) put(key, value []byte, lease, rev int64) (prev *version) {
	prev = m.at(string(key), rev)
	v := &version{Key: bytes.Clone(key), Value: bytes.Clone(value), Lease: lease, ModRevision: rev, CreateRevision: rev, Version: 1}
	if prev != nil {
		v.CreateRevision, v.Version = prev.CreateRevision, prev.Version+1
	}
	m.append(v)
	m.events = append(m.events, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: v, PrevKv: prev})
	return prev
}

// remove writes a tombstone.
func (m *mvcc) remove(v *version, rev int64) {
	tomb := &version{Key: bytes.Clone(v.Key), ModRevision: rev}
	m.append(tomb)
	m.events = append(m.events, &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: tomb, PrevKv: v})
}

func (m *mvcc) append(v *version) {
	key := string(v.Key)
	if _, ok := m.versions[key]; !ok {
		i := sort.SearchStrings(m.keys, key)
		m.keys = append(m.keys, "")
		copy(m.keys[i+1:], m.keys[i:])
		m.keys[i] = key
	}
	m.versions[key] = append(m.versions[key], v)
}

// compact forgets what was overwritten before rev, which stays readable.
func (m *mvcc) compact(rev int64) error {
	if rev <= m.compacted {
		return rpctypes.ErrGRPCCompacted
	}
	if rev > m.rev {
		return rpctypes.ErrGRPCFutureRev
	}
	m.compacted = rev
	kept := m.keys[:0]
	for _, key := range m.keys {
		vs := m.versions[key]
		i := sort.Search(len(vs), func(i int) bool { return vs[i].ModRevision > rev })
		if i > 0 && vs[i-1].Version > 0 {
			i--
		}
		if vs = vs[i:]; len(vs) == 0 {
			delete(m.versions, key)
			continue
		}
		m.versions[key] = vs
		kept = append(kept, strings.Clone(key))
	}
	m.keys = kept
	first := sort.Search(len(m.events), func(i int) bool { return m.events[i].Kv.ModRevision >= rev })
	m.events = append([]*mvccpb.Event(nil), m.events[first:]...)
	return nil
}

// since gives the events from revision rev on.
func (m *mvcc) since(rev int64) []*mvccpb.Event {
	return m.events[sort.Search(len(m.events), func(i int) bool { return m.events[i].Kv.ModRevision >= rev }):]
}
