package udp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// shot is what became of one datagram.
type shot struct {
	sent      bool
	refused   bool
	trip      time.Duration // 0 without an answer
	unmatched int
	received  int64  // bytes of all answers
	answer    []byte // the one that matched, or the first that did not
	err       error  // why it could not be sent or answered, unless it is time or a refusal
}

// volley sends all datagrams at their times and waits until each is answered or refused, its patience is over, or ctx ends. The first leaves from conn.
func (r *runner) volley(ctx context.Context, a *probe.Attempt, conn net.Conn, patience time.Duration) []shot {
	count := max(1, int(r.options.GetCount()))
	if count == 1 {
		return []shot{r.shoot(ctx, a, conn, patience)}
	}
	gap := min(spec.DefaultDatagramGap, a.Timeout()/2/time.Duration(count))
	if d := r.options.GetInterval(); d != nil {
		gap = d.AsDuration()
	}
	shots := make([]shot, count)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range shots {
		wg.Go(func() {
			if i == 0 {
				shots[0] = r.shoot(ctx, a, conn, patience)
				return
			}
			if !sleep(ctx, time.Until(begin.Add(time.Duration(i)*gap))) {
				return
			}
			own, err := another(ctx, conn)
			if err != nil {
				shots[i].err = err
				return
			}
			defer own.Close()
			shots[i] = r.shoot(ctx, a, own, patience)
		})
	}
	wg.Wait()
	return shots
}

// sleep waits, and tells whether it was not disturbed.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// another is a socket like conn with another port of its own.
func another(ctx context.Context, conn net.Conn) (net.Conn, error) {
	var d net.Dialer
	if local, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		d.LocalAddr = &net.UDPAddr{IP: local.IP, Zone: local.Zone}
	}
	return d.DialContext(ctx, "udp", conn.RemoteAddr().String())
}

// shoot sends one datagram and waits for its answer.
func (r *runner) shoot(ctx context.Context, a *probe.Attempt, conn net.Conn, patience time.Duration) (s shot) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer probe.Watch(ctx, conn)()
	buffer, _ := r.buffers.Get().(*[maxDatagram]byte)
	defer r.buffers.Put(buffer)
	begin := time.Now()
	if _, err := conn.Write(r.payload); err != nil {
		s.sent = errors.Is(err, syscall.ECONNREFUSED)
		s.fail(err)
		return s
	}
	s.sent = true
	if a.Phase() == meshv1.Result_CONNECT {
		a.Enter(meshv1.Result_PROCESSING)
	}
	for {
		n, err := conn.Read(buffer[:])
		trip := time.Since(begin)
		if err != nil {
			s.fail(err)
			return s
		}
		s.received += int64(n)
		got := buffer[:min(n, maxKept)]
		if a.Phase() == meshv1.Result_PROCESSING {
			a.Enter(meshv1.Result_TRANSFER)
		}
		if r.matches(got) {
			s.trip, s.answer = max(trip, 1), bytes.Clone(got)
			return s
		}
		if s.unmatched++; s.answer == nil {
			s.answer = bytes.Clone(got)
		}
		if s.unmatched >= maxUnmatched {
			return s
		}
	}
}

// matches tells whether an answer is as the check says.
func (r *runner) matches(got []byte) bool {
	return bytes.HasPrefix(got, r.options.GetMatchBytes()) && (r.match == nil || r.match.Match(got))
}

// fail notes why there is no answer.
func (s *shot) fail(err error) {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		s.refused = true
	case errors.Is(err, os.ErrDeadlineExceeded):
	default:
		s.err = err
	}
}
