package probe

import (
	"context"
	"sync"
	"time"
)

// bounded is the context of a probe: its caller's, and a deadline. It is what context.WithDeadline makes, but for its timer, which begins when somebody waits for the end: what reads and writes is
// bounded by the deadline of its connection, so that most probes need none. Err tells the end at once, timer or not.
type bounded struct {
	parent   context.Context //nolint:containedctx // it is a context
	deadline time.Time

	mu     sync.Mutex // guards everything below
	timed  context.Context
	cancel context.CancelFunc
	ended  bool
}

// bound gives a context that ends with parent, at a deadline, or when end is called, which has to be.
func bound(parent context.Context, deadline time.Time) *bounded {
	if before, ok := parent.Deadline(); ok && before.Before(deadline) {
		deadline = before
	}
	return &bounded{parent: parent, deadline: deadline}
}

// end ends it.
func (b *bounded) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.cancel != nil {
		b.cancel()
	}
}

// timedLocked is a context with a timer.
func (b *bounded) timedLocked() context.Context {
	if b.timed == nil {
		b.timed, b.cancel = context.WithDeadline(b.parent, b.deadline)
		if b.ended {
			b.cancel()
		}
	}
	return b.timed
}

// Deadline implements context.Context.
func (b *bounded) Deadline() (time.Time, bool) { return b.deadline, true }

// Done implements context.Context.
func (b *bounded) Done() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.timedLocked().Done()
}

// Err implements context.Context.
func (b *bounded) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timed == nil && !b.ended && b.parent.Err() == nil && time.Now().Before(b.deadline) {
		return nil
	}
	return b.timedLocked().Err()
}

// Value implements context.Context. Package context asks for what it waits by, once it waits.
func (b *bounded) Value(key any) any {
	b.mu.Lock()
	ctx := b.timed
	b.mu.Unlock()
	if ctx == nil {
		ctx = b.parent
	}
	return ctx.Value(key)
}
