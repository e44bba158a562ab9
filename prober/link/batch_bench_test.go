package link

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// httpBatch is a message of 100 results as probes of kind http over TLS give them; every twentieth is a failure with evidence.
func httpBatch() *meshv1.ProberMessage {
	begin := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	results := make([]*meshv1.Result, 100)
	for i := range results {
		took := 40*time.Millisecond + time.Duration(i)*137*time.Microsecond
		r := &meshv1.Result{
			Check: fmt.Sprintf("checks/shop-%05d", i), Sequence: uint64(1_000_000 + i), CheckRevision: 123456, Outcome: meshv1.Result_OK,
			StartTime: timestamppb.New(begin.Add(time.Duration(i) * 9876543 * time.Nanosecond)), Duration: durationpb.New(took), Lag: durationpb.New(4321 * time.Microsecond),
			RemoteAddress: fmt.Sprintf("192.0.2.%d:443", i),
			Timings: &meshv1.Timings{Resolve: durationpb.New(took / 10), Connect: durationpb.New(took / 5), Handshake: durationpb.New(took / 3),
				Processing: durationpb.New(took / 4), Transfer: durationpb.New(took / 20)},
			Http: &meshv1.HttpResult{Status: 200, Version: "2", BodyBytes: 12345, ContentLength: 12345},
			Tls:  &meshv1.TlsResult{Version: "1.3", ChainExpiry: timestamppb.New(begin.AddDate(0, 2, 0))},
		}
		if i%20 == 0 {
			r.Outcome, r.ErrorClass, r.FailedPhase = meshv1.Result_FAIL, meshv1.Result_EXPECTATION, meshv1.Result_EXPECT
			r.Error = "status 503 Service Unavailable; without expectations it must be 200 to 299"
			r.Http.Status = 503
			r.Evidence = &meshv1.Evidence{StatusLine: "HTTP/2.0 503 Service Unavailable", Body: make([]byte, 500),
				Headers: []*meshv1.Header{{Name: "Content-Type", Value: "text/html"}, {Name: "Server", Value: "nginx"}, {Name: "Retry-After", Value: "30"}}}
		}
		results[i] = r
	}
	return batch(meshv1.ResultBatch_LIVE, results)
}

// BenchmarkBatch encodes and decodes messages of 100 realistic results. Run it with -cpu 1.
func BenchmarkBatch(b *testing.B) {
	m := httpBatch()
	wire, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	const results = 100
	report := func(b *testing.B) {
		b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/results, "ns/result")
		b.ReportMetric(float64(len(wire))/results, "bytes/result")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		buffer := make([]byte, 0, len(wire))
		for b.Loop() {
			if _, err := (proto.MarshalOptions{}).MarshalAppend(buffer, m); err != nil {
				b.Fatal(err)
			}
		}
		report(b)
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var got meshv1.ProberMessage
			if err := proto.Unmarshal(wire, &got); err != nil {
				b.Fatal(err)
			}
		}
		report(b)
	})
}
