// Package fault is the one error vocabulary of probemesh. A [Error] is a gRPC code, a documented [meshv1.ErrorReason], the resource it is
// about, and a sentence that says what to do. It crosses gRPC intact: the server returns it as it is (it has GRPCStatus), the client gets it
// back with [From].
//
// A message names the thing, what is wrong with it and what would be right:
//
//	check "checks/api": interval 500ms is shorter than 1s; raise it
package fault

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Domain is the `domain` of every google.rpc.ErrorInfo that probemesh sends.
const Domain = "probemesh"

// Violation is one fault of a request: a field and what is wrong with it.
type Violation struct {
	// Field is the path of the field, for example `checks[3].http.expect[0]`.
	Field string
	// Problem says what is wrong and what would be right, without repeating the field's name.
	Problem string
}

// String is the violation as one line.
func (v Violation) String() string {
	if v.Field == "" {
		return v.Problem
	}
	return v.Field + ": " + v.Problem
}

// Error is an error of probemesh. Its fields do not change after it is made.
type Error struct {
	// Code is the gRPC code.
	Code codes.Code
	// Reason is the machine-readable reason, documented in error_reason.proto.
	Reason meshv1.ErrorReason
	// Message is the sentence for people.
	Message string
	// Metadata goes into ErrorInfo; `name` is the resource.
	Metadata map[string]string
	// Violations are all faults of a request that is not valid.
	Violations []Violation
	// RetryAfter, if not 0, says when trying again makes sense.
	RetryAfter time.Duration
	cause      error
}

// Error is the sentence for people, followed by every violation.
func (e *Error) Error() string {
	if len(e.Violations) == 0 {
		return e.Message
	}
	var b strings.Builder
	b.WriteString(e.Message)
	for _, v := range e.Violations {
		b.WriteString("\n  ")
		b.WriteString(v.String())
	}
	return b.String()
}

// Unwrap gives the cause, which never crosses the wire.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus is the error as gRPC sends it.
func (e *Error) GRPCStatus() *status.Status {
	s := status.New(e.Code, e.Message)
	info := &errdetails.ErrorInfo{Reason: e.Reason.String(), Domain: Domain, Metadata: e.Metadata}
	if d, err := s.WithDetails(info); err == nil {
		s = d
	}
	if len(e.Violations) > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range e.Violations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Problem})
		}
		if d, err := s.WithDetails(bad); err == nil {
			s = d
		}
	}
	if e.RetryAfter > 0 {
		if d, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)}); err == nil {
			s = d
		}
	}
	return s
}

// New makes an error about the resource name (empty when it is about none).
func New(code codes.Code, reason meshv1.ErrorReason, name, format string, args ...any) *Error {
	e := &Error{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...)}
	if name != "" {
		e.Metadata = map[string]string{"name": name}
	}
	return e
}

// Because returns e with a cause, for errors.Is and logs.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// With returns e with one more piece of metadata.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Metadata = make(map[string]string, len(e.Metadata)+1)
	for k, v := range e.Metadata {
		c.Metadata[k] = v
	}
	c.Metadata[key] = value
	return &c
}

// Retry returns e with the advice to try again after d.
func (e *Error) Retry(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// NotFound says that the resource name, for example "checks/shop", does not exist.
func NotFound(name string) *Error {
	return New(codes.NotFound, meshv1.ErrorReason_RESOURCE_NOT_FOUND, name, "%s does not exist", name)
}

// Exists says that the resource name exists already.
func Exists(name string) *Error {
	return New(codes.AlreadyExists, meshv1.ErrorReason_RESOURCE_EXISTS, name, "%s exists already; update it instead, or choose another name", name)
}

// EtagMismatch says that the resource has changed since the caller read it; current is its etag now.
func EtagMismatch(name, current string) *Error {
	return New(codes.Aborted, meshv1.ErrorReason_ETAG_MISMATCH, name,
		"%s changed since you read it (its etag is now %q); read it again, merge your change, and try again", name, current).With("etag", current)
}

// Invalid lists every fault of a request. It panics without any: the caller has introduced a bug.
func Invalid(violations ...Violation) *Error {
	if len(violations) == 0 {
		panic("fault: Invalid without violations")
	}
	sorted := append([]Violation(nil), violations...)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].Field < sorted[j].Field })
	msg := "the request is not valid:"
	if len(sorted) > 1 {
		msg = fmt.Sprintf("the request is not valid, %d faults:", len(sorted))
	}
	e := New(codes.InvalidArgument, meshv1.ErrorReason_INVALID_FIELD, "", "%s", msg)
	e.Violations = sorted
	return e
}

// Internal says that the fault is ours; cause stays in our logs.
func Internal(cause error, format string, args ...any) *Error {
	return New(codes.Internal, meshv1.ErrorReason_INTERNAL_FAULT, "", format, args...).Because(cause)
}

// From gives the Error inside err, whether it was made here or came over gRPC. The second result is false when err is neither; err may be nil.
func From(err error) (*Error, bool) {
	var e *Error
	if errors.As(err, &e) {
		return e, true
	}
	s, ok := status.FromError(err)
	if !ok || s.Code() == codes.OK {
		return nil, false
	}
	e = &Error{Code: s.Code(), Message: s.Message(), cause: err}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.Domain == Domain {
				e.Reason = meshv1.ErrorReason(meshv1.ErrorReason_value[d.Reason])
				e.Metadata = d.Metadata
			}
		case *errdetails.BadRequest:
			for _, v := range d.FieldViolations {
				e.Violations = append(e.Violations, Violation{Field: v.Field, Problem: v.Description})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.RetryDelay.AsDuration()
		}
	}
	return e, true
}

// IsReason tells whether err carries the reason.
func IsReason(err error, reason meshv1.ErrorReason) bool {
	e, ok := From(err)
	return ok && e.Reason == reason
}
