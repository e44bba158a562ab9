package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/probemesh/probemesh/server/history"
)

// fakeHistory counts how often each result was taken.
type fakeHistory struct {
	mu      sync.Mutex
	taken   map[string]int
	stalled chan struct{}
	failing bool
}

func (f *fakeHistory) Append(_ context.Context, entries []history.Entry) error {
	f.mu.Lock()
	stalled, failing := f.stalled, f.failing
	f.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	if failing {
		return errors.New("the disk is full")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range entries {
		f.taken[fmt.Sprint(e.Prober, " ", e.Result.GetCheck(), " ", e.Result.GetSequence(), " ", e.Datacenter, " ", e.URI)]++
	}
	return nil
}

func (f *fakeHistory) stall() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stalled = make(chan struct{})
}

func (f *fakeHistory) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stalled != nil {
		close(f.stalled)
		f.stalled = nil
	}
}

func (f *fakeHistory) fail(failing bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing = failing
}

// has counts the results of a prober from and to that were taken, and how many of them more than once.
func (f *fakeHistory) has(prober string, from, to int) (n, twice int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := from; i <= to; i++ {
		switch c := f.taken[fmt.Sprint(prober, " checks/c ", i, " dc https://x")]; {
		case c > 1:
			n++
			twice++
		case c == 1:
			n++
		}
	}
	return n, twice
}

// full waits until a history has the results, and fails after a bubble's minute.
func (h *host) full(prober string, from, to int) (twice int) {
	h.w.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		n, twice := h.history.has(prober, from, to)
		if n == to-from+1 {
			return twice
		}
		if time.Now().After(end) {
			h.w.t.Fatalf("%s has %d of the %d results of %s", h.name, n, to-from+1, prober)
		}
	}
}
