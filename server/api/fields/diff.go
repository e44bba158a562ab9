package fields

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Diff gives the fields of users in which two states of a resource differ, in the order of the proto file, each with both values as JSON. A
// field that is unset differs from one that is set to its default: they are different wishes. Lists are compared as a whole, maps key by key.
func Diff[M proto.Message](stored, wished M) []*meshv1.FieldChange {
	d := &differ{}
	d.message("", stored.ProtoReflect(), wished.ProtoReflect(), true)
	return d.changes
}

type differ struct{ changes []*meshv1.FieldChange }

func (d *differ) message(prefix string, a, b protoreflect.Message, top bool) {
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if top && serverOwned(f) || (!a.Has(f) && !b.Has(f)) {
			continue
		}
		d.field(prefix+string(f.Name()), f, a, b)
	}
}

func (d *differ) field(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Message) {
	switch {
	case f.IsMap() && f.MapKey().Kind() == protoreflect.StringKind:
		d.entries(path, f, a.Get(f).Map(), b.Get(f).Map())
		return
	case group(f):
		before := len(d.changes)
		d.message(path+".", a.Get(f).Message(), b.Get(f).Message(), false)
		if len(d.changes) > before || a.Has(f) == b.Has(f) {
			return
		}
	case a.Has(f) == b.Has(f) && a.Get(f).Equal(b.Get(f)):
		return
	}
	d.changes = append(d.changes, &meshv1.FieldChange{Path: path, Before: fieldJSON(a, f), After: fieldJSON(b, f)})
}

func (d *differ) entries(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Map) {
	for _, k := range sortedKeys(a, b) {
		key := protoreflect.ValueOfString(k).MapKey()
		before, after := "", ""
		if a.Has(key) {
			before = valueJSON(a.Get(key))
		}
		if b.Has(key) {
			after = valueJSON(b.Get(key))
		}
		if before != after {
			d.changes = append(d.changes, &meshv1.FieldChange{Path: path + "." + k, Before: before, After: after})
		}
	}
}

// fieldJSON is one field as protojson writes it, without blanks; empty when it is unset.
func fieldJSON(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	if !m.Has(f) {
		return ""
	}
	alone := m.New()
	alone.Set(f, m.Get(f))
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(alone.Interface())
	if err != nil {
		return unprintable(err)
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(text, &values); err != nil {
		return unprintable(err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, values[string(f.Name())]); err != nil {
		return unprintable(err)
	}
	return b.String()
}

// valueJSON is one value of a map: texts, in every resource of probemesh.
func valueJSON(v protoreflect.Value) string {
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return unprintable(err)
	}
	return string(text)
}

// unprintable stands for a value that JSON cannot hold, such as a duration out of range, which no valid resource has.
func unprintable(err error) string {
	text, _ := json.Marshal(fmt.Sprintf("(cannot be shown: %v)", err)) // a text always marshals
	return string(text)
}
