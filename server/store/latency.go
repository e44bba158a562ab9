package store

import (
	"slices"
	"sync"
	"time"
)

const (
	// latencyKept is how many of the latest transactions are remembered.
	latencyKept = 32
	// latencyFor is for how long: a mesh that has written nothing since says nothing about etcd's speed.
	latencyFor = 5 * time.Minute
)

// latency remembers how long the latest transactions took. The zero value is ready; it may be used concurrently.
type latency struct {
	mu   sync.Mutex // guards everything below
	ring [latencyKept]struct {
		at   time.Time
		took time.Duration
	}
	next int
}

// add takes a transaction in that ended at a time, with or without success: one that timed out was slow.
func (l *latency) add(at time.Time, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring[l.next].at, l.ring[l.next].took = at, took
	l.next = (l.next + 1) % latencyKept
}

// WriteLatency is the median time of the latest transactions of this server, at most 32 of the last five minutes, and how many they were.
func (s *Store) WriteLatency(now time.Time) (median time.Duration, n int) {
	s.latency.mu.Lock()
	defer s.latency.mu.Unlock()
	var all []time.Duration
	for _, x := range s.latency.ring {
		if !x.at.IsZero() && now.Sub(x.at) <= latencyFor {
			all = append(all, x.took)
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], len(all)
}
