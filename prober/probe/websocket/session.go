package websocket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	ws "github.com/coder/websocket"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/dialogue"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// maxQueued is how many messages may come while a ping waits for its pong.
	maxQueued = 64
	// maxControl is how many pings and pongs the peer may send in all, and maxMessages how many messages.
	maxControl  = 1_000
	maxMessages = 10_000
)

// message is what the reading goroutine hands over: a message, or why there are no more.
type message struct {
	binary bool
	data   []byte
	err    error
}

// session is an open WebSocket.
type session struct {
	*runner
	a      *probe.Attempt
	conn   *ws.Conn
	raw    net.Conn
	got    *answer
	memory dialogue.Memory
	flood  *atomic.Int64 // pings and pongs

	in     chan message
	quit   chan struct{}
	group  sync.WaitGroup
	queue  []message
	over   bool // the peer has closed, or a close frame was sent
	seen   bool // a message has come in this step
	within time.Duration
}

// newSession begins to read, if there are steps. end must be called.
func newSession(ctx context.Context, a *probe.Attempt, r *runner, conn *ws.Conn, up *upgrader) *session {
	s := &session{runner: r, a: a, conn: conn, raw: up.conn, got: up.answer, flood: &up.flood, in: make(chan message), quit: make(chan struct{})}
	if len(r.steps) > 0 {
		// What bounds reading is the deadline of the connection, see probe.Watch: a context would close it unseen.
		s.group.Go(func() { s.read(context.WithoutCancel(ctx)) })
	}
	return s
}

// read hands messages over until there are no more, or the session ends.
func (s *session) read(ctx context.Context) {
	for {
		kind, data, err := s.conn.Read(ctx)
		select {
		case s.in <- message{binary: kind == ws.MessageBinary, data: data, err: err}:
		case <-s.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// leave takes leave with a close frame, unless there was one. Its answer is not waited for.
func (s *session) leave() {
	if s.over {
		return
	}
	frame := []byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8} // FIN and opcode 8; masked, 2 bytes; mask; 1000
	_, _ = rand.Read(frame[2:6])
	frame[6] ^= frame[2]
	frame[7] ^= frame[3]
	_, _ = s.raw.Write(frame)
}

// end closes the connection and waits for the goroutines.
func (s *session) end() {
	close(s.quit)
	s.raw.Close()
	_ = s.conn.CloseNow()
	s.group.Wait()
}

// run does one step.
func (s *session) run(ctx context.Context, st *step) *probe.Failure {
	s.a.Enter(meshv1.Result_PROCESSING)
	s.seen, s.within = false, s.a.Timeout()
	if st.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, st.timeout)
		defer cancel()
		s.within = min(s.within, st.timeout)
	}
	if f := s.send(ctx, st); f != nil {
		return f
	}
	if st.GetPing() {
		if f := s.ping(ctx); f != nil {
			return f
		}
	}
	if st.awaits() {
		if f := s.await(ctx, st); f != nil {
			return f
		}
	}
	if st.GetClose() {
		s.close()
	}
	if st.GetClose() || st.GetExpectClose() != 0 {
		return s.closed(ctx, int(st.GetExpectClose()))
	}
	return nil
}

// send sends the message of a step.
func (s *session) send(ctx context.Context, st *step) *probe.Failure {
	kind, payload := ws.MessageText, []byte(nil)
	switch {
	case !st.text.Empty():
		if err := s.memory.Fits(st.text); err != nil {
			return probe.Failf(s.a, meshv1.Result_EXPECTATION, "%v", err)
		}
		payload = st.text.Expand(nil, s.memory.Value)
	case len(st.GetSendBytes()) > 0:
		kind, payload = ws.MessageBinary, st.GetSendBytes()
	default:
		return nil
	}
	if err := s.conn.Write(context.WithoutCancel(ctx), kind, payload); err != nil {
		return s.broken(err)
	}
	s.got.sent++
	s.a.Restart(meshv1.Result_PROCESSING)
	return nil
}

// ping sends a ping and waits for its pong. Messages that come in between are kept for the steps that follow.
func (s *session) ping(ctx context.Context) *probe.Failure {
	begin := time.Now()
	done := make(chan error, 1)
	pingCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { done <- s.conn.Ping(pingCtx) })
	for {
		select {
		case err := <-done:
			switch {
			case err != nil && ctx.Err() != nil:
				return s.late("pong")
			case err != nil:
				return s.broken(err)
			}
			s.got.ping = max(time.Since(begin), 1)
			return nil
		case m := <-s.in:
			s.queue = append(s.queue, m)
			switch {
			case m.err != nil && timedOut(m.err):
				return s.late("pong")
			case m.err != nil:
				return s.ended(m.err, "a pong")
			}
			if len(s.queue) > maxQueued {
				return probe.Failf(s.a, meshv1.Result_PROTOCOL, "more than %d messages came before the pong", maxQueued)
			}
		case <-ctx.Done():
			return s.late("pong")
		}
	}
}

// next is the next message, or why there is none.
func (s *session) next(ctx context.Context) message {
	var m message
	if len(s.queue) > 0 {
		m, s.queue = s.queue[0], s.queue[1:]
	} else {
		select {
		case m = <-s.in:
		case <-ctx.Done():
			return message{err: ctx.Err()}
		}
	}
	if m.err != nil {
		s.queue = []message{m} // it is the last
		return m
	}
	if !s.seen {
		s.a.Enter(meshv1.Result_TRANSFER)
		s.seen = true
	}
	if s.got.received++; s.got.received > maxMessages {
		return message{err: &limitError{fmt.Sprintf("the peer sent more than %d messages", maxMessages)}}
	}
	s.got.body, s.got.binary = m.data, m.binary
	if s.got.bytes += int64(len(m.data)); s.got.bytes > s.options.GetReadLimit() {
		return message{err: &limitError{fmt.Sprintf("the messages of the peer have more than the read limit of %d bytes", s.options.GetReadLimit())}}
	}
	return m
}

// await waits for the message that the step expects.
func (s *session) await(ctx context.Context, st *step) *probe.Failure {
	for {
		m := s.next(ctx)
		if m.err != nil {
			return s.missed(m.err, st)
		}
		if want := st.GetExpectType(); want != 0 && (want == meshv1.WebsocketStep_BINARY) != m.binary {
			return s.expectation(want.String()+" message", "a message of the other type came: "+quote(m.data))
		}
		if want := st.GetExpectBytes(); len(want) > 0 && !bytes.Equal(want, m.data) {
			return s.expectation(quote(want), quote(m.data)+" came")
		}
		if st.expect != nil {
			groups := st.expect.FindSubmatch(m.data)
			switch {
			case groups != nil:
				if err := s.keep(st, groups); err != nil {
					return s.expectation(st.expect.String(), err.Error())
				}
			case st.reject != nil && st.reject.Match(m.data):
				return s.expectation(st.expect.String(), fmt.Sprintf("%s came, which is rejected (%s)", quote(m.data), st.reject))
			default:
				continue
			}
		}
		if err := s.memory.Take(st.capture, m.data); err != nil {
			return s.expectation("a message with all that is captured", err.Error())
		}
		return nil
	}
}

// keep notes the groups of a match.
func (s *session) keep(st *step, groups [][]byte) error {
	text := make([]string, len(groups))
	for i, g := range groups {
		text[i] = string(g)
	}
	return s.memory.Keep(st.expect.SubexpNames(), text)
}

// close sends a close frame. The reading goroutine sees the answer; the other one ends with the connection.
func (s *session) close() {
	s.over = true
	s.group.Go(func() { _ = s.conn.Close(ws.StatusNormalClosure, "") })
}

// closed waits for the peer's close frame. want is its code, 0 for any.
func (s *session) closed(ctx context.Context, want int) *probe.Failure {
	for {
		m := s.next(ctx)
		if m.err == nil {
			continue
		}
		code := int(ws.CloseStatus(m.err))
		switch {
		case code > 0:
			s.over = true
			s.got.closeCode = int32(code)
			if want != 0 && code != want {
				return s.expectation(fmt.Sprintf("close code %d", want), "the peer closed with "+closing(m.err))
			}
			return nil
		case timedOut(m.err), s.over && errors.Is(m.err, net.ErrClosed): // the library has waited long enough
			return s.expectation("a close frame", fmt.Sprintf("none came within %s", s.within))
		}
		return s.broken(m.err)
	}
}

// missed is the failure of a message that did not come.
func (s *session) missed(err error, st *step) *probe.Failure {
	what := "a message"
	switch {
	case st.expect != nil:
		what = st.expect.String()
	case len(st.GetExpectBytes()) > 0:
		what = quote(st.GetExpectBytes())
	case st.GetExpectType() != 0:
		what = st.GetExpectType().String() + " message"
	}
	if timedOut(err) && s.seen {
		return s.expectation(what, fmt.Sprintf("%s came within %s", quote(s.got.body), s.within))
	}
	if timedOut(err) {
		return s.late("message")
	}
	return s.ended(err, what)
}

// ended is the failure of a peer that closed where something was expected of it.
func (s *session) ended(err error, what string) *probe.Failure {
	if code := ws.CloseStatus(err); code > 0 {
		s.over = true
		s.got.closeCode = int32(code)
		return s.expectation(what, "the peer closed with "+closing(err))
	}
	return s.broken(err)
}

// closing is the code and reason of a close frame.
func closing(err error) string {
	var e ws.CloseError
	if !errors.As(err, &e) {
		return "no code"
	}
	if e.Reason == "" {
		return fmt.Sprintf("code %d", int(e.Code))
	}
	return fmt.Sprintf("code %d: %s", int(e.Code), quote([]byte(e.Reason)))
}

func (s *session) expectation(want, came string) *probe.Failure {
	return &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT, Expectation: want, Sentence: "expected " + want + ", and " + came}
}

func (s *session) late(what string) *probe.Failure {
	return probe.Failf(s.a, meshv1.Result_TIMEOUT, "no %s came within %s", what, s.within)
}

// broken is the failure of a connection, or of a peer that breaks the protocol.
func (s *session) broken(err error) *probe.Failure {
	var limit *limitError
	if s.flood.Load() > maxControl {
		err = &limitError{fmt.Sprintf("the peer sent more than %d pings and pongs", maxControl)}
	}
	switch {
	case errors.As(err, &limit):
		return probe.Failf(s.a, meshv1.Result_PROTOCOL, "%v", limit)
	case errors.Is(err, ws.ErrMessageTooBig):
		return probe.Failf(s.a, meshv1.Result_PROTOCOL, "a message is longer than message_limit, %d bytes", s.options.GetMessageLimit())
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return probe.Failf(s.a, meshv1.Result_CONNECTION_RESET, "the peer ended the connection without a close frame")
	}
	return probe.Classify(err, s.a)
}

func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
