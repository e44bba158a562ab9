package collector

import (
	"runtime/debug"
	"testing"
)

func TestAServerThatHoldsMuchIsGivenRoom(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name  string
		alive uint64
		want  int
	}{
		{"nothing", 0, 100},
		{"an ordinary server", 40 * mb, 100},
		{"at the limit", 64 * mb, 100},
		{"twice as much", 128 * mb, 200},
		{"thousands of sessions", 256 * mb, 400},
		{"ten thousand: no more than a gigabyte for garbage", 420 * mb, 244},
		{"a giant keeps the default", 4096 * mb, 100},
	} {
		if got := target(c.alive); got != c.want {
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
	restore := Roomy(func(string) string { return "200" })
	if got := now(); got != 77 {
		t.Errorf("with GOGC the target is %d", got)
	}
	restore()
	restore = Roomy(func(string) string { return "" })
	if got := now(); got != usual {
		t.Errorf("without GOGC the target is %d", got)
	}
	restore()
	if got := now(); got != 77 {
		t.Errorf("afterwards the target is %d", got)
	}
}
