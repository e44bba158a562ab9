package collector

import (
	"runtime/debug"
	"testing"
)

const mb = 1 << 20

func TestAProberGetsRoomByTheGarbageThatItMakes(t *testing.T) {
	for _, c := range []struct {
		name string
		load load
		want int
	}{
		{"at rest", load{20 * mb, mb, 0.1 * mb}, frugalLeast},
		{"many checks and little garbage", load{30 * mb, 2 * mb, 3 * mb}, frugalLeast},
		{"few checks and much garbage: two seconds' worth", load{7 * mb, mb, 4 * mb}, 100},
		{"no more than 64 MB for few checks", load{7 * mb, mb, 400 * mb}, 800},
		{"no more than twice what is alive for many", load{98 * mb, 2 * mb, 400 * mb}, 200},
		{"an empty heap counts as 4 MB", load{0, 0, mb}, 50},
	} {
		if got := frugal(c.load); got != c.want {
			t.Errorf("%s: %d %%, want %d %%", c.name, got, c.want)
		}
	}
}

func TestAServerThatHoldsMuchIsGivenRoom(t *testing.T) {
	for _, c := range []struct {
		name string
		load load
		want int
	}{
		{"nothing", load{}, 100},
		{"an ordinary server", load{live: 36 * mb, roots: 4 * mb}, 100},
		{"at the limit", load{live: 60 * mb, roots: 4 * mb}, 100},
		{"twice as much", load{live: 108 * mb, roots: 20 * mb}, 200},
		{"thousands of sessions", load{live: 200 * mb, roots: 56 * mb}, 400},
		{"ten thousand: no more than a gigabyte for garbage", load{live: 340 * mb, roots: 80 * mb}, 244},
		{"a giant keeps the default", load{live: 4096 * mb}, 100},
	} {
		if got := roomy(c.load); got != c.want {
			t.Errorf("%s: %d %%, want %d %%", c.name, got, c.want)
		}
	}
}

func TestAnOperatorsOwnTargetIsKept(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	now := func() int {
		p := debug.SetGCPercent(1)
		debug.SetGCPercent(p)
		return p
	}
	for _, c := range []struct {
		name  string
		start func(func(string) string) func()
		least int
	}{{"Frugal", Frugal, frugalLeast}, {"Roomy", Roomy, roomyLeast}} {
		restore := c.start(func(string) string { return "200" })
		if got := now(); got != 77 {
			t.Errorf("%s: with GOGC the target is %d", c.name, got)
		}
		restore()
		restore = c.start(func(string) string { return "" })
		if got := now(); got != c.least {
			t.Errorf("%s: without GOGC the target is %d", c.name, got)
		}
		restore()
		if got := now(); got != 77 {
			t.Errorf("%s: afterwards the target is %d", c.name, got)
		}
	}
}
