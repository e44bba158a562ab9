// Package forward lets any server answer any call: a server that does not lead passes calls on to the one that does, which alone has the votes and the
// results of the probers, and hands back what it answers, errors and their details included.
//
// Calls about the servers themselves and the probers' sessions are answered where they arrive. A forwarded call carries a mark in its metadata and is never
// forwarded again, so that two servers that disagree about who leads cannot send a call in circles: the second one answers it as well as it can.
package forward

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// mark is the metadata key of a forwarded call; its value is the server that forwarded it.
const mark = "probemesh-forwarded-by"

// Forwarder passes calls on to the leader. Make it with New; close it when the gRPC server has stopped.
type Forwarder struct {
	server string
	leader func() (address string, elsewhere bool)
	dial   func(address string) (*grpc.ClientConn, error)

	// mu guards conn and address.
	mu      sync.Mutex
	address string
	conn    *grpc.ClientConn
}

// New makes a forwarder for the server of that resource name. leader tells where the leader is, and whether that is another server than this one; dial makes
// a client of it.
func New(server string, leader func() (address string, elsewhere bool), dial func(address string) (*grpc.ClientConn, error)) *Forwarder {
	return &Forwarder{server: server, leader: leader, dial: dial}
}

// Close ends the connection to the leader.
func (f *Forwarder) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn != nil {
		f.conn.Close()
	}
	f.conn, f.address = nil, ""
}

// Options are the interceptors, for the gRPC server.
func (f *Forwarder) Options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(f.unary), grpc.ChainStreamInterceptor(f.stream)}
}

// here tells whether a call is answered where it arrives.
func here(ctx context.Context, method string) bool {
	if !strings.HasPrefix(method, "/probemesh.v1.") || strings.HasPrefix(method, "/probemesh.v1.SessionService/") || strings.HasPrefix(method, "/probemesh.v1.ServerService/") ||
		strings.HasPrefix(method, "/probemesh.v1.MeshService/") {
		return true
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return len(md.Get(mark)) > 0
}

// to gives the connection to the leader, nil when the call is to be answered here.
func (f *Forwarder) to(ctx context.Context, method string) (*grpc.ClientConn, error) {
	if here(ctx, method) {
		return nil, nil
	}
	address, elsewhere := f.leader()
	if !elsewhere {
		return nil, nil
	}
	if address == "" {
		return nil, fault.New(codes.Unavailable, meshv1.ErrorReason_NO_LEADER, f.server, "no server leads at present; try again in a moment").Retry(time.Second)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn != nil && f.address == address {
		return f.conn, nil
	}
	conn, err := f.dial(address)
	if err != nil {
		return nil, fault.New(codes.Unavailable, meshv1.ErrorReason_NO_LEADER, f.server, "the leader's address %q cannot be used; check its --grpc-advertise", address).Because(err)
	}
	if f.conn != nil {
		f.conn.Close()
	}
	f.conn, f.address = conn, address
	return conn, nil
}

func (f *Forwarder) outgoing(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	md = md.Copy()
	if md == nil {
		md = metadata.MD{}
	}
	md.Set(mark, f.server)
	return metadata.NewOutgoingContext(ctx, md)
}

func (f *Forwarder) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	conn, err := f.to(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if conn == nil {
		return handler(ctx, req)
	}
	_, answer, err := messages(info.FullMethod)
	if err != nil {
		return nil, err
	}
	if err := conn.Invoke(f.outgoing(ctx), info.FullMethod, req, answer); err != nil {
		return nil, err
	}
	return answer, nil
}

// stream forwards a call whose server streams; no other kind is ours but Session, which is never forwarded.
func (f *Forwarder) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := ss.Context()
	conn, err := f.to(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	if conn == nil || info.IsClientStream {
		return handler(srv, ss)
	}
	req, _, err := messages(info.FullMethod)
	if err != nil {
		return err
	}
	if err := ss.RecvMsg(req); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(f.outgoing(ctx))
	defer cancel()
	cs, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, info.FullMethod)
	if err != nil {
		return err
	}
	if err := cs.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := cs.CloseSend(); err != nil {
		return err
	}
	for {
		_, answer, err := messages(info.FullMethod)
		if err != nil {
			return err
		}
		switch err := cs.RecvMsg(answer); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := ss.SendMsg(answer); err != nil {
			return err
		}
	}
}

// messages makes empty messages of the types that a method takes and gives.
func messages(method string) (request, answer proto.Message, err error) {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil, nil, fault.Internal(err, "cannot forward %s", method)
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, nil, fault.Internal(nil, "cannot forward %s: it is no method", method)
	}
	in, err1 := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
	out, err2 := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, fault.Internal(err, "cannot forward %s", method)
	}
	return in.New().Interface(), out.New().Interface(), nil
}
