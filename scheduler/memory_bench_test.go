package scheduler

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// BenchmarkMemoryTwentyThousand is what a check costs in mind in a mesh of 20,000 checks, each run by 3 probers that have all answered.
func BenchmarkMemoryTwentyThousand(b *testing.B) { benchmarkMemory(b, func(*meshv1.Result) {}) }

// BenchmarkMemoryTwentyThousandAliasesOverTLS is the same where every host is an alias and shows certificates of two issuers, whose texts results share as the controller makes them.
func BenchmarkMemoryTwentyThousandAliasesOverTLS(b *testing.B) {
	benchmarkMemory(b, func(r *meshv1.Result) {
		r.CanonicalNames = []string{"edge.cdn.example", "pop.cdn.example"}
		r.Tls = &meshv1.TlsResult{Issuers: []string{"CN=R11,O=Let's Encrypt,C=US", "CN=ISRG Root X1,O=Internet Security Research Group,C=US"}}
	})
}

// BenchmarkMemoryTwentyThousandOverTLS is what it is compared with.
func BenchmarkMemoryTwentyThousandOverTLS(b *testing.B) {
	benchmarkMemory(b, func(r *meshv1.Result) { r.Tls = &meshv1.TlsResult{} })
}

func benchmarkMemory(b *testing.B, tells func(*meshv1.Result)) {
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
			tells(c.Result)
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
