package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// line is a connection to a server over which questions go, one after the other. It belongs to one probe and is not for several goroutines at once.
type line interface {
	// send sends a question that [question.wire] made with the line's own prefix.
	send(ctx context.Context, query []byte) error
	// receive gives the next message; it is good until the next call.
	receive(ctx context.Context, a *probe.Attempt) ([]byte, error)
	// traits say how questions look on the line.
	traits() traits
	// close ends it.
	close()
}

// traits are what questions and answers look like on a line.
type traits struct {
	prefix    int  // bytes before the question
	id        bool // questions have an id
	datagrams bool // anything may arrive
}

// enter is Enter of an attempt, if the line is of the part of the probe that is timed.
func enter(a *probe.Attempt, p meshv1.Result_Phase) {
	if a != nil {
		a.Enter(p)
	}
}

// usualSize is what a datagram may have unless the check says otherwise (see DNS flag day 2020).
const usualSize = spec.DefaultUDPSize

// buffers are for the datagrams of usual checks: each is used for a moment, and is a third of what a probe would allocate.
var buffers = sync.Pool{New: func() any { return new([usualSize]byte) }}

// datagrams is a line over UDP. Its socket is connected, so that only what comes from the server's address arrives.
type datagrams struct {
	conn net.Conn
	buf  []byte
	lent *[usualSize]byte // what buf is of; nil when it is its own
	stop func()           // ends the watch of a context; nil without one
}

// newDatagrams is a line over a connected socket for datagrams up to a size.
func newDatagrams(conn net.Conn, size int) datagrams {
	if size > usualSize {
		return datagrams{conn: conn, buf: make([]byte, size)}
	}
	lent, _ := buffers.Get().(*[usualSize]byte)
	return datagrams{conn: conn, buf: lent[:], lent: lent}
}

// soon is how long an answer is waited for before the context is watched. Most answers come sooner, and watching costs as much as two system calls.
const soon = 50 * time.Millisecond

// begin bounds what follows: for a while by a deadline alone, and then by the context.
func (d *datagrams) begin(ctx context.Context) {
	deadline := time.Now().Add(soon)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	_ = d.conn.SetDeadline(deadline)
}

// end ends the watch, if there is one.
func (d *datagrams) end() {
	if d.stop != nil {
		d.stop()
		d.stop = nil
	}
}

func (d *datagrams) traits() traits { return traits{id: true, datagrams: true} }

func (d *datagrams) close() {
	d.conn.Close()
	if d.lent != nil {
		buffers.Put(d.lent)
		d.lent, d.buf = nil, nil
	}
}

func (d *datagrams) send(_ context.Context, query []byte) error {
	_, err := d.conn.Write(query)
	return err
}

func (d *datagrams) receive(ctx context.Context, _ *probe.Attempt) ([]byte, error) {
	n, err := d.conn.Read(d.buf)
	if err != nil && d.stop == nil && errors.Is(err, os.ErrDeadlineExceeded) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d.stop = probe.Watch(ctx, d.conn)
		n, err = d.conn.Read(d.buf)
	}
	return d.buf[:n], err
}

// stream is a line over TCP or TLS, on which each message comes after its length.
type stream struct {
	conn net.Conn
}

func (s *stream) traits() traits { return traits{prefix: 2, id: true} }

func (s *stream) close() { s.conn.Close() }

func (s *stream) send(_ context.Context, query []byte) error {
	binary.BigEndian.PutUint16(query, uint16(len(query)-2))
	_, err := s.conn.Write(query)
	return err
}

func (s *stream) receive(_ context.Context, a *probe.Attempt) ([]byte, error) {
	return readMessage(s.conn, a)
}

// readMessage reads a message after its length. What the peer says of the length is believed only up to what a length of two bytes can be.
func readMessage(from io.Reader, a *probe.Attempt) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(from, length[:1]); err != nil {
		return nil, err
	}
	enter(a, meshv1.Result_TRANSFER)
	if _, err := io.ReadFull(from, length[1:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(from, b); err != nil {
		return nil, err
	}
	return b, nil
}
