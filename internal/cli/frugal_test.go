package cli

import (
	"runtime/debug"
	"testing"
)

func TestACollectorGetsRoomByTheGarbageThatIsMade(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name        string
		live, roots uint64
		rate        float64 // bytes a second
		want        int
	}{
		{"a prober at rest", 20 * mb, mb, 0.1 * mb, gcLeast},
		{"many checks and little garbage", 30 * mb, 2 * mb, 3 * mb, gcLeast},
		{"few checks and much garbage: two seconds' worth", 7 * mb, mb, 4 * mb, 100},
		{"no more than 32 MB for few checks", 7 * mb, mb, 400 * mb, 400},
		{"no more than is alive for many", 98 * mb, 2 * mb, 400 * mb, 100},
		{"an empty heap counts as 4 MB", 0, 0, mb, 50},
	} {
		if got := gcTarget(c.live, c.roots, c.rate); got != c.want {
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
	restore := frugal(func(string) string { return "200" })
	if got := now(); got != 77 {
		t.Errorf("with GOGC the target is %d", got)
	}
	restore()
	restore = frugal(func(string) string { return "" })
	if got := now(); got != gcLeast {
		t.Errorf("without GOGC the target is %d", got)
	}
	restore()
	if got := now(); got != 77 {
		t.Errorf("afterwards the target is %d", got)
	}
}
