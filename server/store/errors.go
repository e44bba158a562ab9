package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Errors to be told apart with errors.Is; they come inside fault errors.
var (
	// ErrFenced says that the reign under which something was to be written is over. Nothing was changed.
	ErrFenced = errors.New("the leader's term is over")
	// ErrConflict says that what a write rested on has changed: another incident is open, the check or the incident has another
	// revision. Nothing was changed; read again and decide anew.
	ErrConflict = errors.New("what the write rested on has changed")
	// ErrOutcomeUnknown says that the answer to a write was lost and that reading it back did not settle whether it happened. Repeating the
	// same call is safe.
	ErrOutcomeUnknown = errors.New("whether the change was written is not known")
)

// retryAfter is what callers are told when etcd cannot commit: an etcd election takes one to two seconds.
const retryAfter = time.Second

// certain lists the refusals of etcd that are given before anything is proposed, so that nothing can have been changed.
var certain = []error{
	rpctypes.ErrNoLeader, rpctypes.ErrTooManyRequests, rpctypes.ErrNoSpace, rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps,
	rpctypes.ErrLeaseNotFound, rpctypes.ErrCompacted, rpctypes.ErrFutureRev, rpctypes.ErrNotCapable, rpctypes.ErrPermissionDenied,
	rpctypes.ErrInvalidAuthToken, rpctypes.ErrUserEmpty, rpctypes.ErrDuplicateKey,
}

// readFault is the fault for a read that failed.
func readFault(what string, err error) error {
	return unavailable(what, err, "nothing was changed")
}

// writeFault is the fault for a write that failed; it matches ErrOutcomeUnknown when it may have happened all the same.
func writeFault(what string, err error) error {
	for _, c := range certain {
		if errors.Is(err, c) {
			return unavailable(what, err, "nothing was changed")
		}
	}
	return unavailable(what, errors.Join(ErrOutcomeUnknown, err), "whether the change was written is not known: read it again before repeating it")
}

func unavailable(what string, err error, outcome string) error {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fault.New(codes.ResourceExhausted, meshv1.ErrorReason_LIMIT_EXCEEDED, "",
			"cannot %s: etcd has used up its quota, %s; compact and defragment it, then disarm its NOSPACE alarm", what, outcome).Because(err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps):
		return fault.New(codes.ResourceExhausted, meshv1.ErrorReason_LIMIT_EXCEEDED, "",
			"cannot %s: the request is larger than etcd takes, %s; split it", what, outcome).Because(err)
	}
	return fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, "",
		"cannot %s: etcd does not answer (%s), %s; try again in a second", what, plain(err), outcome).Because(err).Retry(retryAfter)
}

// plain is the cause in a few words, without the layers of gRPC.
func plain(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, context.Canceled):
		return "the call was cancelled"
	case errors.Is(err, rpctypes.ErrNoLeader):
		return "its members have no leader"
	}
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Error()
	}
	return "the connection failed"
}

func fenced(f Fence) error {
	return fault.New(codes.Aborted, meshv1.ErrorReason_NOT_LEADER, "", "term %d is over; nothing was changed", f.Term).Because(ErrFenced)
}

func conflict(name, format string, args ...any) error {
	return fault.New(codes.Aborted, meshv1.ErrorReason_STATE_CONFLICT, name, format, args...).Because(ErrConflict)
}
