package dialogue

import (
	"net"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Record is what was said. It belongs to whoever held the dialogue.
type Record struct {
	// Conn is the connection as it is at the end: the one that was given, or TLS over it. Whoever held the dialogue closes it.
	Conn net.Conn
	// Sent and Received are the bytes written and read, without those of TLS.
	Sent, Received int64
	// Writes and Reads are how often something was sent and received: of datagrams, how many.
	Writes, Reads int
	// Bytes are all that was received, up to the read limit.
	Bytes []byte
	// Done is how many steps went as they say.
	Done int
	// Failed is the name of the step that did not; empty when all did.
	Failed string
	Memory

	begin int // of the newest step, in Bytes
}

// Newest is what the newest step received.
func (r *Record) Newest() []byte { return r.Bytes[r.begin:] }

// Result is the record as results have it.
func (r *Record) Result() *meshv1.TcpResult {
	return &meshv1.TcpResult{BytesSent: r.Sent, BytesReceived: r.Received, StepsDone: int32(r.Done), FailedStep: r.Failed}
}
