// Package assignments owns what a prober has been told to run: the set of assignments, its digest and revision, and its copy on disk.
//
// [Set] is the pure part. It applies updates as the server sends them and guards against an accidental one: an update that would take away more
// than 30 % and more than 10 of the assignments is refused whole unless the server says that it is intended, because an empty answer by mistake must not
// blind the mesh.
//
// [Store] is a Set that is kept on disk, so that a prober begins to probe before any server answers. The file is replaced atomically and has a checksum;
// one that does not verify is set aside, logged, and the prober starts with nothing and is told anew.
package assignments

import (
	"maps"
	"slices"
	"sort"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/assignment"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of the shrink guard; see session_service.proto, AssignmentUpdate.intended_shrink.
const (
	shrinkPercent = 30
	shrinkCount   = 10
)

// Update is a complete AssignmentUpdate: all its messages, up to the last.
type Update struct {
	// Upserts are new or changed. Those without a check name are ignored and counted in [Change].
	Upserts []*meshv1.Assignment
	// Removals are checks, `checks/{check}`.
	Removals []string
	// Revision is the etcd revision afterwards.
	Revision int64
	// Intended: the server has verified that so many are to go.
	Intended bool
}

// Add takes one message of an update in. It returns true when that was the last.
func (u *Update) Add(m *meshv1.AssignmentUpdate) bool {
	u.Upserts = append(u.Upserts, m.GetUpserts()...)
	u.Removals = append(u.Removals, m.GetRemovals()...)
	u.Revision = m.GetRevision()
	u.Intended = u.Intended || m.GetIntendedShrink()
	return m.GetLast()
}

// Change is what an update made of the set.
type Change struct {
	// Upserted assignments differ from what was held before.
	Upserted []*meshv1.Assignment
	// Removed checks were held before.
	Removed []string
	// Nameless upserts could not be held.
	Nameless int
	// ShrinkRefused: the guard refused the update; nothing has changed. Shrink is how many it would have removed.
	ShrinkRefused bool
	Shrink        int
}

// Set is a set of assignments, one a check. They are kept encoded, which takes a fifth of what the messages do: after it has been compiled, an assignment is read only to be written
// to disk. Not safe for concurrent use.
type Set struct {
	held     map[string]entry
	digest   assignment.Digest
	revision int64
}

// entry is one assignment.
type entry struct {
	fingerprint uint64
	encoded     []byte // never nil
}

// decoded is the assignment again.
func (e entry) decoded() *meshv1.Assignment {
	a := &meshv1.Assignment{}
	if err := proto.Unmarshal(e.encoded, a); err != nil {
		panic("assignments: an assignment that was encoded cannot be decoded: " + err.Error())
	}
	return a
}

// NewSet returns an empty set at revision 0.
func NewSet() *Set { return &Set{held: map[string]entry{}} }

// Len is how many are held.
func (s *Set) Len() int { return len(s.held) }

// Digest is that of all that are held.
func (s *Set) Digest() uint64 { return uint64(s.digest) }

// Revision is the etcd revision that the set stands at.
func (s *Set) Revision() int64 { return s.revision }

// Get returns the assignment of a check, nil when there is none.
func (s *Set) Get(check string) *meshv1.Assignment {
	e, ok := s.held[check]
	if !ok {
		return nil
	}
	return e.decoded()
}

// All returns every assignment, by name.
func (s *Set) All() []*meshv1.Assignment {
	all := make([]*meshv1.Assignment, 0, len(s.held))
	for _, e := range s.held {
		all = append(all, e.decoded())
	}
	sort.Slice(all, func(i, j int) bool { return all[i].GetCheck().GetName() < all[j].GetCheck().GetName() })
	return all
}

// Encoded is what is held, by name, and the revision, as an encoded AssignmentUpdate appended to b. It decodes nothing: thousands of assignments at once would be as much as all else that a prober holds.
func (s *Set) Encoded(b []byte) []byte {
	fields := (&meshv1.AssignmentUpdate{}).ProtoReflect().Descriptor().Fields()
	upserts := fields.ByName("upserts").Number()
	for _, name := range slices.Sorted(maps.Keys(s.held)) {
		b = protowire.AppendTag(b, upserts, protowire.BytesType)
		b = protowire.AppendBytes(b, s.held[name].encoded)
	}
	b, err := proto.MarshalOptions{}.MarshalAppend(b, &meshv1.AssignmentUpdate{Revision: s.revision, Last: true})
	if err != nil {
		panic("assignments: " + err.Error()) // two numbers
	}
	return b
}

// Inventory lists what is held, by name.
func (s *Set) Inventory() []*meshv1.InventoryItem {
	items := make([]*meshv1.InventoryItem, 0, len(s.held))
	for name, e := range s.held {
		items = append(items, &meshv1.InventoryItem{Check: name, Fingerprint: e.fingerprint})
	}
	sort.Slice(items, func(i, j int) bool { return items[i].GetCheck() < items[j].GetCheck() })
	return items
}

// Apply applies an update: removals first, so that a check in both is held afterwards.
func (s *Set) Apply(u *Update) Change {
	var c Change
	upserts := make(map[string]*meshv1.Assignment, len(u.Upserts))
	for _, a := range u.Upserts {
		if name := a.GetCheck().GetName(); name != "" {
			upserts[name] = a // the last one wins
		} else {
			c.Nameless++
		}
	}
	removals := map[string]bool{}
	for _, name := range u.Removals {
		if _, held := s.held[name]; held && upserts[name] == nil {
			removals[name] = true
		}
	}
	c.Shrink = len(removals)
	if c.Shrink > shrinkCount && c.Shrink*100 > len(s.held)*shrinkPercent && !u.Intended {
		c.ShrinkRefused = true
		return c
	}
	for name := range removals {
		s.remove(name)
		c.Removed = append(c.Removed, name)
	}
	for name, a := range upserts {
		if old, held := s.held[name]; held && old.fingerprint == a.GetFingerprint() {
			continue
		}
		encoded, err := proto.Marshal(a)
		if err != nil {
			panic("assignments: " + err.Error()) // it came over gRPC or from disk, so it can be encoded
		}
		s.remove(name)
		s.held[name] = entry{a.GetFingerprint(), encoded}
		s.digest.Add(name, a.GetFingerprint())
		c.Upserted = append(c.Upserted, a)
	}
	sort.Strings(c.Removed)
	sort.Slice(c.Upserted, func(i, j int) bool { return c.Upserted[i].GetCheck().GetName() < c.Upserted[j].GetCheck().GetName() })
	s.revision = u.Revision
	return c
}

func (s *Set) remove(name string) {
	if e, ok := s.held[name]; ok {
		s.digest.Remove(name, e.fingerprint)
		delete(s.held, name)
	}
}
