package api

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// lagLimit is how long a watcher may leave a message unread before its watch ends. What changes meanwhile is merged, so it costs no memory; but a
// watcher that is shown nothing for so long should know that it sees the past.
const lagLimit = 10 * time.Second

// serveWatch serves one watch. body makes the messages and ends only with an error; the context it gets ends with the stream and with the server,
// and send fails then too.
//
// gRPC offers no way to give up a Send that is blocked by a client which does not read, except to end the stream, and only the handler can end it
// by returning. So a goroutine of its own sends, and the handler leaves it behind when it is stuck; it ends as soon as the stream has ended.
func serveWatch[M any](a *API, stream grpc.ServerStreamingServer[M], body func(ctx context.Context, send func(*M) error) error) error {
	if !a.watches.enter() {
		return shuttingDown()
	}
	defer a.watches.running.Done()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	s := &sender[M]{done: ctx.Done(), queue: make(chan *M), failed: make(chan error, 1)}
	a.watches.running.Go(func() { s.run(stream) })
	a.watches.running.Go(func() {
		select {
		case <-a.watches.stopping:
			cancel()
		case <-ctx.Done():
		}
	})
	err := body(ctx, s.send)
	select {
	case <-a.watches.stopping:
		if _, ok := fault.From(err); !ok {
			return shuttingDown()
		}
	default:
	}
	return err
}

// sender hands messages to the goroutine that sends them.
type sender[M any] struct {
	done   <-chan struct{} // closed when the watch ends
	queue  chan *M
	failed chan error
}

// run sends what is queued until the watch ends.
func (s *sender[M]) run(stream grpc.ServerStreamingServer[M]) {
	for {
		select {
		case m := <-s.queue:
			if err := stream.Send(m); err != nil {
				s.failed <- err
				return
			}
		case <-s.done:
			return
		}
	}
}

// send hands a message over, which waits for the one before to be on its way: at most lagLimit.
func (s *sender[M]) send(m *M) error {
	timer := time.NewTimer(lagLimit)
	defer timer.Stop()
	select {
	case s.queue <- m:
		return nil
	case err := <-s.failed:
		return err
	case <-s.done:
		return context.Canceled
	case <-timer.C:
		return fault.New(codes.DataLoss, meshv1.ErrorReason_WATCH_LAGGED, "",
			"the watcher left a message unread for %s and missed changes; watch again, and read faster or filter more", lagLimit)
	}
}

func shuttingDown() error {
	return fault.New(codes.Unavailable, meshv1.ErrorReason_SHUTTING_DOWN, "", "the server is stopping; watch at another server, or try again").Retry(time.Second)
}
