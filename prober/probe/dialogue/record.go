package dialogue

import (
	"net"
	"strconv"
	"strings"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxValue is how many bytes one captured value has at most, as [meshv1.Capture] documents it.
const maxValue = 4 << 10

// Record is what was said. It belongs to whoever held the dialogue.
type Record struct {
	// Conn is the connection as it is at the end: the one that was given, or TLS over it. Whoever held the dialogue closes it.
	Conn net.Conn
	// Sent and Received are the bytes written and read, without those of TLS.
	Sent, Received int64
	// Bytes are all that was received, up to the read limit.
	Bytes []byte
	// Done is how many steps went as they say.
	Done int
	// Failed is the name of the step that did not; empty when all did.
	Failed string
	// Groups are what the groups of the newest match of a pattern hold: first the whole match. Nil before any.
	Groups []string

	named map[string]string
	begin int // of the newest step, in Bytes
}

// Value is what a name in a text to send stands for: a group of the newest match by its number, or what was captured under the name. It is empty for what there is not.
func (r *Record) Value(name string) string {
	if n, err := strconv.Atoi(name); err == nil {
		if n < 0 || n >= len(r.Groups) {
			return ""
		}
		return r.Groups[n]
	}
	return r.named[name]
}

// Captures are what was captured by name, as text; nil when nothing was. What is not valid UTF-8 in them is replaced by U+FFFD.
func (r *Record) Captures() map[string]string {
	if len(r.named) == 0 {
		return nil
	}
	out := make(map[string]string, len(r.named))
	for k, v := range r.named {
		out[k] = strings.ToValidUTF8(v, "\uFFFD")
	}
	return out
}

// Newest is what the newest step received.
func (r *Record) Newest() []byte { return r.Bytes[r.begin:] }

// Result is the record as results have it.
func (r *Record) Result() *meshv1.TcpResult {
	return &meshv1.TcpResult{BytesSent: r.Sent, BytesReceived: r.Received, StepsDone: int32(r.Done), FailedStep: r.Failed}
}

// keep notes the groups of a match.
func (r *Record) keep(names, groups []string) {
	r.Groups = groups
	for i, name := range names {
		if name != "" {
			r.set(name, groups[i])
		}
	}
}

// set notes a captured value.
func (r *Record) set(name, value string) {
	if r.named == nil {
		r.named = make(map[string]string)
	}
	r.named[name] = value[:min(len(value), maxValue)]
}
