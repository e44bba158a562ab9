package configfile

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Marshal writes a message as YAML: its set fields in the order of the proto, maps sorted by key, durations as `30s`, enums by name, texts of
// several lines as blocks. Of a [meshv1.Config] it is a configuration file. An empty message is `{}`.
func Marshal(m proto.Message) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(messageNode(m.ProtoReflect())); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), nil
}

func messageNode(m protoreflect.Message) *yaml.Node {
	switch v := m.Interface().(type) {
	case *durationpb.Duration:
		return textNode(formatProtoDuration(v))
	case *timestamppb.Timestamp:
		return textNode(v.AsTime().Format(time.RFC3339Nano))
	case *structpb.Struct:
		return jsonNode(structpb.NewStructValue(v))
	}
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) {
			continue
		}
		out.Content = append(out.Content, textNode(string(fd.Name())), fieldNode(m.Get(fd), fd))
	}
	if len(out.Content) == 0 {
		out.Style = yaml.FlowStyle
	}
	return out
}

func fieldNode(v protoreflect.Value, fd protoreflect.FieldDescriptor) *yaml.Node {
	switch {
	case fd.IsMap():
		out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		var keys []string
		v.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			keys = append(keys, k.String())
			return true
		})
		sort.Strings(keys)
		for _, k := range keys {
			value := v.Map().Get(protoreflect.ValueOfString(k).MapKey())
			out.Content = append(out.Content, textNode(k), scalarNode(value, fd.MapValue()))
		}
		return out
	case fd.IsList():
		out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for i := range v.List().Len() {
			out.Content = append(out.Content, scalarNode(v.List().Get(i), fd))
		}
		return out
	}
	return scalarNode(v, fd)
}

func scalarNode(v protoreflect.Value, fd protoreflect.FieldDescriptor) *yaml.Node {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return messageNode(v.Message())
	case protoreflect.StringKind:
		return textNode(v.String())
	case protoreflect.BytesKind:
		return textNode(base64.StdEncoding.EncodeToString(v.Bytes()))
	case protoreflect.BoolKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}
	case protoreflect.EnumKind:
		if d := fd.Enum().Values().ByNumber(v.Enum()); d != nil {
			return textNode(string(d.Name()))
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(int(v.Enum()))}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: strconv.FormatFloat(v.Float(), 'g', -1, 64)}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: v.String()}
}

// textNode writes a text so that it is read as that text: a block when it has lines a block keeps, in quotes when the encoder's plain form would be
// read as something else.
func textNode(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	switch {
	case !isPlainText(s):
		n.Style = yaml.DoubleQuotedStyle
	case strings.Contains(s, "\n"):
		n.Style = yaml.LiteralStyle
		if strings.HasPrefix(s, " ") || strings.HasPrefix(s, "\n") || strings.Contains(s, " \n") || strings.TrimRight(s, "\n") == "" {
			n.Style = yaml.DoubleQuotedStyle
		}
	}
	return n
}

// isPlainText tells whether a text has only characters that every YAML style keeps.
func isPlainText(s string) bool {
	for _, r := range s {
		if (r < ' ' && r != '\n') || (r >= 0x7f && r < 0xa0) || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffd {
			return false
		}
	}
	return true
}

// formatProtoDuration writes what [ParseDuration] reads; a duration beyond Go's 290 years is written in seconds.
func formatProtoDuration(d *durationpb.Duration) string {
	if d.GetSeconds() > math.MaxInt64/int64(time.Second)-1 || d.GetSeconds() < math.MinInt64/int64(time.Second)+1 {
		return strconv.FormatInt(d.GetSeconds(), 10) + "s"
	}
	return FormatDuration(d.AsDuration())
}
