package grpc

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/internal/spec"
)

// Limits of an answer that is turned into JSON. A message of 64 KiB can be made to decode to tens of megabytes (a submessage takes two bytes on the wire, an enum value
// of one byte may have a long name), so that its size alone bounds nothing.
const (
	maxJSON    = 2 << 20 // bytes, estimated before anything is decoded
	maxNesting = 100     // messages within messages
	maxAnys    = 100     // google.protobuf.Any
	maxWithin  = 8       // of those within one another
)

// errLarge is the error of an answer that would become too large.
var errLarge = fmt.Errorf("it would have more than %d bytes as JSON", maxJSON)

// decoder turns one answer into JSON.
type decoder struct {
	types  *dynamicpb.Types // of the method; nil: none
	left   int              // of maxJSON
	anys   int
	weight map[protoreflect.FullName]int // of an empty message of a type, and of the longest name of an enum
}

// newDecoder makes a decoder for an answer of a method, or for what is no method's with nil.
func newDecoder(m *spec.GRPCMethod) *decoder {
	d := &decoder{left: maxJSON, weight: make(map[protoreflect.FullName]int)}
	if m != nil {
		d.types = m.Types
	}
	return d
}

// toJSON is the encoded message as JSON: names in lowerCamelCase, fields with their default values shown.
func (d *decoder) toJSON(wire []byte, of protoreflect.MessageDescriptor) (text []byte, err error) {
	defer func() {
		// As in spec.FindGRPCMethod: the descriptors are a stranger's.
		if r := recover(); r != nil {
			text, err = nil, fmt.Errorf("its descriptors cannot be used: %v", r)
		}
	}()
	m, err := d.decode(wire, dynamicpb.NewMessageType(of))
	if err != nil {
		return nil, err
	}
	return d.marshal(m.Interface())
}

// marshal is a message that has been measured, as JSON.
func (d *decoder) marshal(m proto.Message) ([]byte, error) {
	d.anys = 0
	text, err := protojson.MarshalOptions{EmitDefaultValues: true, Resolver: d}.Marshal(m)
	if err != nil {
		return nil, errors.New(strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto:")))
	}
	return text, nil
}

// decode decodes a message within the limits, and those within its Anys.
func (d *decoder) decode(wire []byte, t protoreflect.MessageType) (protoreflect.Message, error) {
	if err := d.measure(wire, t.Descriptor(), 0); err != nil {
		return nil, err
	}
	m := t.New()
	if err := (proto.UnmarshalOptions{RecursionLimit: maxNesting, AllowPartial: true, Resolver: d}).Unmarshal(wire, m.Interface()); err != nil {
		return nil, errors.New("it is not encoded as one")
	}
	return m, d.within(m, 0)
}

// measure takes from what is left what an encoded message will have as JSON at most, apart from the escaping of its texts.
func (d *decoder) measure(wire []byte, of protoreflect.MessageDescriptor, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("it has more than %d messages within one another", maxNesting)
	}
	if d.left -= d.empty(of); d.left < 0 {
		return errLarge
	}
	for len(wire) > 0 {
		number, kind, n := protowire.ConsumeTag(wire)
		if n < 0 {
			return errors.New("it is not encoded as one")
		}
		size := protowire.ConsumeFieldValue(number, kind, wire[n:])
		if size < 0 {
			return errors.New("it is not encoded as one")
		}
		value := wire[n : n+size]
		wire = wire[n+size:]
		if d.left -= 16 + size; d.left < 0 {
			return errLarge
		}
		if f := of.Fields().ByNumber(number); f != nil {
			if err := d.measureField(value, kind, number, f, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureField is measure for the value of a known field.
func (d *decoder) measureField(value []byte, kind protowire.Type, number protowire.Number, f protoreflect.FieldDescriptor, depth int) error {
	switch {
	case kind == protowire.StartGroupType && f.Message() != nil:
		inner, n := protowire.ConsumeGroup(number, value)
		if n < 0 {
			return errors.New("it is not encoded as one")
		}
		return d.measure(inner, f.Message(), depth+1)
	case kind == protowire.BytesType && f.Message() != nil:
		inner, n := protowire.ConsumeBytes(value)
		if n < 0 {
			return errors.New("it is not encoded as one")
		}
		return d.measure(inner, f.Message(), depth+1)
	}
	each, elements := 24, 1
	if f.Enum() != nil {
		each += d.longest(f.Enum())
	}
	if kind == protowire.BytesType && f.IsList() && f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind {
		elements = len(value) // packed: each takes a byte or more
	}
	if d.left -= each * elements; d.left < 0 {
		return errLarge
	}
	return nil
}

// empty is what an empty message has as JSON at most: the names of all its fields, with their defaults.
func (d *decoder) empty(m protoreflect.MessageDescriptor) int {
	weight, known := d.weight[m.FullName()]
	if known {
		return weight
	}
	weight = 16
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		weight += len(f.JSONName()) + 16
		if f.HasDefault() && (f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind) {
			weight += 6 * len(f.Default().String())
		}
		if f.Enum() != nil {
			weight += d.longest(f.Enum())
		}
	}
	d.weight[m.FullName()] = weight
	return weight
}

// longest is the length of the longest name that an enum has.
func (d *decoder) longest(e protoreflect.EnumDescriptor) (n int) {
	if n, known := d.weight[e.FullName()]; known {
		return n
	}
	for i := range e.Values().Len() {
		n = max(n, len(e.Values().Get(i).Name()))
	}
	d.weight[e.FullName()] = n
	return n
}

// within decodes what is in the Anys of a message once, to measure it: the encoder will decode it again.
func (d *decoder) within(m protoreflect.Message, depth int) (err error) {
	fields := m.Descriptor().Fields()
	if m.Descriptor().FullName() == "google.protobuf.Any" {
		if depth >= maxWithin {
			return fmt.Errorf("it has more than %d Anys within one another", maxWithin)
		}
		url := m.Get(fields.ByNumber(1)).String()
		if url == "" {
			return nil
		}
		t, err := d.FindMessageByURL(url)
		if err != nil {
			return err
		}
		inner := m.Get(fields.ByNumber(2)).Bytes()
		if err := d.measure(inner, t.Descriptor(), 0); err != nil {
			return err
		}
		content := t.New()
		if err := (proto.UnmarshalOptions{RecursionLimit: maxNesting, AllowPartial: true, Resolver: d}).Unmarshal(inner, content.Interface()); err != nil {
			return errors.New("an Any in it is not encoded as its type says")
		}
		return d.within(content, depth+1)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				err = d.within(v.Message(), depth)
				return err == nil
			})
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = d.within(v.List().Get(i).Message(), depth)
			}
		default:
			err = d.within(v.Message(), depth)
		}
		return err == nil
	})
	return err
}

// unknown is the type of what an Any holds whose type is not known: an empty message, so that its @type is shown alone.
var unknown = (&healthpb.HealthListRequest{}).ProtoReflect().Type()

// FindMessageByURL implements the resolver of the protobuf library, for Anys.
func (d *decoder) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if d.anys++; d.anys > maxAnys {
		return nil, fmt.Errorf("it has more than %d Anys", maxAnys)
	}
	if d.types != nil {
		if t, err := d.types.FindMessageByURL(url); err == nil {
			return t, nil
		}
	}
	if t, err := protoregistry.GlobalTypes.FindMessageByURL(url); err == nil {
		return t, nil
	}
	return unknown, nil
}

// FindMessageByName implements the resolver of the protobuf library.
func (d *decoder) FindMessageByName(protoreflect.FullName) (protoreflect.MessageType, error) {
	return nil, protoregistry.NotFound
}

// FindExtensionByName implements the resolver of the protobuf library: extensions are not decoded.
func (d *decoder) FindExtensionByName(protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return nil, protoregistry.NotFound
}

// FindExtensionByNumber implements the resolver of the protobuf library: extensions are not decoded.
func (d *decoder) FindExtensionByNumber(protoreflect.FullName, protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return nil, protoregistry.NotFound
}

// parseJSON is JSON as a value, null when it is none.
func parseJSON(text []byte) *structpb.Value {
	v := &structpb.Value{}
	if !json.Valid(text) || v.UnmarshalJSON(text) != nil {
		return structpb.NewNullValue()
	}
	return v
}

// headerText is the values of one key of metadata as one text: binary ones in base64.
func headerText(key string, values []string) string {
	if strings.HasSuffix(key, "-bin") {
		encoded := make([]string, len(values))
		for i, v := range values {
			encoded[i] = base64.StdEncoding.EncodeToString([]byte(v))
		}
		values = encoded
	}
	return strings.ToValidUTF8(strings.Join(values, ", "), "\uFFFD")
}
