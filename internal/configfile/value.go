package configfile

import (
	"github.com/probemesh/probemesh/internal/nearest"

	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var (
	durationName  = (&durationpb.Duration{}).ProtoReflect().Descriptor().FullName()
	timestampName = (&timestamppb.Timestamp{}).ProtoReflect().Descriptor().FullName()
)

// isScalarMessage tells whether a message is written as one word.
func isScalarMessage(d protoreflect.MessageDescriptor) bool {
	return d.FullName() == durationName || d.FullName() == timestampName
}

// value reads one scalar for the field; false after a fault. slot is a new value of the field, used for messages.
func (w *walker) value(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, slot protoreflect.Value) (protoreflect.Value, bool) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		w.fault(n, path, "wants %s, not %s", wants(fd), describe(n))
		return slot, false
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		return w.text(n, fd, path, slot)
	case protoreflect.BoolKind:
		var b bool
		if n.ShortTag() != "!!bool" || n.Decode(&b) != nil {
			w.fault(n, path, "wants true or false, not %s", describe(n))
			return slot, false
		}
		return protoreflect.ValueOfBool(b), true
	case protoreflect.EnumKind:
		return w.enum(n, fd, path, slot)
	case protoreflect.MessageKind:
		return w.scalarMessage(n, fd, path, slot)
	case protoreflect.BytesKind:
		b, err := base64.StdEncoding.DecodeString(n.Value)
		if err != nil {
			w.fault(n, path, "wants bytes in base64")
			return slot, false
		}
		return protoreflect.ValueOfBytes(b), true
	}
	return w.number(n, fd, path, slot)
}

func (w *walker) text(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, slot protoreflect.Value) (protoreflect.Value, bool) {
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		return protoreflect.ValueOfString(strings.ToValidUTF8(n.Value, "\uFFFD")), true
	case "!!int", "!!float", "!!bool":
		w.fault(n, path, "wants text, not %s; quote it: %s", describe(n), strconv.Quote(n.Value))
	default:
		w.fault(n, path, "wants text, not %s", describe(n))
	}
	return slot, false
}

func (w *walker) enum(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, slot protoreflect.Value) (protoreflect.Value, bool) {
	values := fd.Enum().Values()
	if v := values.ByName(protoreflect.Name(n.Value)); v != nil {
		return protoreflect.ValueOfEnum(v.Number()), true
	}
	names := make([]string, 0, values.Len())
	for i := range values.Len() {
		if values.Get(i).Number() != 0 {
			names = append(names, string(values.Get(i).Name()))
		}
	}
	if near := nearest.To(n.Value, names); near != "" {
		w.fault(n, path, "%q is not one of %s; did you mean %s?", n.Value, strings.Join(names, ", "), near)
	} else {
		w.fault(n, path, "%q is not one of %s", n.Value, strings.Join(names, ", "))
	}
	return slot, false
}

func (w *walker) scalarMessage(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, slot protoreflect.Value) (protoreflect.Value, bool) {
	if fd.Message().FullName() == durationName {
		d, err := ParseDuration(n.Value)
		if err != nil {
			w.fault(n, path, "%s", err)
			return slot, false
		}
		proto.Merge(slot.Message().Interface(), durationpb.New(d))
		return slot, true
	}
	t, err := time.Parse(time.RFC3339Nano, n.Value)
	if err != nil || timestamppb.New(t).CheckValid() != nil {
		w.fault(n, path, "%q is not a time; write it like 2026-03-01T12:00:00Z", n.Value)
		return slot, false
	}
	proto.Merge(slot.Message().Interface(), timestamppb.New(t))
	return slot, true
}

// number reads integers and floats. As in protojson they may stand in quotes.
func (w *walker) number(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, slot protoreflect.Value) (protoreflect.Value, bool) {
	text := strings.ReplaceAll(n.Value, "_", "")
	switch fd.Kind() {
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			w.fault(n, path, "wants a number, not %s", describe(n))
			return slot, false
		}
		if fd.Kind() == protoreflect.FloatKind {
			return protoreflect.ValueOfFloat32(float32(f)), true
		}
		return protoreflect.ValueOfFloat64(f), true
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		u, err := strconv.ParseUint(text, 10, bits(fd))
		if err != nil {
			w.fault(n, path, "wants a whole number of 0 or more, not %s", describe(n))
			return slot, false
		}
		if bits(fd) == 32 {
			return protoreflect.ValueOfUint32(uint32(u)), true
		}
		return protoreflect.ValueOfUint64(u), true
	}
	i, err := strconv.ParseInt(text, 10, bits(fd))
	if err != nil {
		if _, wide := strconv.ParseInt(text, 10, 64); wide == nil {
			w.fault(n, path, "%s is too large for this field", n.Value)
		} else {
			w.fault(n, path, "wants a whole number, not %s", describe(n))
		}
		return slot, false
	}
	if bits(fd) == 32 {
		return protoreflect.ValueOfInt32(int32(i)), true
	}
	return protoreflect.ValueOfInt64(i), true
}

func bits(fd protoreflect.FieldDescriptor) int {
	switch fd.Kind() {
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return 64
	}
	return 32
}

// wants names the values that a field takes.
func wants(fd protoreflect.FieldDescriptor) string {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return "text"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.EnumKind:
		return "a word such as " + string(fd.Enum().Values().Get(fd.Enum().Values().Len()-1).Name())
	case protoreflect.MessageKind:
		if fd.Message().FullName() == durationName {
			return "a duration such as 30s"
		}
		if fd.Message().FullName() == timestampName {
			return "a time such as 2026-03-01T12:00:00Z"
		}
		return "fields of " + string(fd.Message().Name())
	case protoreflect.BytesKind:
		return "bytes in base64"
	}
	return "a number"
}

// describe names what a node is, for a message that says it is not what was wanted.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	value := n.Value
	if r := []rune(value); len(r) > 40 {
		value = string(r[:40]) + "…"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + value
	case "!!bool":
		return value
	case "!!str":
		return "the text " + strconv.Quote(value)
	}
	return strconv.Quote(value)
}
