package grpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of what a server may tell of itself.
const (
	maxDescriptors = 1 << 20 // bytes
	maxFiles       = 500
)

// reflections are the methods of server reflection, the newer first. Their messages are the same.
var reflections = [...]string{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}

// describe asks the server how to call the method.
func (c *call) describe(ctx context.Context, conn *grpc.ClientConn, name string) (*spec.GRPCMethod, error) {
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	service, _, _ := spec.SplitMethod(name)
	var set *descriptorpb.FileDescriptorSet
	var err error
	for _, path := range reflections {
		c.allow(2*maxDescriptors + slack)
		g := &gathering{set: &descriptorpb.FileDescriptorSet{}, files: make(map[string]bool)}
		set, err = g.gather(ctx, conn, path, service)
		if status.Code(err) != codes.Unimplemented {
			break
		}
	}
	var unknown *unknownFile
	switch {
	case err == nil:
	case status.Code(err) == codes.Unimplemented:
		return nil, probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "the server has no reflection (UNIMPLEMENTED); turn it on there, or give grpc.call.descriptor_set")
	case errors.As(err, &unknown):
		return nil, probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "the server's reflection does not know the service %s: %s", service, cut(unknown.text, 200))
	case errors.As(err, new(*probe.Failure)):
		return nil, err
	case ctx.Err() == nil && c.reflected.Load():
		s := status.Convert(err)
		return nil, probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "the server does not tell of its methods: reflection answered %s: %s", spec.GRPCStatus(uint32(s.Code())), cut(s.Message(), 200))
	default:
		return nil, c.unanswered(ctx, err)
	}
	m, err := spec.FindGRPCMethod(set, name)
	if err != nil {
		return nil, probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "the server's reflection does not tell how to call %s: %s", name, err)
	}
	return m, nil
}

// gathering is the files that one server has told of so far.
type gathering struct {
	set   *descriptorpb.FileDescriptorSet
	files map[string]bool // by name: had, or asked for
	bytes int
}

// gather asks for the file of a service and for all that it imports.
func (g *gathering) gather(ctx context.Context, conn *grpc.ClientConn, path, service string) (*descriptorpb.FileDescriptorSet, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, path, grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(maxDescriptors+slack))
	if err != nil {
		return nil, err
	}
	wanted, err := g.ask(stream, &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service}})
	if err != nil {
		return nil, err
	}
	for len(wanted) > 0 {
		name := wanted[0]
		wanted = wanted[1:]
		if g.files[name] || strings.HasPrefix(name, "google/protobuf/") {
			continue
		}
		if len(g.files) >= maxFiles {
			return nil, tooMuch(fmt.Sprintf("more than %d files", maxFiles))
		}
		g.files[name] = true
		more, err := g.ask(stream, &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileByFilename{FileByFilename: name}})
		var refused *unknownFile
		if errors.As(err, &refused) {
			continue // whether the method needs it is seen later
		}
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, more...)
	}
	return g.set, nil
}

// unknownFile is what the server says of a file or symbol that it does not have.
type unknownFile struct{ text string }

// Error implements error.
func (u *unknownFile) Error() string { return u.text }

// ask asks once and adds the files of the answer. It gives the names of the files that they import.
func (g *gathering) ask(stream grpc.ClientStream, request *reflectionpb.ServerReflectionRequest) (imports []string, err error) {
	wire, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&wire); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var answer []byte
	if err := stream.RecvMsg(&answer); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, status.Error(codes.Internal, "the stream ended without an answer")
		}
		return nil, err
	}
	if g.bytes += len(answer); g.bytes > maxDescriptors {
		return nil, tooMuch(fmt.Sprintf("more than %d bytes of descriptors", maxDescriptors))
	}
	response := &reflectionpb.ServerReflectionResponse{}
	if err := (proto.UnmarshalOptions{RecursionLimit: maxNesting}).Unmarshal(answer, response); err != nil {
		return nil, tooMuch("what is no answer of reflection")
	}
	if e := response.GetErrorResponse(); e != nil {
		return nil, &unknownFile{text: e.GetErrorMessage()}
	}
	for _, encoded := range response.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		if err := (proto.UnmarshalOptions{RecursionLimit: maxNesting}).Unmarshal(encoded, file); err != nil {
			return nil, tooMuch("a descriptor that cannot be decoded")
		}
		if len(g.set.File) >= maxFiles {
			return nil, tooMuch(fmt.Sprintf("more than %d files", maxFiles))
		}
		if !g.has(file.GetName()) {
			file.SourceCodeInfo = nil
			g.set.File = append(g.set.File, file)
			imports = append(imports, file.GetDependency()...)
		}
		g.files[file.GetName()] = true
	}
	return imports, nil
}

// has tells whether a file is there.
func (g *gathering) has(name string) bool {
	for _, f := range g.set.File {
		if f.GetName() == name {
			return true
		}
	}
	return false
}

// tooMuch is the failure of a server whose reflection tells what it should not.
func tooMuch(what string) error {
	return &probe.Failure{Class: meshv1.Result_PROTOCOL, Phase: meshv1.Result_PROCESSING, Sentence: "the server's reflection sent " + what}
}
