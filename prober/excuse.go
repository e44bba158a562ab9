package prober

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// excuse makes a failure the prober's own error when its canaries say that its network does not work. Only failures that a broken network makes are asked about: what was
// refused, or answered wrongly, has been reached.
func (a *agent) excuse(ctx context.Context, r *meshv1.Result) {
	if a.canaries == nil {
		return
	}
	remote := remoteOf(r)
	switch r.GetOutcome() {
	case meshv1.Result_OK:
		a.canaries.Heard(remote)
		return
	case meshv1.Result_FAIL:
	default:
		return
	}
	switch r.GetErrorClass() {
	case meshv1.Result_TIMEOUT, meshv1.Result_UNREACHABLE, meshv1.Result_RESOLVER_FAILED, meshv1.Result_CONNECTION_RESET:
	default:
		a.canaries.Heard(remote)
		return
	}
	why, own := a.canaries.Excuse(ctx, remote, time.Now().Add(-r.GetDuration().AsDuration()))
	if !own {
		return
	}
	r.Error = why + "; the probe itself: " + r.GetError()
	r.Outcome, r.ErrorClass = meshv1.Result_ERROR, meshv1.Result_PROBER
}

// remoteOf is the address that was probed; the zero Addr when none was known.
func remoteOf(r *meshv1.Result) netip.Addr {
	if p, err := netip.ParseAddrPort(r.GetRemoteAddress()); err == nil {
		return p.Addr().Unmap()
	}
	a, _ := netip.ParseAddr(r.GetRemoteAddress())
	return a.Unmap()
}

// canaryStates are those of the canaries as a Ping tells them, on the mesh's clock.
func (a *agent) canaryStates() []*meshv1.CanaryState {
	var list []*meshv1.CanaryState
	offset := a.clock.Offset()
	for _, s := range a.canaries.States() {
		list = append(list, &meshv1.CanaryState{
			Family: s.Family, Failing: s.Failing, Since: timestamppb.New(s.Since.Add(-offset)), Targets: int32(s.Targets), Answering: int32(s.Answering), Error: s.Error,
			Excused: s.Excused,
		})
	}
	return list
}
