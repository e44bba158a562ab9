package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/sourcecontextpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/typepb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// wellKnown is the package that only its own authors' files may be of: the JSON form of its messages is a special one.
const wellKnown = "google.protobuf"

// GRPCMethod is a method with what is needed to call it. It does not change, and any number of goroutines may use it at once.
type GRPCMethod struct {
	// Descriptor is the method itself: unary, or server-streaming.
	Descriptor protoreflect.MethodDescriptor
	// Types are the messages of its file and of those that it imports.
	Types *dynamicpb.Types
}

// SplitMethod splits `package.Service/Method`, with or without a slash before it.
func SplitMethod(s string) (service, method string, ok bool) {
	service, method, ok = strings.Cut(strings.TrimPrefix(s, "/"), "/")
	return service, method, ok && protoreflect.FullName(service).IsValid() && protoreflect.Name(method).IsValid()
}

// FindGRPCMethod finds a method in a set of files. Files google/protobuf/*.proto need not be in it, and are not taken from it. The set may come from anybody: whatever
// is wrong with it is an error, which says what.
func FindGRPCMethod(set *descriptorpb.FileDescriptorSet, name string) (m *GRPCMethod, err error) {
	defer func() {
		// protodesc and dynamicpb are made for descriptors of one's own compiler; what they do not expect of a stranger's must not end the process.
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("the descriptors cannot be used: %v", r)
		}
	}()
	service, method, ok := SplitMethod(name)
	if !ok {
		return nil, fmt.Errorf("%q is not package.Service/Method", clip(name))
	}
	whole, err := withWellKnown(set)
	if err != nil {
		return nil, err
	}
	if err := fewImports(whole); err != nil {
		return nil, err
	}
	// Unresolvable imports are let pass, since servers often lack files that only options need; what the method itself needs is checked below.
	files, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(whole)
	if err != nil {
		return nil, fmt.Errorf("the descriptors are not valid: %s", strings.TrimPrefix(err.Error(), "proto: "))
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil, fmt.Errorf("no service %s; there %s", service, servicesOf(files))
	}
	s, ok := found.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is no service", service)
	}
	d := s.Methods().ByName(protoreflect.Name(method))
	switch {
	case d == nil:
		return nil, fmt.Errorf("service %s has no method %s; it has %s", service, method, methodsOf(s))
	case d.IsStreamingClient():
		return nil, fmt.Errorf("%s takes a stream of requests; only methods that take one request can be called", name)
	}
	for _, message := range []protoreflect.MessageDescriptor{d.Input(), d.Output()} {
		if err := complete(message, make(map[protoreflect.FullName]bool)); err != nil {
			return nil, err
		}
	}
	return &GRPCMethod{Descriptor: d, Types: dynamicpb.NewTypes(files)}, nil
}

// withWellKnown is the set in which the files of package google.protobuf are this build's own.
func withWellKnown(set *descriptorpb.FileDescriptorSet) (*descriptorpb.FileDescriptorSet, error) {
	own := map[string]protoreflect.FileDescriptor{}
	for _, f := range []protoreflect.FileDescriptor{anypb.File_google_protobuf_any_proto, apipb.File_google_protobuf_api_proto, durationpb.File_google_protobuf_duration_proto,
		emptypb.File_google_protobuf_empty_proto, fieldmaskpb.File_google_protobuf_field_mask_proto, sourcecontextpb.File_google_protobuf_source_context_proto,
		structpb.File_google_protobuf_struct_proto, timestamppb.File_google_protobuf_timestamp_proto, typepb.File_google_protobuf_type_proto,
		wrapperspb.File_google_protobuf_wrappers_proto, descriptorpb.File_google_protobuf_descriptor_proto} {
		own[f.Path()] = f
	}
	whole := &descriptorpb.FileDescriptorSet{}
	added := make(map[string]bool)
	var add func(name string)
	add = func(name string) {
		f := own[name]
		if f == nil || added[name] {
			return
		}
		added[name] = true
		p := protodesc.ToFileDescriptorProto(f)
		for _, d := range p.GetDependency() {
			add(d)
		}
		whole.File = append(whole.File, p)
	}
	for _, f := range set.GetFile() {
		for _, d := range f.GetDependency() {
			add(d)
		}
		if p := f.GetPackage(); own[f.GetName()] != nil {
			add(f.GetName())
			continue
		} else if p == wellKnown || strings.HasPrefix(p, wellKnown+".") {
			return nil, fmt.Errorf("file %s adds to package %s, which is not allowed", clip(f.GetName()), wellKnown)
		}
		whole.File = append(whole.File, f)
	}
	return whole, nil
}

// maxImports is how many imports may be followed, each as often as it is reached.
const maxImports = 20_000

// fewImports bounds what protodesc does: it follows public imports from each file that imports, once for each way, of which a few hundred files can have more than anyone can count.
func fewImports(set *descriptorpb.FileDescriptorSet) error {
	files := make(map[string]*descriptorpb.FileDescriptorProto, len(set.GetFile()))
	for _, f := range set.GetFile() {
		files[f.GetName()] = f
	}
	ways := make(map[string]int, len(files)) // by public imports, from a file; -1 while they are counted
	var count func(name string) (int, error)
	count = func(name string) (n int, err error) {
		known, done := ways[name]
		if known < 0 {
			return 0, fmt.Errorf("the descriptors are not valid: import cycle at %s", clip(name))
		} else if done {
			return known, nil
		}
		ways[name] = -1
		f := files[name]
		for _, i := range f.GetPublicDependency() {
			if i < 0 || int(i) >= len(f.GetDependency()) {
				continue // for protodesc to refuse
			}
			more, err := count(f.GetDependency()[i])
			if err != nil {
				return 0, err
			}
			if n += 1 + more; n > maxImports {
				break
			}
		}
		ways[name] = n
		return n, nil
	}
	total := 0
	for _, f := range set.GetFile() {
		for _, d := range f.GetDependency() {
			n, err := count(d)
			if err != nil {
				return err
			}
			if total += 1 + n; total > maxImports {
				return fmt.Errorf("the descriptors have more than %d imports to follow", maxImports)
			}
		}
	}
	return nil
}

// complete tells of the first type that a message needs and that is not there.
func complete(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) error {
	if m.IsPlaceholder() {
		return fmt.Errorf("the descriptors lack message %s", m.FullName())
	}
	if seen[m.FullName()] {
		return nil
	}
	seen[m.FullName()] = true
	fields := m.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if e := f.Enum(); e != nil && e.IsPlaceholder() {
			return fmt.Errorf("the descriptors lack enum %s", e.FullName())
		}
		if next := f.Message(); next != nil {
			if err := complete(next, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// servicesOf says which services there are.
func servicesOf(files *protoregistry.Files) string {
	var names []string
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			names = append(names, string(f.Services().Get(i).FullName()))
		}
		return len(names) < 5
	})
	if len(names) == 0 {
		return "is none at all"
	}
	return "is " + clip(strings.Join(names, ", "))
}

// methodsOf says which methods a service has.
func methodsOf(s protoreflect.ServiceDescriptor) string {
	var names []string
	for i := range min(s.Methods().Len(), 8) {
		names = append(names, string(s.Methods().Get(i).Name()))
	}
	if len(names) == 0 {
		return "none"
	}
	return clip(strings.Join(names, ", "))
}

// Request is the request of a call, encoded. The error says what does not fit the method's message.
func (m *GRPCMethod) Request(call *meshv1.GrpcCall) (wire []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			wire, err = nil, fmt.Errorf("the descriptors cannot be used: %v", r)
		}
	}()
	text := []byte(call.GetRequest())
	if call.GetMessage() != nil {
		if text, err = protojson.Marshal(call.GetMessage()); err != nil {
			return nil, err
		}
	}
	message := dynamicpb.NewMessage(m.Descriptor.Input())
	if len(text) > 0 {
		if err := (protojson.UnmarshalOptions{Resolver: m.Types, RecursionLimit: 100}).Unmarshal(text, message); err != nil {
			return nil, fmt.Errorf("the request is not a %s: %s", m.Descriptor.Input().FullName(), plain(err))
		}
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(message)
}

// plain is an error of the protobuf library without its name.
func plain(err error) string {
	return strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto:"))
}

// ParseDescriptorSet reads an encoded FileDescriptorSet.
func ParseDescriptorSet(b []byte) (*descriptorpb.FileDescriptorSet, error) {
	set := &descriptorpb.FileDescriptorSet{}
	if err := (proto.UnmarshalOptions{RecursionLimit: 100}).Unmarshal(b, set); err != nil {
		return nil, errors.New("is not an encoded google.protobuf.FileDescriptorSet; write the base64 of what protoc --descriptor_set_out or buf build -o made")
	}
	return set, nil
}

// grpcCall checks the call of a method.
func grpcCall(f *faults, c *meshv1.GrpcCall) {
	if c == nil {
		return
	}
	_, _, named := SplitMethod(c.Method)
	switch {
	case c.Method == "":
		f.add("grpc.call.method", "is missing; write package.Service/Method, for example shop.v1.Cart/GetCart")
	case len(c.Method) > 256 || !named:
		f.add("grpc.call.method", "%q is not a method; write package.Service/Method, for example shop.v1.Cart/GetCart", clip(c.Method))
		named = false
	}
	bounded(f, "grpc.call.request", len(c.Request), MaxRequestBody)
	bounded(f, "grpc.call.descriptor_set", len(c.DescriptorSet), maxDescriptorSet)
	object := true
	switch {
	case c.Request != "" && c.Message != nil:
		f.add("grpc.call.message", "is given together with request; remove one of them")
		return
	case c.Request != "":
		if object = json.Valid([]byte(c.Request)); !object {
			f.add("grpc.call.request", "is not JSON; write for example {\"id\": \"42\"}, or use message and write it as YAML")
		}
	}
	if len(c.DescriptorSet) == 0 || len(c.DescriptorSet) > maxDescriptorSet || !named {
		return
	}
	set, err := ParseDescriptorSet(c.DescriptorSet)
	if err != nil {
		f.add("grpc.call.descriptor_set", "%s", err)
		return
	}
	m, err := FindGRPCMethod(set, c.Method)
	if err != nil {
		f.add("grpc.call.descriptor_set", "cannot tell how to call %s: %s", clip(c.Method), err)
		return
	}
	if object {
		if _, err := m.Request(c); err != nil {
			f.add("grpc.call.request", "%s", err)
		}
	}
}
