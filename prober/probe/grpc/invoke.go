package grpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// raw is the codec of messages that are encoded already: *[]byte.
type raw struct{}

// Name implements encoding.CodecV2. It is empty so that the content type is application/grpc, as every client's.
func (raw) Name() string { return "" }

// Marshal implements encoding.CodecV2.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("%T is not encoded", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("%T is not for bytes", v)
	}
	*b = data.Materialize()
	return nil
}

// invoke calls a method with an encoded request. The first message of a stream is the answer, and the rest of it is not read. The error is that of a call
// which the server did not answer.
func (c *call) invoke(ctx context.Context, conn *grpc.ClientConn, path string, streaming bool, request []byte) (*answer, error) {
	ctx, cancel := context.WithCancel(ctx) // ends a stream
	defer cancel()
	c.headers.Store(false)
	c.trailers.Store(false)
	o := c.runner.options
	options := []grpc.CallOption{grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(int(o.GetMessageLimit()))}
	if o.GetCompression() == meshv1.GrpcProbe_GZIP {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: streaming}, path, options...)
	if err != nil {
		return nil, c.unanswered(ctx, err)
	}
	got := &answer{options: o, path: path}
	if err = stream.SendMsg(&request); err == nil || errors.Is(err, io.EOF) {
		if streaming && err == nil {
			err = stream.CloseSend()
		}
		if err == nil || errors.Is(err, io.EOF) { // the status comes with the answer
			err = stream.RecvMsg(&got.message)
		}
	}
	got.header, _ = stream.Header() // which has come, or never will
	if err == nil {
		got.answered = true
		got.status = status.New(codes.OK, "")
		if !streaming {
			got.trailer = stream.Trailer()
		}
		return got, nil
	}
	got.trailer = stream.Trailer()
	if errors.Is(err, io.EOF) {
		err = nil // a stream without a message
	}
	if err != nil && (!c.trailers.Load() || unreadable(err)) {
		return nil, c.unanswered(ctx, err)
	}
	got.status = status.Convert(err)
	if f := c.late(got.status.Code()); f != nil {
		return nil, f
	}
	return got, nil
}

// unreadable tells whether an error is gRPC's own here about a message that is too large or cannot be decompressed, although the server may have sent a status behind it.
func unreadable(err error) bool {
	s := status.Convert(err)
	m := s.Message()
	return s.Code() == codes.ResourceExhausted && strings.HasPrefix(m, "grpc: ") && strings.Contains(m, "larger than max") ||
		s.Code() == codes.Internal && strings.HasPrefix(m, "grpc: failed to ")
}
