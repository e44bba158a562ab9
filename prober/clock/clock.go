// Package clock owns a prober's estimate of the mesh's clock: how far its own clock is off, from the four timestamps of each pong.
//
// Two readings exist. [Clock.Local] is the prober's clock: the wall clock read once when the process started, plus the monotonic time since, so that
// somebody who sets the machine's clock moves nothing. [Clock.Mesh] is Local minus the offset; every timestamp that leaves the prober and every place in
// the timetable is on it.
//
// The offset is that of the sample with the shortest round trip among the last eight, as NTP's clock filter does (RFC 5905, section 10): a delayed packet
// makes its sample worse, never better. A sample that contradicts the held offset, given that each is wrong by at most half its round trip, means that one
// of the clocks was set or stood still: the older samples are forgotten at once.
package clock

import (
	"sync"
	"time"
)

// window is how many samples compete for the shortest round trip; at one ping a second, eight seconds.
const window = 8

// slack is added to half the round trips before two samples contradict each other: timestamps are taken by busy processes.
const slack = 20 * time.Millisecond

// Sample is one exchange of four timestamps.
type Sample struct {
	// Sent is T1, the prober's clock when it asked.
	Sent time.Time
	// Received is T2, the server's clock when the question came.
	Received time.Time
	// Answered is T3, the server's clock when it answered.
	Answered time.Time
	// Returned is T4, the prober's clock when the answer came.
	Returned time.Time
}

// Offset is the prober's clock minus the mesh's, by this sample alone.
func (s Sample) Offset() time.Duration {
	return -(s.Received.Sub(s.Sent) + s.Answered.Sub(s.Returned)) / 2
}

// RoundTrip is the time on the network; never negative.
func (s Sample) RoundTrip() time.Duration {
	return max(0, s.Returned.Sub(s.Sent)-s.Answered.Sub(s.Received))
}

type estimate struct{ offset, roundTrip time.Duration }

// Clock is the estimate. It is safe for concurrent use. The zero value is not usable; see [New].
type Clock struct {
	start time.Time // with its monotonic reading

	mu      sync.RWMutex // guards everything below
	samples [window]estimate
	held    int // samples in use
	next    int
	offset  time.Duration
	last    time.Duration
	synced  bool
}

// New returns a clock that believes itself right until the first sample.
func New() *Clock { return &Clock{start: time.Now()} }

// Local is the prober's own clock.
func (c *Clock) Local() time.Time { return c.start.Add(time.Since(c.start)) }

// Mesh is the prober's clock corrected by the offset.
func (c *Clock) Mesh() time.Time { return c.Local().Add(-c.Offset()) }

// Offset is the prober's clock minus the mesh's; 0 before the first sample.
func (c *Clock) Offset() time.Duration {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.offset
}

// RoundTrip is that of the last sample.
func (c *Clock) RoundTrip() time.Duration {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.last
}

// Synced tells whether there has been a sample.
func (c *Clock) Synced() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.synced
}

// Observe takes a sample in. It returns the new offset, and whether it is a step: the first one, or one that contradicts what was held.
func (c *Clock) Observe(s Sample) (offset time.Duration, step bool) {
	e := estimate{offset: s.Offset(), roundTrip: s.RoundTrip()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = e.roundTrip
	if c.held > 0 {
		b := c.best()
		if (e.offset - b.offset).Abs() > (e.roundTrip+b.roundTrip)/2+slack {
			c.held, c.next = 0, 0
			step = true
		}
	} else {
		step = !c.synced
	}
	c.samples[c.next] = e
	c.next = (c.next + 1) % window
	c.held = min(c.held+1, window)
	c.offset, c.synced = c.best().offset, true
	return c.offset, step
}

// Forget drops the samples but not the offset: another server's clock is about to be asked, and its samples shall not compete with these.
func (c *Clock) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.next = 0, 0
}

// best is the sample with the shortest round trip, the newest of equals. Called with mu held and at least one sample.
func (c *Clock) best() estimate {
	var b estimate
	for i := range c.held {
		e := c.samples[(c.next-1-i+2*window)%window]
		if i == 0 || e.roundTrip < b.roundTrip {
			b = e
		}
	}
	return b
}
