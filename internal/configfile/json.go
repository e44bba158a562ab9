package configfile

import (
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

// structName is the message that holds any JSON object: its fields are whatever the file says.
var structName = (&structpb.Struct{}).ProtoReflect().Descriptor().FullName()

// maxJSONDepth bounds how deep lists and mappings of a JSON object may be in each other.
const maxJSONDepth = 32

// object fills a JSON object from a mapping.
func (w *walker) object(n *yaml.Node, m protoreflect.Message, path string) {
	v := w.jsonValue(n, path, 0)
	into, ok := m.Interface().(*structpb.Struct)
	if v == nil || !ok {
		return
	}
	if v.GetStructValue() == nil {
		w.fault(n, path, "wants a mapping, a JSON object, not %s", describe(n))
		return
	}
	into.Fields = v.GetStructValue().GetFields()
}

// jsonValue is a node as JSON; nil after a fault.
func (w *walker) jsonValue(n *yaml.Node, path string, depth int) *structpb.Value {
	n = follow(n)
	if !w.spend(n) {
		return nil
	}
	if depth > maxJSONDepth {
		w.fault(n, path, "has more than %d lists and mappings in each other", maxJSONDepth)
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		fields := make(map[string]*structpb.Value)
		for _, e := range w.entries(n, path, map[string]*yaml.Node{}, 0) {
			v := w.jsonValue(e.value, join(path, e.key.Value), depth+1)
			if v == nil {
				return nil
			}
			fields[strings.ToValidUTF8(e.key.Value, "\uFFFD")] = v
		}
		return structpb.NewStructValue(&structpb.Struct{Fields: fields})
	case yaml.SequenceNode:
		list := &structpb.ListValue{}
		for _, one := range n.Content {
			v := w.jsonValue(one, path, depth+1)
			if v == nil {
				return nil
			}
			list.Values = append(list.Values, v)
		}
		return structpb.NewListValue(list)
	}
	return w.jsonScalar(n, path)
}

// jsonScalar is a word as JSON: a number, true or false, null, else text.
func (w *walker) jsonScalar(n *yaml.Node, path string) *structpb.Value {
	switch n.ShortTag() {
	case "!!null":
		return structpb.NewNullValue()
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			return structpb.NewBoolValue(b)
		}
	case "!!int", "!!float":
		var f float64
		if n.Decode(&f) == nil && f-f == 0 { // neither infinite nor NaN, which JSON has no words for
			return structpb.NewNumberValue(f)
		}
	case "!!str", "!!timestamp":
		return structpb.NewStringValue(strings.ToValidUTF8(n.Value, "\uFFFD"))
	}
	w.fault(n, path, "wants something that JSON has, not %s", describe(n))
	return nil
}

// jsonNode is a JSON value as YAML, with the keys of objects sorted.
func jsonNode(v *structpb.Value) *yaml.Node {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StructValue:
		out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		keys := make([]string, 0, len(kind.StructValue.GetFields()))
		for k := range kind.StructValue.GetFields() {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			out.Content = append(out.Content, textNode(k), jsonNode(kind.StructValue.GetFields()[k]))
		}
		if len(keys) == 0 {
			out.Style = yaml.FlowStyle
		}
		return out
	case *structpb.Value_ListValue:
		out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for _, one := range kind.ListValue.GetValues() {
			out.Content = append(out.Content, jsonNode(one))
		}
		if len(out.Content) == 0 {
			out.Style = yaml.FlowStyle
		}
		return out
	case *structpb.Value_StringValue:
		return textNode(kind.StringValue)
	case *structpb.Value_BoolValue:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(kind.BoolValue)}
	case *structpb.Value_NumberValue:
		tag := "!!float"
		if kind.NumberValue == float64(int64(kind.NumberValue)) {
			tag = "!!int"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: strconv.FormatFloat(kind.NumberValue, 'f', -1, 64)}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
}
