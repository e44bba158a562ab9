package collector

import (
	"math"
	"time"
)

const (
	roomyLeast = 100      // percent: Go's default
	roomyMost  = 400      // percent
	roomySmall = 64 << 20 // bytes that are looked at up to which the default stays
	roomyRoom  = 1 << 30  // bytes that garbage may have at most, where the default would not give more
)

// Roomy gives a process that holds more than 64 MB more room than the default of 100 %: it grows to 400 % at 256 MB, and falls again where that would be more than a gigabyte.
func Roomy(getenv func(string) string) (restore func()) {
	return keep(getenv, policy{least: roomyLeast, look: time.Second, target: roomy})
}

func roomy(l load) int {
	alive := float64(l.live + l.roots)
	if alive <= roomySmall {
		return roomyLeast
	}
	percent := min(roomyMost, roomyLeast*alive/roomySmall, 100*roomyRoom/alive)
	return max(roomyLeast, int(math.Round(percent)))
}
