// Package dialogue holds a conversation with a target over a connection: steps that send something, expect something, capture parts of it for what later steps send, begin TLS, or
// wait for the peer to close. It is what the kinds tcp and udp (with steps) and the prober's blackbox endpoint have in common.
//
//	steps, err := dialogue.Compile(check.Tcp.Steps)
//	d := &dialogue.Dialogue{Steps: steps, ReadLimit: 64 << 10, LineLimit: 64 << 10, TLS: config}
//	record, err := d.Hold(ctx, attempt, conn)   // err is a *probe.Failure that names the step and what came instead
//
// A step does, in this order: send, expect, starttls, expect_close. What it expects is matched by one of:
//
//	line     one line after the other, without its end; those that do not match are passed over
//	text     all bytes since the last match, as text, again whenever more of them come
//	bytes    the same, each byte taken for one character
//	literal  (expect_bytes) the very bytes that must come next
//
// With datagrams, each one that comes is examined by itself, as a line is.
//
// The peer may be hostile. At most ReadLimit bytes are read in all and LineLimit in a line, RE2 takes time in proportion to the text, and a pattern over growing text is tried again only when it
// has grown by an eighth or the peer has paused, so that a peer that sends byte by byte costs little more than one that sends at once. Everything ends when ctx does.
//
// A Dialogue does not change and may be held by several goroutines at once, each over its own connection.
package dialogue

import (
	"crypto/tls"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/probemesh/probemesh/internal/capture"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Match is to what of the answer a pattern is applied.
type Match int

// The ways to match.
const (
	Line Match = iota
	Text
	Bytes
)

// Step is one step, compiled. The zero value does nothing.
type Step struct {
	// Name is what results call the step.
	Name string
	// Send is sent first, unless it is empty.
	Send spec.Template
	// Expect must come, and Reject must not come before it does; nil for nothing.
	Expect, Reject *regexp.Regexp
	// Match is what both are applied to.
	Match Match
	// ExpectBytes must come next; not together with Expect.
	ExpectBytes []byte
	// Capture is applied to what matched Expect.
	Capture *capture.Program
	// StartTLS begins TLS.
	StartTLS bool
	// ExpectClose waits for the peer to close.
	ExpectClose bool
	// Timeout bounds the step; 0 leaves it the time of the probe.
	Timeout time.Duration
}

// Dialogue is a list of steps and their bounds.
type Dialogue struct {
	// Steps are held in order, up to the first that fails.
	Steps []Step
	// ReadLimit is how many bytes are read at most in all; LineLimit how many a line may have, without its end. Both at least 1.
	ReadLimit, LineLimit int
	// TLS is the configuration for steps that begin TLS; it must have a server name or not verify.
	TLS *tls.Config
	// Datagrams is true when each read of the connection gives one datagram, as with UDP.
	Datagrams bool
}

// Compile compiles the steps of a check, which is valid. The error names the step.
func Compile(list []*meshv1.DialogueStep) ([]Step, error) {
	out := make([]Step, len(list))
	for i, s := range list {
		step, err := compile(s)
		if err != nil {
			return nil, fmt.Errorf("step %d %w", i+1, err)
		}
		if step.Name = s.GetName(); step.Name == "" {
			step.Name = strconv.Itoa(i + 1)
		}
		out[i] = step
	}
	return out, nil
}

func compile(s *meshv1.DialogueStep) (step Step, err error) {
	step = Step{ExpectBytes: s.GetExpectBytes(), StartTLS: s.GetStarttls(), ExpectClose: s.GetExpectClose(), Timeout: s.GetTimeout().AsDuration()}
	switch s.GetMatch() {
	case meshv1.DialogueStep_TEXT:
		step.Match = Text
	case meshv1.DialogueStep_BYTES:
		step.Match = Bytes
	}
	switch {
	case s.GetSendEscaped() != "":
		step.Send, err = spec.ParseTemplate(s.GetSendEscaped(), true)
	case len(s.GetSendBytes()) > 0:
		step.Send = spec.Literal(string(s.GetSendBytes()))
	default:
		step.Send, err = spec.ParseTemplate(s.GetSend(), false)
	}
	if err != nil {
		return Step{}, err
	}
	if step.Expect, err = pattern(s.GetExpect()); err != nil {
		return Step{}, err
	}
	if step.Reject, err = pattern(s.GetReject()); err != nil {
		return Step{}, err
	}
	var faults []capture.Fault
	if step.Capture, faults = capture.Compile(s.GetCapture(), false); len(faults) > 0 {
		return Step{}, fmt.Errorf("capture %d %s", faults[0].Index+1, faults[0].Problem)
	}
	return step, nil
}

// pattern compiles a pattern, nil for none.
func pattern(text string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, nil
	}
	return spec.Regexp(text)
}
