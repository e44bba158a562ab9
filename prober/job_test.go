package prober

import (
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// answers teaches the job good probes that take so long, and tells how many of them were called late.
func answers(j *job, n int, takes func(i int) time.Duration) (late int) {
	for i := range n {
		d := takes(i)
		if after := j.slowAfter(); after > 0 && d > after {
			late++
		}
		j.learn(&meshv1.Result{Outcome: meshv1.Result_OK, Duration: durationpb.New(d)}, []byte("r"), false)
	}
	return late
}

func steady(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

func TestTargetsAreNotCalledLateAtTheirUsualSpeed(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	uniform := func(from, to time.Duration) func(int) time.Duration {
		return func(int) time.Duration { return from + time.Duration(rng.Int64N(int64(to-from))) }
	}
	for _, c := range []struct {
		name  string
		takes func(int) time.Duration
		most  int // of a thousand
	}{
		{"a third", steady(time.Second), 0},
		{"just above a third", steady(1100 * time.Millisecond), usualWeight},
		{"half", steady(1500 * time.Millisecond), usualWeight},
		{"nearly all", steady(2900 * time.Millisecond), usualWeight},
		{"about a third, by chance", uniform(600*time.Millisecond, 1600*time.Millisecond), usualWeight + 5},
		{"half, by chance", uniform(time.Second, 2*time.Second), usualWeight},
		{"fast or slow in turn", func(i int) time.Duration { return 300*time.Millisecond + time.Duration(i%2)*1200*time.Millisecond }, usualWeight},
	} {
		if late := answers(&job{timeout: 3 * time.Second}, 1000, c.takes); late > c.most {
			t.Errorf("%s of the timeout: %d of 1000 good probes were called late; want at most %d", c.name, late, c.most)
		}
	}
	j := &job{timeout: 3 * time.Second}
	answers(j, 100, steady(50*time.Millisecond))
	if late := answers(j, 1000, steady(1500*time.Millisecond)); late > 5 {
		t.Errorf("a fast target that became slow for good was called late %d times; want at most 5", late)
	}
}

func TestAHangIsCalledLateAsSoonAsItsUsualSpeedAllows(t *testing.T) {
	const timeout = 3 * time.Second
	for _, c := range []struct {
		name  string
		n     int
		takes func(int) time.Duration
		want  time.Duration
	}{
		{"new", 0, nil, timeout / 3},
		{"fast", 1, steady(10 * time.Millisecond), timeout / 10},
		{"fast for long", 100, steady(10 * time.Millisecond), timeout / 10},
		{"four times usual", 100, steady(200 * time.Millisecond), 800 * time.Millisecond},
		{"a fifth of the timeout", 100, steady(600 * time.Millisecond), timeout / 3},
		{"new and slow", usualWeight - 1, steady(1200 * time.Millisecond), timeout / 3},
		{"slow", usualWeight, steady(1200 * time.Millisecond), 1800 * time.Millisecond},
		{"half of the timeout", 100, steady(1500 * time.Millisecond), timeout * 3 / 4},
		{"too slow to gain a quarter", 100, steady(1600 * time.Millisecond), 0},
		{"first one cold", usualWeight, func(i int) time.Duration { return []time.Duration{2 * time.Second, 10 * time.Millisecond}[min(i, 1)] }, timeout / 3},
		{"one of a hundred late", 101, func(i int) time.Duration { return []time.Duration{10 * time.Millisecond, 2 * time.Second}[i/100] }, timeout / 3},
	} {
		j := &job{timeout: timeout}
		answers(j, c.n, c.takes)
		if got := j.slowAfter(); got != c.want {
			t.Errorf("%s: late after %v; want %v", c.name, got, c.want)
		}
	}
}
