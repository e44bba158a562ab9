package meshtest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// buffered is how many bytes a direction takes while nobody reads, as the buffers of two sockets do.
const buffered = 256 << 10

var (
	errRefused = errors.New("connect: connection refused")
	errNoRoute = errors.New("connect: no route to host")
	errReset   = errors.New("connection reset by peer")
)

// half is one direction of a connection.
type half struct {
	road *road

	mu       sync.Mutex
	cond     *sync.Cond
	chunks   []chunk
	held     int
	shut     bool // the writer closed it: what was written before still arrives
	gone     bool // the reader closed it
	broken   bool // the connection was reset
	deadline time.Time
	alarm    *time.Timer // wakes the reader when its head, or its deadline, is due
	due      time.Time
}

type chunk struct {
	data []byte
	at   time.Time
}

func newHalf(r *road) *half {
	h := &half{road: r}
	h.cond = sync.NewCond(&h.mu)
	return h
}

func (h *half) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cond.Broadcast()
}

// wakeAtLocked has the reader look again at a time.
func (h *half) wakeAtLocked(at time.Time) {
	if h.alarm != nil && h.due.Equal(at) {
		return
	}
	if h.alarm != nil {
		h.alarm.Stop()
	}
	h.due = at
	h.alarm = time.AfterFunc(time.Until(at), func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.due = time.Time{}
		h.cond.Broadcast()
	})
}

func (h *half) read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		now := time.Now()
		stalled := h.road.isStalled()
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.broken:
			return 0, errReset
		case !stalled && len(h.chunks) > 0 && !h.chunks[0].at.After(now):
			return h.takeLocked(b, now), nil
		case !stalled && h.shut && len(h.chunks) == 0:
			return 0, io.EOF
		case !h.deadline.IsZero() && !now.Before(h.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		at := h.deadline
		if !stalled && len(h.chunks) > 0 && (at.IsZero() || h.chunks[0].at.Before(at)) {
			at = h.chunks[0].at
		}
		if !at.IsZero() {
			h.wakeAtLocked(at)
		}
		h.cond.Wait()
	}
}

func (h *half) takeLocked(b []byte, now time.Time) int {
	n := 0
	for n < len(b) && len(h.chunks) > 0 && !h.chunks[0].at.After(now) {
		m := copy(b[n:], h.chunks[0].data)
		n += m
		if h.chunks[0].data = h.chunks[0].data[m:]; len(h.chunks[0].data) == 0 {
			h.chunks = h.chunks[1:]
		}
	}
	h.held -= n
	h.cond.Broadcast()
	return n
}

func (h *half) write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.held >= buffered && !h.shut && !h.gone && !h.broken {
		h.cond.Wait()
	}
	switch {
	case h.shut:
		return 0, net.ErrClosed
	case h.gone || h.broken:
		return 0, errReset
	}
	at := time.Now().Add(h.road.lag())
	if n := len(h.chunks); n > 0 && h.chunks[n-1].at.After(at) {
		at = h.chunks[n-1].at // a way that becomes faster does not change the order
	}
	h.chunks = append(h.chunks, chunk{append([]byte(nil), b...), at})
	h.held += len(b)
	h.cond.Broadcast()
	return len(b), nil
}

// end marks the half; how is run with its mutex held.
func (h *half) end(how func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	how()
	if h.gone || h.broken {
		h.chunks, h.held = nil, 0
	}
	if h.alarm != nil && (h.gone || h.broken) {
		h.alarm.Stop()
	}
	h.cond.Broadcast()
}

// conn is one end of a connection.
type conn struct {
	in, out       *half
	local, remote place
}

type place string

func (place) Network() string  { return "tcp" }
func (a place) String() string { return string(a) }

func (c *conn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// Close sends what was written, and then the end.
func (c *conn) Close() error {
	c.in.end(func() { c.in.gone = true })
	c.out.end(func() { c.out.shut = true })
	c.in.road.forget(c.in)
	return nil
}

func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline has Read end at a time; zero: never.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.deadline = t
	c.in.cond.Broadcast()
	return nil
}

// SetWriteDeadline does nothing: a write waits only for a reader that lives, or for the end of its connection.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// listener takes connections for a process.
type listener struct {
	node, at string
	queue    chan net.Conn
	done     chan struct{}
	once     sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return place(l.at) }

// offer hands a connection over; false when nobody listens any more.
func (l *listener) offer(ctx context.Context, c net.Conn) bool {
	select {
	case l.queue <- c:
		return true
	case <-l.done:
		return false
	case <-ctx.Done():
		return false
	}
}
