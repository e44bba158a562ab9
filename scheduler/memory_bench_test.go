package scheduler

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// BenchmarkMemoryTwentyThousand is what a check costs in mind in a mesh of 20,000 checks, each run by 3 probers that have all answered.
func BenchmarkMemoryTwentyThousand(b *testing.B) {
	const checks = 20_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := newRig(b)
		events := []Event{Reset{}}
		for i := range checks {
			c := tcpCheck(fmt.Sprintf("check-%06d", i), 2)
			c.Probers = 3
			events = append(events, CheckPut{Check: c, ModRevision: int64(i + 1)})
		}
		for d := range 6 {
			name := fmt.Sprintf("dc%d-0", d)
			events = append(events, r.prober(name, fmt.Sprintf("dc%d", d)), ProberOnline{Name: name})
		}
		r.apply(events...)
		r.after(2 * time.Second)
		for _, c := range r.everyone(r.now) {
			r.s.Apply(r.now, c)
		}
		r.acted, events = nil, nil
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/checks, "B/check")
		runtime.KeepAlive(r)
	}
	b.ReportMetric(0, "ns/op")
}
