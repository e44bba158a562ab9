package store

import (
	"fmt"
	"sync"
	"time"
)

const (
	// repeatPause is how long the same message is left out after it was written, at first; maxRepeatPause the longest.
	repeatPause    = time.Minute
	maxRepeatPause = time.Hour
	// maxRepeats is how many messages are remembered; etcd's are constants, so there are some dozens, times its members.
	maxRepeats = 512
)

// repeats decides which messages are written. It may be used concurrently.
type repeats struct {
	mu   sync.Mutex
	seen map[string]*repeated
}

type repeated struct {
	written, last time.Time
	pause         time.Duration
	leftOut       int
}

func newRepeats() *repeats { return &repeats{seen: map[string]*repeated{}} }

// pass tells whether a message is to be written now, and how many were left out since it was last. One that has not come for two pauses begins anew.
func (r *repeats) pass(now time.Time, message string) (ok bool, leftOut int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.seen[message]
	if m == nil || now.Sub(m.last) > 2*m.pause {
		if m != nil {
			leftOut = m.leftOut
		} else if len(r.seen) >= maxRepeats {
			clear(r.seen)
		}
		r.seen[message] = &repeated{written: now, last: now, pause: repeatPause}
		return true, leftOut
	}
	m.last = now
	if now.Sub(m.written) < m.pause {
		m.leftOut++
		return false, 0
	}
	leftOut, m.leftOut = m.leftOut, 0
	m.written, m.pause = now, min(2*m.pause, maxRepeatPause)
	return true, leftOut
}

// peerOf names the other member that an entry is about, so that the same said of two members is not taken for a repetition.
func peerOf(fields map[string]any) string {
	for _, key := range []string{"remote-peer-id", "remote-member-id", "peer-id"} {
		if v, ok := fields[key]; ok {
			return fmt.Sprint(" ", v)
		}
	}
	return ""
}
