package telemetry

import (
	"io"
	"sync"
	"time"
)

const (
	// patience is how long whoever logs waits for the writer; an ordinary write takes microseconds.
	patience = 50 * time.Millisecond
	// waiting is how many lines wait for a writer that hangs; more are dropped and counted.
	waiting = 10_000
)

// patient is a writer that never keeps its callers for long: when the writer below hangs, such as a file on a disk that does, lines wait in memory, and those beyond its
// room are dropped. When the writer goes on, they are written, with a line that says how many are missing. While nothing hangs, a line is written when Write returns, so
// that the last words of a process are not lost.
type patient struct {
	w io.Writer

	mu      sync.Mutex
	queue   [][]byte
	dropped int
	busy    chan struct{} // closed when everything is written; nil while nothing is
	hangs   bool          // somebody has waited in vain since then
	// missing is the line that says how many were dropped.
	missing func(dropped int) []byte
}

// Write implements io.Writer. It never fails: there is nobody to tell.
func (p *patient) Write(line []byte) (int, error) {
	p.mu.Lock()
	if len(p.queue) >= waiting {
		p.dropped++
		p.mu.Unlock()
		return len(line), nil
	}
	p.queue = append(p.queue, append([]byte(nil), line...))
	if p.busy == nil {
		p.busy = make(chan struct{})
		go p.drain(p.busy)
	}
	done, hangs := p.busy, p.hangs
	p.mu.Unlock()
	if hangs {
		return len(line), nil // somebody waited already
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		p.mu.Lock()
		p.hangs = p.busy == done
		p.mu.Unlock()
	}
	return len(line), nil
}

// drain writes what waits, and ends. A line is taken off the queue only when it is written.
func (p *patient) drain(done chan struct{}) {
	defer close(done)
	for {
		p.mu.Lock()
		if len(p.queue) == 0 {
			p.busy, p.hangs = nil, false
			p.mu.Unlock()
			return
		}
		line, dropped := p.queue[0], p.dropped
		p.mu.Unlock()
		_, _ = p.w.Write(line)
		p.mu.Lock()
		p.queue = p.queue[1:]
		if len(p.queue) == 0 && dropped > 0 {
			p.queue = append(p.queue, p.missing(p.dropped))
			p.dropped = 0
		}
		p.mu.Unlock()
	}
}
