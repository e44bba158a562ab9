package grpc

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/internal/spec"
)

// wide is a method whose answer has every sort of field: lists, maps, enums, groups of messages, itself, Any, Struct.
func wide(t testing.TB) *spec.GRPCMethod {
	t.Helper()
	type f = descriptorpb.FieldDescriptorProto
	field := func(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, list bool, of string) *f {
		x := &f{Name: proto.String(name), JsonName: proto.String(name), Number: proto.Int32(number), Type: kind.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if list {
			x.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}
		if of != "" {
			x.TypeName = proto.String(of)
		}
		return x
	}
	const message = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	file := &descriptorpb.FileDescriptorProto{Name: proto.String("w.proto"), Package: proto.String("w"), Syntax: proto.String("proto3"),
		Dependency: []string{"google/protobuf/any.proto", "google/protobuf/struct.proto", "google/protobuf/timestamp.proto"},
		EnumType: []*descriptorpb.EnumDescriptorProto{{Name: proto.String("E"), Value: []*descriptorpb.EnumValueDescriptorProto{
			{Name: proto.String("ZERO"), Number: proto.Int32(0)}, {Name: proto.String(strings.Repeat("LONG", 1000)), Number: proto.Int32(1)}}}},
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("W"), Field: []*f{
			field("text", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, false, ""), field("numbers", 2, descriptorpb.FieldDescriptorProto_TYPE_INT64, true, ""),
			field("kinds", 3, descriptorpb.FieldDescriptorProto_TYPE_ENUM, true, ".w.E"), field("more", 4, message, true, ".w.W"), field("self", 5, message, false, ".w.W"),
			field("any", 6, message, true, ".google.protobuf.Any"), field("struct", 7, message, false, ".google.protobuf.Struct"), field("map", 8, message, true, ".w.W.MapEntry"),
			field("at", 9, message, false, ".google.protobuf.Timestamp")},
			NestedType: []*descriptorpb.DescriptorProto{{Name: proto.String("MapEntry"), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}, Field: []*f{
				field("key", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, false, ""), field("value", 2, message, false, ".w.W")}}}}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("S"), Method: []*descriptorpb.MethodDescriptorProto{{Name: proto.String("M"), InputType: proto.String(".w.W"), OutputType: proto.String(".w.W")}}}}}
	m, err := spec.FindGRPCMethod(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}}, "w.S/M")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// bytesField is a field of bytes, encoded.
func bytesField(number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
}

// repeated is b again and again.
func repeated(b []byte, n int) []byte { return []byte(strings.Repeat(string(b), n)) }

// anyOf is an Any of type w.W, encoded.
func anyOf(content []byte) []byte {
	return append(bytesField(1, []byte("type.googleapis.com/w.W")), bytesField(2, content)...)
}

func TestAnswersBecomeJSON(t *testing.T) {
	m := wide(t)
	s, err := structpb.NewStruct(map[string]any{"a": []any{1.0, "x", nil}})
	if err != nil {
		t.Fatal(err)
	}
	encodedStruct, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := proto.Marshal(&anypb.Any{TypeUrl: "x.example/not.Known", Value: []byte{0x08, 0x01}})
	if err != nil {
		t.Fatal(err)
	}
	wire := bytesField(1, []byte("é"))
	wire = append(wire, bytesField(6, anyOf(bytesField(1, []byte("in"))))...)
	wire = append(wire, bytesField(6, stranger)...)
	wire = append(wire, bytesField(7, encodedStruct)...)
	wire = append(wire, bytesField(3, []byte{0, 9})...)
	text, err := newDecoder(m).toJSON(wire, m.Descriptor.Output())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	anys, _ := got["any"].([]any)
	if got["text"] != "é" || len(anys) != 2 || got["numbers"] == nil || got["self"] != nil {
		t.Fatalf("got %s", text)
	}
	first, _ := anys[0].(map[string]any)
	second, _ := anys[1].(map[string]any)
	if first["text"] != "in" || second["@type"] != "x.example/not.Known" {
		t.Errorf("got %s", text)
	}
}

func TestAnswersThatWouldGrowAreRefusedBeforeTheyDo(t *testing.T) {
	m := wide(t)
	nested, anys := []byte{}, []byte{}
	for range 200 {
		nested = bytesField(5, nested)
	}
	for range 20 {
		anys = bytesField(6, anyOf(anys))
	}
	for name, c := range map[string]struct {
		wire []byte
		text string
	}{
		"half a million empty messages": {repeated(bytesField(4, nil), 1<<19), "more than 2097152 bytes as JSON"},
		"many numbers":                  {bytesField(2, make([]byte, 1<<20)), "more than 2097152 bytes as JSON"},
		"long names of an enum":         {bytesField(3, repeated([]byte{1}, 60_000)), "more than 2097152 bytes as JSON"},
		"deep nesting":                  {nested, "messages within one another"},
		"Anys in Anys":                  {anys, "Anys within one another"},
		"many Anys":                     {repeated(bytesField(6, anyOf(nil)), 200), "more than 100 Anys"},
		"a bomb in an Any":              {bytesField(6, anyOf(repeated(bytesField(4, nil), 1<<19))), "more than 2097152 bytes as JSON"},
		"an Any in two parts":           {bytesField(8, bytesField(2, append(bytesField(6, bytesField(1, []byte("x/w.W"))), bytesField(6, bytesField(2, repeated(bytesField(4, nil), 1<<18)))...))), "as JSON"},
		"cut off":                       {bytesField(1, []byte("xxxx"))[:4], "not encoded as one"},
		"bad UTF-8":                     {bytesField(1, []byte("\xff")), "not encoded as one"},
		"a time that is none":           {bytesField(9, append(protowire.AppendTag(nil, 1, protowire.VarintType), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)), "out of range"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		text, err := newDecoder(m).toJSON(c.wire, m.Descriptor.Output())
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %.100s, %v; want %s", name, text, err, c.text)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
			t.Errorf("%s: %d MiB were allocated", name, used>>20)
		}
	}
}

func FuzzToJSON(f *testing.F) {
	methods := []*spec.GRPCMethod{wide(f)}
	set := &descriptorpb.FileDescriptorSet{}
	for _, d := range []protoreflect.FileDescriptor{testpb.File_grpc_testing_messages_proto, testpb.File_grpc_testing_empty_proto, testpb.File_grpc_testing_test_proto} {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(d))
	}
	m, err := spec.FindGRPCMethod(set, "grpc.testing.TestService/UnaryCall")
	if err != nil {
		f.Fatal(err)
	}
	methods = append(methods, m)
	f.Add(bytesField(6, anyOf(bytesField(1, []byte("in")))), false)
	f.Add(bytesField(8, append(bytesField(1, []byte("k")), bytesField(2, bytesField(3, []byte{0, 9}))...)), false)
	f.Add([]byte{0x2b, 0x0a, 0x00, 0x2c}, false)
	f.Add(bytesField(1, bytesField(2, make([]byte, 9))), true)
	f.Fuzz(func(t *testing.T, wire []byte, second bool) {
		m := methods[0]
		if second {
			m = methods[1]
		}
		text, err := newDecoder(m).toJSON(wire, m.Descriptor.Output())
		if err != nil {
			return
		}
		if !json.Valid(text) || len(text) > 6*maxJSON {
			t.Errorf("%d bytes of what may be no JSON: %.200s", len(text), text)
		}
	})
}
