package store

import (
	"context"
	"time"
)

// backoff is a pause that doubles from first to most. It has no jitter: a handful of servers, not thousands of clients, come back at once.
type backoff struct {
	first, most time.Duration
	next        time.Duration
}

func (b *backoff) reset() { b.next = 0 }

// sleep pauses; it is false when ctx ended meanwhile.
func (b *backoff) sleep(ctx context.Context) bool {
	if b.next = min(b.next*2, b.most); b.next < b.first {
		b.next = b.first
	}
	t := time.NewTimer(b.next)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
