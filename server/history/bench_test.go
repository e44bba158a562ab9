package history

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// BenchmarkAppend appends batches of 500 results of 5,000 pairs of check and prober, each in its turn as a mesh would. Run it with -cpu 1.
func BenchmarkAppend(b *testing.B) {
	for _, kind := range []string{"tcp", "http", "https"} {
		b.Run(kind, func(b *testing.B) {
			const pairs, batch = 5000, 500
			h := openTest(b, Config{Dir: b.TempDir()}, Dependencies{})
			start := now().Add(-90 * time.Minute)
			entries := make([]Entry, pairs)
			for i := range entries {
				e := httpOK(fmt.Sprintf("p-%d", i%50), start, 20*time.Millisecond)
				e.Result.Check = fmt.Sprintf("checks/c-%d", i/50)
				e.URI = kind + "://shop.example.com/"
				if kind != "https" {
					e.Result.Tls = nil
				}
				entries[i] = e
			}
			round := 0
			results, samples := 0, 0
			for _, e := range entries[:batch] {
				samples += len(samplesOf(e.Result, e.URI, nil))
			}
			for b.Loop() {
				first := results % pairs
				if first == 0 {
					round++
				}
				at := timestamppb.New(start.Add(time.Duration(round) * time.Second))
				for i := first; i < first+batch; i++ {
					entries[i].Result.StartTime = at
				}
				if err := h.Append(b.Context(), entries[first:first+batch]); err != nil {
					b.Fatal(err)
				}
				results += batch
			}
			perSecond := float64(results) / b.Elapsed().Seconds()
			b.ReportMetric(perSecond, "results/s")
			b.ReportMetric(perSecond*float64(samples)/batch, "samples/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
