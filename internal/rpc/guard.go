package rpc

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// guard stands between gRPC and the handlers.
type guard struct {
	log     *slog.Logger
	metrics *metrics
	timeout time.Duration // below 0: none
}

func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	if _, ok := ctx.Deadline(); !ok && g.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.timeout)
		defer cancel()
	}
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			answer, err = nil, g.panicked(ctx, info.FullMethod, p)
		}
		err = g.settle(ctx, info.FullMethod, err)
		g.note(ctx, info.FullMethod, start, err)
	}()
	return handler(ctx, req)
}

func (g *guard) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			err = g.panicked(stream.Context(), info.FullMethod, p)
		}
		err = g.settle(stream.Context(), info.FullMethod, err)
		g.note(stream.Context(), info.FullMethod, start, err)
	}()
	return handler(srv, stream)
}

// panicked logs a panic with its stack and gives the error that the caller sees instead.
func (g *guard) panicked(ctx context.Context, method string, p any) error {
	g.metrics.fault(ctx, "panic")
	g.log.ErrorContext(ctx, "rpc handler panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
	return fault.New(codes.Internal, meshv1.ErrorReason_INTERNAL_FAULT, "",
		"%s met a fault of the server, which its log describes; trying again may help", shortMethod(method))
}

// settle gives the error that crosses the wire. What is not of package fault, nor of gRPC's own, is a fault of ours: logged here, and only here.
func (g *guard) settle(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	var known *fault.Error
	if errors.As(err, &known) {
		if known.Reason == meshv1.ErrorReason_INTERNAL_FAULT && known.Unwrap() != nil {
			g.metrics.fault(ctx, "error")
			g.log.ErrorContext(ctx, "rpc failed by a fault of ours", "method", method, "err", known.Error(), "cause", known.Unwrap())
		}
		return known
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	if s, ok := status.FromError(err); ok && (!strings.HasPrefix(method, "/probemesh.") || ofGRPC(s, err)) {
		return err
	}
	g.metrics.fault(ctx, "error")
	g.log.ErrorContext(ctx, "rpc failed by a fault of ours", "method", method, "err", err)
	return fault.Internal(err, "%s met a fault of the server, which its log describes; trying again may help", shortMethod(method))
}

// ofGRPC tells whether a status is one that gRPC gives by itself, or one of ours that was relayed from another server.
func ofGRPC(s *status.Status, err error) bool {
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Unimplemented, codes.ResourceExhausted:
		return true
	}
	f, ok := fault.From(err)
	return ok && f.Reason != meshv1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// note logs one line for each call, at debug.
func (g *guard) note(ctx context.Context, method string, start time.Time, err error) {
	if !g.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	address := ""
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		address = p.Addr.String()
	}
	g.log.DebugContext(ctx, "rpc served", "method", method, "code", status.Code(err).String(), "duration", time.Since(start), "peer", address)
}

// shortMethod is "CheckService.GetCheck" for "/probemesh.v1.CheckService/GetCheck".
func shortMethod(full string) string {
	service, method, ok := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	if !ok {
		return full
	}
	return service[strings.LastIndexByte(service, '.')+1:] + "." + method
}
