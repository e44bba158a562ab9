package probe

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// endings are the ways in which a context may end, and what it says then.
func endings() map[string]struct {
	end  func(b *bounded, cancel context.CancelCauseFunc)
	says error
} {
	return map[string]struct {
		end  func(b *bounded, cancel context.CancelCauseFunc)
		says error
	}{
		"deadline": {func(*bounded, context.CancelCauseFunc) { time.Sleep(time.Second) }, context.DeadlineExceeded},
		"caller":   {func(_ *bounded, cancel context.CancelCauseFunc) { cancel(nil) }, context.Canceled},
		"end":      {func(b *bounded, _ context.CancelCauseFunc) { b.end() }, context.Canceled},
	}
}

func TestABoundedContextEndsAsOneWithADeadlineDoes(t *testing.T) {
	for name, c := range endings() {
		for _, waits := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				b := bound(parent, time.Now().Add(time.Second))
				defer b.end()
				if err := b.Err(); err != nil {
					t.Fatalf("%s: ended before: %v", name, err)
				}
				called := make(chan struct{})
				if waits {
					<-time.After(time.Millisecond)
					select {
					case <-b.Done():
						t.Fatalf("%s: done before", name)
					default:
					}
					context.AfterFunc(b, func() { close(called) })
				}
				c.end(b, cancel)
				synctest.Wait()
				if !errors.Is(b.Err(), c.says) {
					t.Errorf("%s, waits %t: it says %v; want %v", name, waits, b.Err(), c.says)
				}
				<-b.Done()
				if waits {
					<-called
				}
				if !errors.Is(b.Err(), c.says) || !errors.Is(context.Cause(b), c.says) {
					t.Errorf("%s, waits %t: then it says %v, because of %v", name, waits, b.Err(), context.Cause(b))
				}
			})
		}
	}
}

func TestABoundedContextTakesItsCallersDeadlineWhenThatIsEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b := bound(parent, time.Now().Add(time.Minute))
		defer b.end()
		child, stop := context.WithCancel(b)
		defer stop()
		if at, _ := b.Deadline(); !at.Equal(time.Now().Add(time.Second)) {
			t.Errorf("deadline %v", at)
		}
		<-child.Done()
		if !errors.Is(child.Err(), context.DeadlineExceeded) || !errors.Is(b.Err(), context.DeadlineExceeded) {
			t.Errorf("the child says %v, it says %v", child.Err(), b.Err())
		}
	})
}
