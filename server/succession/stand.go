package succession

import "time"

const (
	// stayOut is how long a leader that resigned because it was deaf lets others go first, unless nobody takes it within untaken.
	stayOut, untaken = 10 * time.Second, 2 * time.Second
	// yield is how long a candidate that hears much less than another waits.
	yield = 300 * time.Millisecond
)

// MayStand decides whether a server may stand for election when nobody has led for a while. out is until when it stays out because it resigned deaf; zero for not.
// A server whose disk hangs does not stand at all: it could not commit.
func MayStand(now time.Time, f Facts, vacant time.Duration, out time.Time) bool {
	switch {
	case f.Stopping || f.DiskStall >= StallAfter:
		return false
	case now.Before(out) && len(f.Peers) > 0:
		return vacant >= untaken
	}
	if most := mostHeard(now, f); most >= deafLeast && 2*f.Hears < most {
		return vacant >= yield
	}
	return true
}
