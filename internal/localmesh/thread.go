package localmesh

import (
	"runtime"
	"sync"
)

// thread is the one thread of this process that starts members: Linux sends a parent-death signal when the thread that started a process ends, and Go ends
// threads when it likes.
type thread struct {
	work    chan func()
	once    sync.Once
	stopped chan struct{}
}

func newThread() *thread {
	t := &thread{work: make(chan func()), stopped: make(chan struct{})}
	go func() {
		defer close(t.stopped)
		runtime.LockOSThread()
		for f := range t.work {
			f()
		}
	}()
	return t
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func() error) error {
	result := make(chan error, 1)
	t.work <- func() { result <- f() }
	return <-result
}

// stop ends the thread. Nothing may be started after it.
func (t *thread) stop() {
	t.once.Do(func() { close(t.work) })
	<-t.stopped
}
