package dialogue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// pause is how long a peer must be silent before a pattern is tried again on text that has grown by less than an eighth.
	pause = 20 * time.Millisecond
	// always is up to how many bytes a pattern is tried whenever anything comes.
	always = 1 << 10
	// firstRead and mostRead are how much one read may bring. Most answers are short.
	firstRead = 512
	mostRead  = 16 << 10
	// datagram is the largest UDP payload.
	datagram = 65_507
)

// LimitError is the end of reading at the limit.
type LimitError struct{ Limit int }

// Error says how many bytes may be read.
func (e *LimitError) Error() string {
	return fmt.Sprintf("the peer sent more than the %d bytes that may be read", e.Limit)
}

func atLimit(err error) bool {
	var limit *LimitError
	return errors.As(err, &limit)
}

// Reader reads from a connection into memory, within a limit. It belongs to one goroutine.
type Reader struct {
	// Conn is read from.
	Conn net.Conn
	// Limit is how many bytes are read at most.
	Limit int
	// Bytes are what was read.
	Bytes []byte

	deadline time.Time
	reads    int
	quiet    bool // nothing has come since the phase PROCESSING was entered
}

// Await enters phase PROCESSING: the next byte that comes is the first of an answer.
func (r *Reader) Await(a *probe.Attempt) {
	a.Enter(meshv1.Result_PROCESSING)
	r.quiet = true
}

// more reads once, until the deadline or the end of ctx. It returns nil when anything came, and else why not.
func (r *Reader) more(ctx context.Context, a *probe.Attempt, deadline time.Time) error {
	room := r.Limit - len(r.Bytes)
	if room <= 0 {
		return &LimitError{r.Limit}
	}
	if !deadline.Equal(r.deadline) {
		_ = r.Conn.SetReadDeadline(deadline)
		r.deadline = deadline
	}
	// A cancelled probe.Watch sets a deadline too, which must not be overwritten unseen.
	if err := ctx.Err(); err != nil {
		return err
	}
	r.grow(min(room, min(mostRead, max(firstRead, len(r.Bytes)))))
	n, err := r.Conn.Read(r.Bytes[len(r.Bytes):min(cap(r.Bytes), r.Limit)])
	if err == nil {
		r.reads++
	}
	if n > 0 {
		if r.quiet {
			a.Enter(meshv1.Result_TRANSFER)
			r.quiet = false
		}
		r.Bytes = r.Bytes[:len(r.Bytes)+n]
		return nil
	}
	if err == nil {
		return nil // the caller comes again
	}
	return err
}

// packet reads one datagram, which may be empty, and is cut at the limit.
func (r *Reader) packet(ctx context.Context, a *probe.Attempt, deadline time.Time) ([]byte, error) {
	begin := len(r.Bytes)
	r.grow(min(datagram, r.Limit-begin))
	if err := r.more(ctx, a, deadline); err != nil {
		return nil, err
	}
	return r.Bytes[begin:], nil
}

// grow makes room for n bytes more.
func (r *Reader) grow(n int) {
	if cap(r.Bytes)-len(r.Bytes) >= n {
		return
	}
	bigger := make([]byte, len(r.Bytes), max(len(r.Bytes)+n, min(2*cap(r.Bytes), r.Limit)))
	copy(bigger, r.Bytes)
	r.Bytes = bigger
}

// Until reads until try, which sees the bytes from begin on, says that it has enough, and returns nil then. try is called again as more comes; for the last time when nothing more will come, and
// the error is why nothing will.
func (r *Reader) Until(ctx context.Context, a *probe.Attempt, deadline time.Time, begin int, try func(text []byte) bool) error {
	tried, idle := 0, false
	var end error
	for {
		text := r.Bytes[begin:]
		if len(text) > tried && (len(text) <= always || len(text) >= tried+tried/8 || idle || end != nil) {
			if try(text) {
				return nil
			}
			tried, idle = len(text), false
		}
		if end != nil {
			return end
		}
		until, waiting := deadline, len(text) > tried
		if waiting {
			if soon := time.Now().Add(pause); soon.Before(until) {
				until = soon
			}
		}
		err := r.more(ctx, a, until)
		switch {
		case err == nil:
		case waiting && isTimeout(err) && ctx.Err() == nil && until.Before(deadline):
			idle = true
		case waiting:
			end = err
		default:
			return err
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
