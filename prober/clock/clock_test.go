package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

// exchange makes the sample of a prober whose clock is off by offset, over a network with the given delays.
func exchange(c *Clock, offset, there, back time.Duration) Sample {
	sent := c.Local()
	received := sent.Add(-offset + there)
	answered := received.Add(time.Millisecond)
	return Sample{Sent: sent, Received: received, Answered: answered, Returned: answered.Add(back + offset)}
}

func TestAnHourOffIsCorrected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		if c.Synced() || c.Offset() != 0 {
			t.Fatal("synced before the first sample")
		}
		offset, step := c.Observe(exchange(c, time.Hour, 5*time.Millisecond, 5*time.Millisecond))
		if !step || offset != time.Hour {
			t.Fatalf("offset %v, step %v; want 1h, true", offset, step)
		}
		if got := c.Local().Sub(c.Mesh()); got != time.Hour {
			t.Fatalf("Local - Mesh = %v; want 1h", got)
		}
	})
}

func TestTheShortestRoundTripWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		c.Observe(exchange(c, time.Second, 2*time.Millisecond, 2*time.Millisecond))
		offset, step := c.Observe(exchange(c, time.Second, 200*time.Millisecond, 2*time.Millisecond))
		if step || offset != time.Second {
			t.Fatalf("a delayed sample moved the offset to %v, step %v", offset, step)
		}
		if c.RoundTrip() != 202*time.Millisecond {
			t.Fatalf("round trip %v; want that of the last sample, 202ms", c.RoundTrip())
		}
	})
}

func TestGoodSamplesAreForgottenAfterEight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		c.Observe(exchange(c, 0, time.Millisecond, time.Millisecond))
		for range window {
			c.Observe(exchange(c, 0, 30*time.Millisecond, 10*time.Millisecond))
		}
		if c.Offset() != -10*time.Millisecond {
			t.Fatalf("offset %v; want that of the newer samples, -10ms", c.Offset())
		}
	})
}

func TestASetClockIsSeenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		for range window {
			c.Observe(exchange(c, 0, time.Millisecond, time.Millisecond))
		}
		offset, step := c.Observe(exchange(c, -time.Minute, 40*time.Millisecond, 40*time.Millisecond))
		if !step || offset != -time.Minute {
			t.Fatalf("offset %v, step %v; want -1m, true", offset, step)
		}
	})
}

func TestAnotherServersSamplesStartAfresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		c.Observe(exchange(c, time.Hour, 0, 0))
		c.Forget()
		if c.Offset() != time.Hour {
			t.Fatal("forgetting samples lost the offset")
		}
		if _, step := c.Observe(exchange(c, time.Hour, 30*time.Millisecond, 30*time.Millisecond)); step {
			t.Fatal("the first sample of a new server counts as a step")
		}
	})
}
