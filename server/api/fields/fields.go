// Package fields treats the fields of a resource one by one: which of them users own, what an update mask names, and in what two states of a
// resource differ.
//
// A path names a field, `interval`, or one below it, `http.expect`; below a map, the rest of the path is the key, `labels.team`. Lists, durations
// and timestamps are taken as a whole. Fields that the server fills in (create_time, etag, status and so on) are not users': masks that name
// them are harmless, and differences in them are none. All functions are pure.
package fields

import (
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/probemesh/probemesh/internal/fault"
)

// serverOwned tells whether a field of a resource is filled in by the server. In every resource of probemesh that users write, those are the fields
// from number 40 on.
func serverOwned(f protoreflect.FieldDescriptor) bool { return f.Number() >= 40 }

// wellKnown tells whether a message is a value, not a group of fields.
func wellKnown(m protoreflect.MessageDescriptor) bool {
	return m != nil && strings.HasPrefix(string(m.FullName()), "google.protobuf.")
}

// group tells whether paths go on below the field.
func group(f protoreflect.FieldDescriptor) bool {
	return f.Message() != nil && !f.IsList() && !f.IsMap() && !wellKnown(f.Message())
}

// Check gives the faults of a mask for messages like m, with violations at path `update_mask`. An empty mask, and one that is `*` alone, has none.
func Check(m proto.Message, mask *fieldmaskpb.FieldMask) []fault.Violation {
	if all(mask) {
		return nil
	}
	var faults []fault.Violation
	for _, path := range mask.GetPaths() {
		if problem := problemOf(m.ProtoReflect().Descriptor(), path); problem != "" {
			faults = append(faults, fault.Violation{Field: "update_mask", Problem: problem})
		}
	}
	return faults
}

func all(mask *fieldmaskpb.FieldMask) bool {
	paths := mask.GetPaths()
	return len(paths) == 0 || (len(paths) == 1 && paths[0] == "*")
}

func problemOf(m protoreflect.MessageDescriptor, path string) string {
	whole, at := path, ""
	for {
		name, rest, below := strings.Cut(path, ".")
		f := m.Fields().ByName(protoreflect.Name(name))
		switch {
		case f == nil:
			where := "the fields are "
			if at != "" {
				where = "the fields of " + at + " are "
			}
			return "names " + quote(whole) + ", which is not a field; " + where + strings.Join(names(m), ", ")
		case !below, f.IsMap() && rest != "":
			return ""
		case !group(f):
			return "names " + quote(whole) + ", but " + strings.TrimSuffix(whole, "."+rest) + " has no fields; name it as a whole"
		}
		at = strings.TrimSuffix(whole, "."+rest)
		path, m = rest, f.Message()
	}
}

func quote(s string) string {
	if len(s) > 100 {
		s = s[:100] + "..."
	}
	return `"` + strings.ToValidUTF8(s, "?") + `"`
}

func names(m protoreflect.MessageDescriptor) []string {
	var list []string
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); !serverOwned(f) {
			list = append(list, string(f.Name()))
		}
	}
	return list
}

// Merge gives what becomes of stored when the fields in the mask are taken from wished: a field that wished does not have is cleared. An empty
// mask takes every field of users. Fields of the server stay as stored. Neither argument is changed. The mask must have passed Check.
func Merge[M proto.Message](stored, wished M, mask *fieldmaskpb.FieldMask) M {
	merged := proto.Clone(stored).(M)
	to, from := merged.ProtoReflect(), wished.ProtoReflect()
	paths := mask.GetPaths()
	if all(mask) {
		paths = names(to.Descriptor())
	}
	for _, path := range paths {
		if f := to.Descriptor().Fields().ByName(protoreflect.Name(first(path))); f == nil || serverOwned(f) {
			continue
		}
		take(to, from, path)
	}
	return merged
}

func first(path string) string {
	name, _, _ := strings.Cut(path, ".")
	return name
}

// take makes the field at path be in to as it is in from.
func take(to, from protoreflect.Message, path string) {
	name, rest, below := strings.Cut(path, ".")
	f := to.Descriptor().Fields().ByName(protoreflect.Name(name))
	switch {
	case below && f.IsMap():
		key := protoreflect.ValueOfString(rest).MapKey()
		if have := from.Get(f).Map(); have.Has(key) {
			to.Mutable(f).Map().Set(key, have.Get(key))
		} else if to.Has(f) {
			to.Mutable(f).Map().Clear(key)
		}
	case below:
		if from.Has(f) || to.Has(f) {
			take(to.Mutable(f).Message(), from.Get(f).Message(), rest)
		}
	case !from.Has(f):
		to.Clear(f)
	default:
		to.Set(f, copied(from.Interface()).ProtoReflect().Get(f))
	}
}

// copied keeps merged messages from sharing memory with requests.
func copied(m proto.Message) proto.Message { return proto.Clone(m) }

// sortedKeys gives the keys of both maps.
func sortedKeys(a, b protoreflect.Map) []string {
	seen := map[string]bool{}
	for _, m := range []protoreflect.Map{a, b} {
		m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			seen[k.String()] = true
			return true
		})
	}
	keys := make([]string, 0, len(seen))
	for k := range seen {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
