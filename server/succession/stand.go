package succession

import (
	"slices"
	"time"

	"github.com/probemesh/probemesh/server/peer"
)

const (
	// stayOut is how long a leader that resigned because it was deaf lets others go first, unless nobody takes it within untaken.
	stayOut, untaken = 10 * time.Second, 2 * time.Second
	// yield is how long a candidate waits that hears much less than another, or no other at all.
	yield = 300 * time.Millisecond
)

// MayStand decides whether a server may stand for election when nobody has led for a while. out is until when it stays out because it resigned deaf; zero for not.
// One that hears none of several others, though it reaches etcd, lets them go first: it would lead without the votes that they hear, and they have just evicted it for
// that, perhaps. A server whose disk hangs does not stand at all: it could not commit.
func MayStand(now time.Time, f Facts, vacant time.Duration, out time.Time) bool {
	switch {
	case f.Stopping || f.DiskStall >= StallAfter:
		return false
	case now.Before(out) && len(f.Peers) > 0:
		return vacant >= untaken
	}
	if len(f.Peers) > 1 && !slices.ContainsFunc(f.Peers, func(v peer.View) bool { return heard(now, v) }) {
		return vacant >= yield
	}
	if most := mostHeard(now, f); most >= deafLeast && 2*f.Hears < most {
		return vacant >= yield
	}
	return true
}
