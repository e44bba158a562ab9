// Package probe holds what every kind of probe has in common: finding and connecting to the target in timed phases, saying in one
// sentence what went wrong, judging the answer by the expectations of the check, and capturing the evidence of a failure.
//
// The kinds themselves are the packages below it, one each; [github.com/probemesh/probemesh/prober/probe/kinds] lists them and
// makes a [Runner] of a check. A kind is a [Plan] whose Talk speaks the protocol and returns an [Answer]:
//
//	Talk (phases into Attempt) -> Answer -> expectations, or the kind's own judgement -> Result
//
// [Plan.Run] gives what all callers rely on: a probe ends within its timeout, is never nil and never panics, says ERROR
// and not FAIL when the fault is the prober's own, and holds no more of a hostile answer than the limits of the check allow.
package probe

import (
	"context"
	"net/netip"
	"slices"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Capabilities that checks may need besides their kind.
const (
	IPv4 = "ipv4"
	IPv6 = "ipv6"
)

// Runner runs one check. Probe may be called by several goroutines at once.
type Runner interface {
	// Probe runs the check once. It never returns nil, never panics, and ends within the timeout of the check or when ctx is
	// cancelled, whichever comes first; a cancelled probe has outcome ERROR. The result has check, start_time (of the local clock), duration,
	// outcome, error_class, error, failed_phase, failed_expectation, degraded, steps, timings, evidence, remote_address and the details of the kind. The caller
	// fills in the rest.
	Probe(ctx context.Context, o Options) *meshv1.Result
	// Close gives back what is kept between probes (idle connections). No Probe may be running or follow.
	Close()
}

// Options of one probe. The zero value is a scheduled probe.
type Options struct {
	// Fresh asks for a new connection even where the check keeps one, and for a full handshake even where it resumes sessions, as a confirmation does.
	Fresh bool
	// Evidence asks for evidence also when the outcome is OK, as a run that a user asked for does.
	Evidence bool
	// Traceparent, if not empty, is sent with the probe where the protocol has headers (W3C Trace Context).
	Traceparent string
	// Fence says where the probe may go; nil for everywhere. Package kinds sets it for the runners that it makes, to that of [Env].
	Fence *Fence
	// Pin, if its host is not empty, is the one address of that host, in place of those that it resolves to.
	Pin Pin
	// Aliases knows what hosts are aliases of, and learns it; nil: results do not tell it.
	Aliases *Aliases
}

// Pin is an address that was resolved before the probe.
type Pin struct {
	// Host is the host of the URI.
	Host string
	// Addr is the address to use for it.
	Addr netip.Addr
	// Took is how long the resolution took. It counts into the bounds of the whole probe (see [Plan.FailAbove]), and nowhere else.
	Took time.Duration
}

// Env is what kinds need to know of the prober they run in.
type Env struct {
	// UserAgent names the prober in HTTP requests, for example "probemesh/1.4.2".
	UserAgent string
	// Capabilities is what the prober can do: kinds, "ipv4" and "ipv6". A check that needs another is refused.
	Capabilities []string
	// Fence says where probes may go; nil for everywhere.
	Fence *Fence
	// Shared is what checks have in common; nil: nothing.
	Shared *Shared
}

// Can tells whether the prober has the capability.
func (e Env) Can(capability string) bool { return slices.Contains(e.Capabilities, capability) }

// Refusal is the error of a check that this prober cannot run. Others may be able to.
type Refusal struct {
	// Capability is what the prober lacks, for example "icmp"; empty when it is something else.
	Capability string
	// Reason says why in a sentence.
	Reason string
}

// Error is the reason.
func (r *Refusal) Error() string { return r.Reason }
