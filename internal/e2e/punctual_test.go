//go:build linux

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// punctualVariable asks for the whole measurement: how many checks, for example 5000, each every 10 s for a minute. Without it the test is short, and of what no noise can excuse.
const punctualVariable = "PROBEMESH_PUNCTUAL"

// One prober on one core with many checks, a tenth of whose targets accept connections and never answer: measured at the targets, how far the time between two probes is from the
// interval, that no start is left out, what a check takes of memory above a prober that has none, and that a prober that is started anew probes every target within its first
// interval, in its old phase. Beside it, in the same run, a bare loop connects at its own times, which shows how much of that is the machine's.
func TestAProberKeepsItsTimetableBesideSilentTargets(t *testing.T) {
	checks, interval, rounds := 200, 2*time.Second, 4
	full := os.Getenv(punctualVariable) != ""
	if full {
		n, err := strconv.Atoi(os.Getenv(punctualVariable))
		if err != nil || n < 100 {
			t.Fatalf("%s=%q is not a number of checks, 100 or more", punctualVariable, os.Getenv(punctualVariable))
		}
		checks, interval, rounds = n, 10*time.Second, 6
	} else {
		t.Parallel()
	}
	arrivals := watchArrivals(t)
	silent := startSilent(t)
	m := startMesh(t, "server", nil)
	dir, page := t.TempDir(), quietAddress(t)
	args := []string{"prober", "--name", "solo", "--data", dir, "--server", m.grpc, "--http-listen", page}
	one := withEnv("GOMAXPROCS=1")
	p := begin(t, "prober", args, one)
	m.awaitProber("solo")
	if full {
		time.Sleep(10 * time.Second) // what its start took has been given back
	}
	idle := resident(t, p.cmd.Process.Pid)

	var yaml strings.Builder
	yaml.WriteString("checks:\n")
	for i := range checks {
		address := arrivals.address
		if i%10 == 0 {
			address = silent
		}
		fmt.Fprintf(&yaml, "  - {name: c-%d, uri: 'http://%s/%d', interval: %s, probers: 1}\n", i, address, i, interval)
	}
	m.apply(yaml.String())
	healthy := checks - (checks+9)/10
	until(t, "every healthy target has been probed twice", func() (bool, string) {
		n := arrivals.probed(2)
		return n == healthy, fmt.Sprintf("%d of %d", n, healthy)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var bare sync.WaitGroup
	bare.Go(func() { bareMetronome(ctx, arrivals.address, interval) })
	arrivals.forget()
	time.Sleep(time.Duration(rounds) * interval)
	cancel()
	bare.Wait()
	deviations, control := arrivals.deviations(interval)
	busy := resident(t, p.cmd.Process.Pid)
	metrics := metricsOf(t, page)
	t.Logf("%d checks every %s, load %s: inter-arrival off the interval p50 %s, p99 %s, worst %s (bare loop in the same run: p50 %s, p99 %s, worst %s)", checks, interval, load(),
		at(deviations, 50), at(deviations, 99), at(deviations, 100), at(control, 50), at(control, 99), at(control, 100))
	t.Logf("resident %d KiB without a check, %d KiB with them: %.1f KiB a check; skipped %v", idle, busy, float64(busy-idle)/float64(checks), metrics["probemesh_prober_probes_skipped_total"])
	if want := healthy * (rounds - 1); len(deviations) < want {
		t.Errorf("%d probes seen in %d intervals, want %d at least", len(deviations), rounds, want)
	}
	if n := metrics["probemesh_prober_probes_skipped_total"]; n != 0 {
		t.Errorf("%v starts were left out", n)
	}
	if limit := 20*time.Millisecond + at(control, 99); full && at(deviations, 99) > limit {
		t.Errorf("p99 of the time between two probes is %s off the interval, want %s at most (20ms and what the bare loop is off)", at(deviations, 99), limit)
	}
	if full && busy-idle > 8*checks {
		t.Errorf("%.1f KiB a check, want 8 at most", float64(busy-idle)/float64(checks))
	}

	// The same prober again: every target within the first interval, at its place in it.
	before := arrivals.phases(interval)
	p.interrupt()
	arrivals.forget()
	started := time.Now()
	begin(t, "prober again", args, one)
	until(t, "every healthy target has been probed again", func() (bool, string) {
		n := arrivals.probed(1)
		return n == healthy, fmt.Sprintf("%d of %d", n, healthy)
	})
	var late, moved []time.Duration
	for check, first := range arrivals.first() {
		late = append(late, first.Sub(started))
		moved = append(moved, phaseDistance(before[check], phaseIn(first, interval), interval))
	}
	slices.Sort(late)
	slices.Sort(moved)
	t.Logf("started anew: every target probed after %s; off the phase of before p50 %s, p99 %s, worst %s", at(late, 100), at(moved, 50), at(moved, 99), at(moved, 100))
	if at(late, 100) > interval+2*time.Second {
		t.Errorf("the last target was probed %s after the start, want within the interval of %s", at(late, 100), interval)
	}
	if at(moved, 50) > 50*time.Millisecond {
		t.Errorf("half of the checks are %s or more off their phase of before", at(moved, 50))
	}
}

// arrivals is a target that answers at once and remembers when each check, by the path of its request, came. The time is that of the accepted connection.
type arrivals struct {
	address string
	mu      sync.Mutex
	times   map[string][]time.Time
}

func watchArrivals(t *testing.T) *arrivals {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &arrivals{address: l.Addr().String(), times: map[string][]time.Time{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			now := time.Now()
			all.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(now.Add(10 * time.Second))
				req, err := http.ReadRequest(bufio.NewReaderSize(conn, 512))
				if err != nil {
					return
				}
				a.mu.Lock()
				a.times[req.URL.Path] = append(a.times[req.URL.Path], now)
				a.mu.Unlock()
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return a
}

// metronomes are the paths of the bare loop.
const metronomes = "/bare-"

// probed counts the checks that came n times or more.
func (a *arrivals) probed(n int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	count := 0
	for path, times := range a.times {
		if len(times) >= n && !strings.HasPrefix(path, metronomes) {
			count++
		}
	}
	return count
}

func (a *arrivals) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.times)
}

// deviations are by how much the times between two arrivals differ from the interval, sorted: those of checks, and those of the bare loop.
func (a *arrivals) deviations(interval time.Duration) (checks, bare []time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for path, times := range a.times {
		for i := 1; i < len(times); i++ {
			d := (times[i].Sub(times[i-1]) - interval).Abs()
			if strings.HasPrefix(path, metronomes) {
				bare = append(bare, d)
			} else {
				checks = append(checks, d)
			}
		}
	}
	slices.Sort(checks)
	slices.Sort(bare)
	return checks, bare
}

// phases are where in the interval each check came at its median.
func (a *arrivals) phases(interval time.Duration) map[string]time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]time.Duration{}
	for path, times := range a.times {
		first := phaseIn(times[0], interval)
		var around []time.Duration
		for _, at := range times {
			d := phaseIn(at, interval) - first
			around = append(around, (d+3*interval/2)%interval-interval/2)
		}
		slices.Sort(around)
		out[path] = first + around[len(around)/2]
	}
	return out
}

// first is when each check came first.
func (a *arrivals) first() map[string]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]time.Time{}
	for path, times := range a.times {
		out[path] = times[0]
	}
	return out
}

func phaseIn(at time.Time, interval time.Duration) time.Duration {
	return time.Duration(at.UnixNano() % int64(interval))
}

func phaseDistance(a, b, interval time.Duration) time.Duration {
	return ((a-b+3*interval/2)%interval - interval/2).Abs()
}

// bareMetronome makes requests at times of its own, 50 of them in an interval, with nothing but a socket: what comes late of them is late by the machine's doing.
func bareMetronome(ctx context.Context, address string, interval time.Duration) {
	const n = 50
	begin := time.Now().Add(100 * time.Millisecond)
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-time.After(time.Until(begin.Add(interval / n * time.Duration(i)))):
		case <-ctx.Done():
			return
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			continue
		}
		fmt.Fprintf(conn, "GET %s%d HTTP/1.1\r\nHost: a\r\n\r\n", metronomes, i%n)
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
}

// startSilent accepts connections and never answers.
func startSilent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { _, _ = io.Copy(io.Discard, conn); conn.Close() })
		}
	})
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// at is a percentile of a sorted list; 0 without any.
func at(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)].Round(10 * time.Microsecond)
}

// resident is the resident memory of a process in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// load is the load of the machine over the last minute.
func load() string {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f", float64(info.Loads[0])/65536)
}

// metricsOf sums the metrics of a page by name.
func metricsOf(t *testing.T, address string) map[string]float64 {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := map[string]float64{}
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		name, value, ok := strings.Cut(s.Text(), " ")
		if i := strings.LastIndex(s.Text(), " "); i > 0 {
			value = s.Text()[i+1:]
		}
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			name, _, _ = strings.Cut(name, "{")
			out[name] += v
		}
	}
	return out
}
