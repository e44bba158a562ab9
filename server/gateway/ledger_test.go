package gateway

import (
	"math/rand/v2"
	"testing"
)

func TestLedgerAcknowledgesOnlyWhatHasNoGapBelow(t *testing.T) {
	t.Parallel()
	steps := []struct {
		name string
		do   func(*ledger)
		want uint64
	}{
		{"live results above the backlog wait", func(l *ledger) { l.settle(11, 12) }, 4},
		{"backlog from the first number on counts at once", func(l *ledger) { l.passed(5); l.settle(5, 5) }, 5},
		{"a repeat changes nothing", func(l *ledger) { l.settle(3, 5) }, 5},
		{"what backlog passes over will not come", func(l *ledger) { l.passed(9); l.settle(9, 9) }, 9},
		{"the last of the backlog joins the live ones", func(l *ledger) { l.passed(10); l.settle(10, 10) }, 12},
		{"live results go on", func(l *ledger) { l.settle(13, 20) }, 20},
	}
	l := &ledger{acked: 4}
	for _, s := range steps {
		s.do(l)
		if l.acked != s.want {
			t.Fatalf("%s: acknowledged %d, want %d (%v)", s.name, l.acked, s.want, l.islands)
		}
	}
	if len(l.islands) != 0 {
		t.Errorf("islands are left: %v", l.islands)
	}
}

// In any order of arrival, the acknowledged number is the highest without a gap below it, as a plain set says.
func TestLedgerAgreesWithASet(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		l, set := &ledger{}, map[uint64]bool{}
		for range 300 {
			lo := r.Uint64N(200) + 1
			hi := lo + r.Uint64N(4)
			l.settle(lo, hi)
			for n := lo; n <= hi; n++ {
				set[n] = true
			}
			var want uint64
			for set[want+1] {
				want++
			}
			if l.acked != want {
				t.Fatalf("seed %d: acknowledged %d, want %d", seed, l.acked, want)
			}
		}
	}
}

func TestLedgerForgetsRatherThanGrows(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	for n := uint64(2); n < 10*maxIslands; n += 2 {
		l.settle(n, n)
	}
	if len(l.islands) > maxIslands {
		t.Errorf("%d islands, want at most %d", len(l.islands), maxIslands)
	}
}
