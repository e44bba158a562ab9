package scheduler

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// big is a mind with so many checks, each run by 5 probers of as many datacenters, all of which answer.
func big(b *testing.B, checks, datacenters int) *rig {
	r := newRig(b)
	events := []Event{Reset{}}
	for i := range checks {
		c := tcpCheck(fmt.Sprintf("check-%06d", i), 3)
		c.Probers = 5
		events = append(events, CheckPut{Check: c, ModRevision: int64(i + 1)})
	}
	var online []Event
	for d := range datacenters {
		for p := range 2 {
			name := fmt.Sprintf("dc%02d-%d", d, p)
			events = append(events, r.prober(name, fmt.Sprintf("dc%02d", d)))
			online = append(online, ProberOnline{Name: name})
		}
	}
	r.apply(append(events, online...)...)
	r.after(2 * time.Second)
	return r
}

// everyone casts a vote for every check.
func (r *rig) everyone(at time.Time) []Cast {
	var casts []Cast
	for _, n := range r.s.Names() {
		c := r.s.checks[n]
		for i := range c.votes {
			casts = append(casts, Cast{Prober: c.votes[i].Prober, Result: &meshv1.Result{
				Check: n, Outcome: ok, StartTime: timestamppb.New(at), CheckRevision: c.workHash, Duration: durationpb.New(time.Millisecond),
			}})
		}
	}
	return casts
}

// Run with -benchtime=500000x: one round of votes of 100,000 checks with 5 probers each, one Apply a vote, as the controller calls it.
func BenchmarkApplyVote(b *testing.B) {
	r := big(b, 100_000, 50)
	casts := r.everyone(r.now)
	for _, c := range casts {
		r.s.Apply(r.now, c)
	}
	r.now = r.now.Add(30 * time.Second)
	for _, c := range casts {
		c.Result.StartTime = timestamppb.New(r.now)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%len(casts) == 0 && i > 0 {
			b.StopTimer()
			r.now = r.now.Add(30 * time.Second)
			for _, c := range casts {
				c.Result.StartTime = timestamppb.New(r.now)
			}
			b.StartTimer()
		}
		r.s.Apply(r.now, casts[i%len(casts)])
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "votes/s")
}

// A second of nothing: what every server does however quiet the mesh is.
func BenchmarkIdleSecond(b *testing.B) {
	r := big(b, 100_000, 50)
	for _, c := range r.everyone(r.now) {
		r.s.Apply(r.now, c)
	}
	b.ResetTimer()
	for range b.N {
		r.now = r.now.Add(time.Microsecond)
		r.s.next = r.now
		r.s.Apply(r.now)
	}
}

// One prober comes back with another build: every check is placed anew.
func BenchmarkPlaceAnew(b *testing.B) {
	r := big(b, 100_000, 50)
	b.ResetTimer()
	for i := range b.N {
		r.now = r.now.Add(2 * time.Second)
		r.s.Apply(r.now, EnrolmentPut{&statev1.Enrolment{Name: "probers/dc07-1", Datacenter: "dc07", Build: fmt.Sprint(i), Capabilities: []string{"tcp"}}})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	for range b.N {
		big(b, 100_000, 50)
	}
}

func BenchmarkMemoryPerCheck(b *testing.B) {
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := big(b, 100_000, 50)
		for _, c := range r.everyone(r.now) {
			r.s.Apply(r.now, c)
		}
		r.acted = nil
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/100_000, "B/check")
		runtime.KeepAlive(r)
	}
}
