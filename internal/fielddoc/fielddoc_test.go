package main

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func TestATableReplacesWhatStoodBetweenItsMarkersAndNothingElse(t *testing.T) {
	page := "# x\n<!-- fields: a.B -->\nold\n<!-- /fields -->\nend\n"
	want := "# x\n<!-- fields: a.B -->\n\nT\n\n<!-- /fields -->\nend\n"
	once, err := fill(page, map[string]string{"a.B": "T\n"})
	if err != nil || once != want {
		t.Fatalf("%q, %v", once, err)
	}
	if twice, err := fill(once, map[string]string{"a.B": "T\n"}); err != nil || twice != want {
		t.Fatalf("filled again: %q, %v", twice, err)
	}
}

func TestAMarkerThatNamesNothingOrIsNotClosedIsAnError(t *testing.T) {
	for page, want := range map[string]string{
		"\n<!-- fields: a.C -->\n<!-- /fields -->\n":                                   `line 2: the protos have no message and no enum "a.C"`,
		"<!-- fields: a.B -->\nrest\n":                                                 "line 1: the fields of a.B end nowhere",
		"<!-- fields: a.B -->\n<!-- fields: a.B -->\n<!-- /fields -->\n":               "line 1: the fields of a.B end nowhere",
		"<!-- fields: a.B -->\n<!-- /fields --> and more on the line\n<!-- fields -->": "line 1: the fields of a.B end nowhere",
	} {
		if _, err := fill(page, map[string]string{"a.B": "T\n"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", page, err, want)
		}
	}
}

func TestTheTableOfAMessageHasTypesAndComments(t *testing.T) {
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("a.proto"), Package: proto.String("a"), Syntax: proto.String("proto3"),
		Options: &descriptorpb.FileOptions{GoPackage: proto.String("example.com/a")},
		EnumType: []*descriptorpb.EnumDescriptorProto{{Name: proto.String("E"), Value: []*descriptorpb.EnumValueDescriptorProto{
			{Name: proto.String("NONE"), Number: proto.Int32(0)}, {Name: proto.String("SOME"), Number: proto.Int32(1)}}}},
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("B"), Field: []*descriptorpb.FieldDescriptorProto{
			{Name: proto.String("many"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()},
			{Name: proto.String("e"), Number: proto.Int32(2), Type: descriptorpb.FieldDescriptorProto_TYPE_ENUM.Enum(), TypeName: proto.String(".a.E"), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()},
		}}},
		SourceCodeInfo: &descriptorpb.SourceCodeInfo{Location: []*descriptorpb.SourceCodeInfo_Location{
			{Path: []int32{4, 0, 2, 0}, Span: []int32{0, 0, 0}, LeadingComments: proto.String(" One | two,\n over lines.\n")},
			{Path: []int32{5, 0, 2, 1}, Span: []int32{0, 0, 0}, LeadingComments: proto.String(" At least one.\n")}}},
	}
	plugin, err := protogen.Options{}.New(&pluginpb.CodeGeneratorRequest{FileToGenerate: []string{"a.proto"}, ProtoFile: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		t.Fatal(err)
	}
	tables := tablesOf(plugin.Files)
	want := "| field | type | |\n|---|---|---|\n| `many` | list of string | One \\| two, over lines. |\n| `e` | `SOME` | <br>`SOME`: At least one. |\n"
	if tables["a.B"] != want {
		t.Errorf("got\n%s\nwant\n%s", tables["a.B"], want)
	}
	if !strings.Contains(tables["a.E"], "| `SOME` |") {
		t.Errorf("no table of the enum: %q", tables["a.E"])
	}
}
