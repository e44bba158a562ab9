package dialogue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// talk is a dialogue while it is held.
type talk struct {
	*Dialogue
	a        *probe.Attempt
	r        Reader
	rec      *Record
	step     *Step
	deadline time.Time
	searched []byte // in which the newest match was found
	pos      int    // what was matched ends here, in r.Bytes
}

// Hold holds the dialogue over conn, to which nothing was sent yet. conn must be bounded by ctx, as [probe.Watch] does, and ctx must have a deadline. The record is never nil; its Conn is to be closed by
// the caller in place of conn. The error is a *probe.Failure whose sentence names the step.
func (d *Dialogue) Hold(ctx context.Context, a *probe.Attempt, conn net.Conn) (*Record, error) {
	t := &talk{Dialogue: d, a: a, r: Reader{Conn: conn, Limit: d.ReadLimit}, rec: &Record{Conn: conn}}
	for i := range d.Steps {
		t.step = &d.Steps[i]
		err := a.Step(t.step.Name, func() error {
			if f := t.run(ctx); f != nil {
				return f
			}
			return nil
		})
		t.rec.Bytes, t.rec.Received, t.rec.Reads = t.r.Bytes, int64(len(t.r.Bytes)), t.r.reads
		if err != nil {
			t.rec.Failed = t.step.Name
			return t.rec, err
		}
		t.rec.Done++
	}
	if captured := t.rec.Captures(); captured != nil {
		a.Captured(captured)
	}
	return t.rec, nil
}

// run does one step.
func (t *talk) run(ctx context.Context) *probe.Failure {
	s := t.step
	t.rec.begin = t.pos
	t.deadline, _ = ctx.Deadline()
	if s.Timeout > 0 {
		if own := time.Now().Add(s.Timeout); own.Before(t.deadline) {
			t.deadline = own
		}
	}
	if f := t.send(ctx); f != nil {
		return f
	}
	if s.Expect == nil && len(s.ExpectBytes) == 0 && !s.ExpectClose && !s.StartTLS {
		return nil
	}
	var f *probe.Failure
	switch {
	case s.Expect != nil && t.Datagrams:
		f = t.datagrams(ctx)
	case s.Expect != nil && s.Match == Line:
		f = t.lines(ctx)
	case s.Expect != nil:
		f = t.text(ctx)
	case len(s.ExpectBytes) > 0:
		f = t.literal(ctx)
	}
	if f == nil && s.StartTLS {
		f = t.secure(ctx)
	}
	if f == nil && s.ExpectClose {
		f = t.close(ctx)
	}
	return f
}

// send sends what the step has to send and begins to wait for the answer.
func (t *talk) send(ctx context.Context) *probe.Failure {
	t.r.Await(t.a)
	if t.step.Send.Empty() {
		return nil
	}
	if err := t.rec.Fits(t.step.Send); err != nil {
		return t.fail(meshv1.Result_EXPECTATION, "%v", err)
	}
	payload := t.step.Send.Expand(nil, t.rec.Value)
	_ = t.r.Conn.SetWriteDeadline(t.deadline)
	if err := ctx.Err(); err != nil { // see Reader.more
		return t.broken(err)
	}
	n, err := t.r.Conn.Write(payload)
	t.rec.Sent += int64(n)
	t.rec.Writes++
	if err != nil {
		return t.broken(err)
	}
	t.a.Restart(meshv1.Result_PROCESSING)
	return nil
}

// lines reads lines until one matches.
func (t *talk) lines(ctx context.Context) *probe.Failure {
	scanned := t.pos
	for {
		length := bytes.IndexByte(t.r.Bytes[scanned:], '\n')
		if length < 0 {
			if len(t.r.Bytes)-t.pos > t.LineLimit+1 { // one more, which may be the \r of its end
				return t.long()
			}
			scanned = len(t.r.Bytes)
			err := t.r.more(ctx, t.a, t.deadline)
			switch {
			case err == nil:
				continue
			case errors.Is(err, io.EOF) && scanned > t.pos: // the last line has no end
				if done, f := t.line(t.r.Bytes[t.pos:], scanned); done {
					return f
				}
			}
			return t.missed(err)
		}
		line := bytes.TrimSuffix(t.r.Bytes[t.pos:scanned+length], []byte{'\r'})
		if len(line) > t.LineLimit {
			return t.long()
		}
		if done, f := t.line(line, scanned+length+1); done {
			return f
		}
		scanned = t.pos
	}
}

func (t *talk) long() *probe.Failure {
	return t.fail(meshv1.Result_PROTOCOL, "a line is longer than %d bytes; it begins with %s", t.LineLimit, quote(t.r.Bytes[t.pos:]))
}

// line examines one line or datagram, which ends at next in all that was read.
func (t *talk) line(line []byte, next int) (done bool, f *probe.Failure) {
	t.pos = next
	if groups := t.find(line); groups != nil {
		return true, t.matched(groups)
	}
	if t.rejects(line) {
		return true, t.rejected(line)
	}
	return false, nil
}

// datagrams reads datagrams until one matches.
func (t *talk) datagrams(ctx context.Context) *probe.Failure {
	for {
		got, err := t.r.packet(ctx, t.a, t.deadline)
		if err != nil {
			return t.missed(err)
		}
		if done, f := t.line(got, len(t.r.Bytes)); done {
			return f
		}
	}
}

// text reads until the pattern matches somewhere in all that came since the last match.
func (t *talk) text(ctx context.Context) *probe.Failure {
	var f *probe.Failure
	begin := t.pos
	err := t.r.Until(ctx, t.a, t.deadline, begin, func(text []byte) bool {
		if groups := t.find(text); groups != nil {
			t.pos = begin + groups[1]
			f = t.matched(groups)
			return true
		}
		if t.rejects(text) {
			f = t.rejected(text)
			return true
		}
		return false
	})
	if err != nil {
		return t.missed(err)
	}
	return f
}

// literal reads the bytes that must come next.
func (t *talk) literal(ctx context.Context) *probe.Failure {
	want := t.step.ExpectBytes
	for {
		got := t.r.Bytes[t.pos:]
		n := min(len(got), len(want))
		if !bytes.Equal(got[:n], want[:n]) || t.Datagrams && n > 0 && n < len(want) {
			return t.expectation("%s came", quote(got[:min(len(got), 2*len(want))]))
		}
		if n == len(want) {
			t.pos += n
			if t.Datagrams {
				t.pos = len(t.r.Bytes)
			}
			return nil
		}
		var err error
		if t.Datagrams {
			_, err = t.r.packet(ctx, t.a, t.deadline)
		} else {
			err = t.r.more(ctx, t.a, t.deadline)
		}
		if err != nil {
			return t.missed(err)
		}
	}
}

// secure begins TLS.
func (t *talk) secure(ctx context.Context) *probe.Failure {
	if ahead := len(t.r.Bytes) - t.pos; ahead > 0 {
		return t.fail(meshv1.Result_PROTOCOL, "the peer sent %d bytes in the clear ahead of the TLS handshake: %s; a client might take them for encrypted", ahead, quote(t.r.Bytes[t.pos:]))
	}
	if t.TLS == nil {
		return t.fail(meshv1.Result_PROBER, "the dialogue has no TLS options")
	}
	// The deadline of the connection is already that of the step for reading; a context makes it so for both.
	ctx, cancel := context.WithDeadline(ctx, t.deadline)
	defer cancel()
	conn, err := probe.Handshake(ctx, t.a, t.r.Conn, t.TLS)
	if err != nil {
		return t.broken(err)
	}
	t.rec.Conn, t.r.Conn, t.r.deadline = conn, conn, time.Time{}
	return nil
}

// close waits for the peer's end.
func (t *talk) close(ctx context.Context) *probe.Failure {
	for {
		t.pos = len(t.r.Bytes)
		err := t.r.more(ctx, t.a, t.deadline)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // TLS calls an end without its own notice unexpected
			return nil
		case atLimit(err):
			return t.fail(meshv1.Result_EXPECTATION, "the peer did not close the connection, and sent more than the read limit of %d bytes", t.ReadLimit)
		case isTimeout(err):
			f := t.fail(meshv1.Result_EXPECTATION, "the peer did not close the connection within %s", t.patience())
			f.Phase = meshv1.Result_EXPECT
			return f
		default:
			return t.broken(err)
		}
	}
}

// matched notes a match, given as its groups' places.
func (t *talk) matched(groups []int) *probe.Failure {
	if err := t.rec.Keep(t.step.Expect.SubexpNames(), t.found(groups)); err != nil {
		return t.expectation("%v", err)
	}
	if err := t.rec.Take(t.step.Capture, t.unit(groups)); err != nil {
		return t.expectation("%v", err)
	}
	return nil
}

// broken is the failure of a connection.
func (t *talk) broken(err error) *probe.Failure {
	if t.ownTime(err) {
		return t.fail(meshv1.Result_TIMEOUT, "timed out after %s", t.patience())
	}
	return probe.Classify(err, t.a)
}

// ownTime tells whether err is the end of the step's own time, and not of the probe's.
func (t *talk) ownTime(err error) bool {
	return t.step.Timeout > 0 && (isTimeout(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)) &&
		time.Since(t.a.Start()) < t.a.Timeout()
}

// patience is how long the step waited at most.
func (t *talk) patience() time.Duration {
	if s := t.step.Timeout; s > 0 && s < t.a.Timeout() {
		return s
	}
	return t.a.Timeout()
}
