package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A server of a minority answers the first try with what is wrong, and the second one not before the time is up. It may be the server that notices that first.
func TestWhatAServerAnsweredIsToldRatherThanThatTheNextTryCameTooLate(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	calls := 0
	invoke := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		if calls++; calls > 1 {
			return status.Error(codes.DeadlineExceeded, "context deadline exceeded")
		}
		return fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, "", "etcd does not answer").Retry(time.Millisecond)
	}
	err := new(app).retry(ctx, "/probemesh.v1.MemberService/ListMembers", nil, nil, nil, invoke)
	if err == nil || !strings.Contains(err.Error(), "etcd does not answer") || calls != 2 {
		t.Errorf("%d calls, %v", calls, err)
	}
}
