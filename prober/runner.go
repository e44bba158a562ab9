package prober

import (
	"context"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Runner runs one check. Probe may be called by several goroutines at once; it never returns nil and ends within the timeout of the check or when ctx does.
// Close follows the last Probe.
type Runner interface {
	Probe(ctx context.Context, o Options) *meshv1.Result
	Close()
}

// Options of one probe. The zero value is a scheduled probe.
type Options struct {
	// Fresh asks for a new connection.
	Fresh bool
	// Evidence asks for evidence also when the outcome is OK.
	Evidence bool
	// Traceparent, if not empty, is sent with the probe where the protocol has headers.
	Traceparent string
}

// Refusal is the error of a check that this prober cannot run.
type Refusal struct {
	// Capability is what the prober lacks; empty when it is something else.
	Capability string
	// Reason says why in a sentence.
	Reason string
}

// Error is the reason.
func (r *Refusal) Error() string { return r.Reason }
