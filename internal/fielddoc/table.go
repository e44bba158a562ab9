package main

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// tablesOf returns the table of every message and enum of the files, nested ones too, by full name.
func tablesOf(files []*protogen.File) map[string]string {
	tables := make(map[string]string)
	for _, f := range files {
		addEnums(tables, f.Enums)
		addMessages(tables, f.Messages)
	}
	return tables
}

func addMessages(tables map[string]string, messages []*protogen.Message) {
	for _, m := range messages {
		tables[string(m.Desc.FullName())] = messageTable(m)
		addEnums(tables, m.Enums)
		addMessages(tables, m.Messages)
	}
}

func addEnums(tables map[string]string, enums []*protogen.Enum) {
	for _, e := range enums {
		tables[string(e.Desc.FullName())] = enumTable(e)
	}
}

func messageTable(m *protogen.Message) string {
	var b strings.Builder
	b.WriteString("| field | type | |\n|---|---|---|\n")
	for _, f := range m.Fields {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Desc.Name(), typeOf(f), comment(f.Comments)+meanings(f))
	}
	return b.String()
}

func enumTable(e *protogen.Enum) string {
	var b strings.Builder
	b.WriteString("| value | |\n|---|---|\n")
	for _, v := range e.Values {
		fmt.Fprintf(&b, "| `%s` | %s |\n", v.Desc.Name(), comment(v.Comments))
	}
	return b.String()
}

// typeOf names the type of a field as somebody who writes YAML sees it.
func typeOf(f *protogen.Field) string {
	switch {
	case f.Desc.IsMap():
		return fmt.Sprintf("map of %s to %s", single(f.Message.Fields[0]), single(f.Message.Fields[1]))
	case f.Desc.IsList():
		return "list of " + single(f)
	}
	return single(f)
}

// single names the type of one value of a field.
func single(f *protogen.Field) string {
	switch f.Desc.Kind() {
	case protoreflect.EnumKind:
		return choices(f.Enum)
	case protoreflect.MessageKind:
		switch name := f.Message.Desc.FullName(); name {
		case "google.protobuf.Duration":
			return "duration"
		case "google.protobuf.Timestamp":
			return "time"
		case "google.protobuf.Value":
			return "any"
		case "google.protobuf.Struct":
			return "object"
		default:
			return string(f.Message.Desc.Name())
		}
	}
	return f.Desc.Kind().String()
}

// choices lists the values of an enum that somebody would write; zero stands for a field that is not set.
func choices(e *protogen.Enum) string {
	var names []string
	for _, v := range e.Values {
		if v.Desc.Number() != 0 {
			names = append(names, "`"+string(v.Desc.Name())+"`")
		}
	}
	return strings.Join(names, ", ")
}

// meanings says what each value means that choices lists, a line each in the same cell; empty when the field is no enum, or nothing is said of its values.
func meanings(f *protogen.Field) string {
	if f.Desc.Kind() != protoreflect.EnumKind {
		return ""
	}
	var b strings.Builder
	for _, v := range f.Enum.Values {
		if said := comment(v.Comments); said != "" && v.Desc.Number() != 0 {
			fmt.Fprintf(&b, "<br>`%s`: %s", v.Desc.Name(), said)
		}
	}
	return b.String()
}

// comment returns the comment of a field on one line, as a cell of a table can hold it.
func comment(c protogen.CommentSet) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(string(c.Leading)), " "), "|", `\|`)
}
