package store

import (
	"sync"
	"time"
)

// pending are the leader's writes that wait for etcd.
type pending struct {
	mu    sync.Mutex
	next  uint64
	since map[uint64]time.Time
}

// begin notes a write; the caller calls the function that it gets when the write has ended, however it did.
func (p *pending) begin(now time.Time) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since == nil {
		p.since = map[uint64]time.Time{}
	}
	id := p.next
	p.next++
	p.since[id] = now
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.since, id)
	}
}

// oldest is how long the oldest of them has been waiting; 0 when none is.
func (p *pending) oldest(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var longest time.Duration
	for _, t := range p.since {
		longest = max(longest, now.Sub(t))
	}
	return longest
}

// Uncommitted is how long the oldest write under a fence has been waiting for etcd to answer; 0 when none is. A write that was given up counts no more, and its
// repetition counts from its own beginning.
func (s *Store) Uncommitted() time.Duration { return s.pending.oldest(time.Now()) }
