package gateway

// ledger knows which sequence numbers of a prober's boot are in the history, and so up to where they may be acknowledged. Live results and backlog come
// interleaved: both are in ascending order, the backlog below the live ones. The zero value has acknowledged nothing.
type ledger struct {
	// acked is the acknowledged number: it and all lower ones are settled.
	acked uint64
	// islands are settled stretches above acked, ascending and apart.
	islands []stretch
}

// stretch is the numbers from lo to hi, both included.
type stretch struct{ lo, hi uint64 }

// maxIslands bounds the memory of a ledger. A prober makes one or two; one that makes more loses the highest, which it is asked for again after a reconnect.
const maxIslands = 1024

// settle marks the numbers from lo to hi as done: in the history, or never to come.
func (l *ledger) settle(lo, hi uint64) {
	if hi < lo || hi <= l.acked {
		return
	}
	lo = max(lo, l.acked+1)
	at := 0
	for at < len(l.islands) && l.islands[at].hi+1 < lo {
		at++
	}
	end := at
	for end < len(l.islands) && l.islands[end].lo <= hi+1 {
		lo, hi = min(lo, l.islands[end].lo), max(hi, l.islands[end].hi)
		end++
	}
	l.islands = append(l.islands[:at], append([]stretch{{lo, hi}}, l.islands[end:]...)...)
	for len(l.islands) > 0 && l.islands[0].lo <= l.acked+1 {
		l.acked = max(l.acked, l.islands[0].hi)
		l.islands = l.islands[1:]
	}
	if len(l.islands) > maxIslands {
		l.islands = l.islands[:maxIslands]
	}
}

// passed marks everything below the number as done: the backlog goes up in order, so what it has passed over will not come.
func (l *ledger) passed(next uint64) {
	if next > 0 {
		l.settle(l.acked+1, next-1)
	}
}
