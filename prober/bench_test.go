package prober

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/assignment"
	"github.com/probemesh/probemesh/internal/telemetry"
	"github.com/probemesh/probemesh/prober/linktest"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// benchVariable makes the test binary another process of the benchmark, so that the CPU time of each is its own: `peers` is what a prober talks to, `bare URL`
// is the loop that it is compared with.
const benchVariable = "PROBEMESH_BENCH"

const (
	benchInFlight = 64 // probes at once, and requests at once of the bare loop
	benchRound    = 2_000
	benchChecks   = 5_000
	benchInterval = time.Second
)

// TestBenchPeers is that process: a target that answers with 1,000 bytes, and a server with sessions. It serves until its standard input ends.
func TestBenchPeers(t *testing.T) {
	if os.Getenv(benchVariable) != "peers" {
		t.Skip("it is only run by the benchmarks")
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	web, mesh := listen(), listen()
	body := strings.Repeat("x", 1000)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })}
	server := &linktest.Server{Address: mesh.Addr().String(), Forgetful: true}
	url := "http://" + web.Addr().String() + "/"
	server.Want(false, httpChecks(url, benchChecks, benchInterval)...)
	var group sync.WaitGroup
	group.Go(func() { _ = s.Serve(web) })
	group.Go(func() { _ = server.Serve(mesh) })
	_, _ = os.Stdout.WriteString("answer " + url + " " + mesh.Addr().String() + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Close()
	mesh.Close()
	group.Wait()
}

// httpChecks assigns so many checks of url, spread over the interval.
func httpChecks(url string, n int, interval time.Duration) []*meshv1.Assignment {
	out := make([]*meshv1.Assignment, n)
	for i := range out {
		name := fmt.Sprintf("checks/shop-%05d", i)
		a := &meshv1.Assignment{Phase: durationpb.New(assignment.Phase(name, 0, 1, interval)), Check: &meshv1.Check{
			Name: name, Uri: url, Interval: durationpb.New(interval), Timeout: durationpb.New(10 * time.Second), Revision: 1,
			Http: &meshv1.HttpProbe{Method: http.MethodGet, BodyLimit: 1 << 20, MaxRedirects: 10},
		}}
		a.Fingerprint = assignment.Fingerprint(a)
		out[i] = a
	}
	return out
}

// TestBenchBare is the bare loop: for each line with a number it makes as many requests, and answers with the CPU time that they took.
func TestBenchBare(t *testing.T) {
	url, ok := strings.CutPrefix(os.Getenv(benchVariable), "bare ")
	if !ok {
		t.Skip("it is only run by the benchmarks")
	}
	runtime.GOMAXPROCS(1)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	var n int64
	for in := bufio.NewReader(os.Stdin); ; {
		if _, err := fmt.Fscanln(in, &n); err != nil {
			return
		}
		begin := cpuTime(t)
		bareLoop(t, client, url, n)
		fmt.Printf("answer %d\n", cpuTime(t)-begin)
	}
}

// bareLoop makes n requests of url with net/http alone, as many at once as the prober probes.
func bareLoop(t *testing.T, client *http.Client, url string, n int64) {
	var left atomic.Int64
	left.Store(n)
	var group sync.WaitGroup
	for range benchInFlight {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				resp, err := client.Get(url)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	group.Wait()
}

// other is another process of the benchmark.
type other struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(b *testing.B, test, what string) *other {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), benchVariable+"="+what)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _, _ = io.Copy(io.Discard, out); _ = cmd.Wait() })
	return &other{in, bufio.NewScanner(out)}
}

// answer is the next line that answers.
func (o *other) answer(b *testing.B) string {
	b.Helper()
	for o.out.Scan() {
		if _, rest, ok := strings.Cut(o.out.Text(), "answer "); ok {
			return rest
		}
	}
	b.Fatal("the other process ended")
	return ""
}

// bare has n requests made and gives the CPU time that they took.
func (o *other) bare(b *testing.B, n int64) time.Duration {
	fmt.Fprintln(o.in, n)
	d, err := strconv.ParseInt(o.answer(b), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(d)
}

// counted counts the probes of a runner, and how they end; they begin while the gate is open.
type counted struct {
	probe.Runner
	of *benched
}

func (c counted) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	c.of.gate.RLock() // held by every probe that runs, so that closing the gate waits for them
	defer c.of.gate.RUnlock()
	r := c.Runner.Probe(ctx, o)
	if r.GetOutcome() != meshv1.Result_OK && ctx.Err() == nil {
		c.of.bad.Add(1)
	}
	c.of.probes.Add(1)
	return r
}

// benched is a prober as the program makes it, with its probes counted.
type benched struct {
	*Prober
	gate        sync.RWMutex
	probes, bad atomic.Int64
}

func newBenched(b *testing.B, server string) *benched {
	log := slog.New(slog.DiscardHandler)
	tel, err := telemetry.Setup(b.Context(), telemetry.Config{Service: "probemesh-prober", Version: "bench", Instance: "bench-1", Log: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	p := &benched{}
	env := probe.Env{UserAgent: "probemesh/bench", Capabilities: kinds.Capabilities()}
	p.Prober, err = New(Config{Name: "bench-1", Datacenter: "bench", Servers: []string{server}, Data: b.TempDir(), InFlight: benchInFlight, Build: "bench"}, Deps{
		Compile: func(c *meshv1.Check) (probe.Runner, error) {
			r, err := kinds.Compile(c, env)
			return counted{r, p}, err
		},
		Log: log, Meter: tel.Meter("bench"), Tracer: tel.Tracer("bench"), DialOptions: []grpc.DialOption{tel.DialOption()},
	})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// during runs the prober, and calls f while it does.
func (p *benched) during(b *testing.B, f func()) {
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	f()
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	if p.bad.Load() > 0 {
		b.Fatalf("%d of %d probes failed", p.bad.Load(), p.probes.Load())
	}
}

// await waits until n probes have been made.
func (p *benched) await(b *testing.B, n int64) {
	for limit := time.Now().Add(2 * time.Minute); p.probes.Load() < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			b.Fatalf("%d probes after two minutes, of %d", p.probes.Load(), n)
		}
	}
}

// hold waits until the prober holds n assignments.
func (p *benched) hold(b *testing.B, n int) {
	for limit := time.Now().Add(2 * time.Minute); p.Status().Assignments < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			b.Fatalf("%d assignments after two minutes, of %d", p.Status().Assignments, n)
		}
	}
}

// BenchmarkProberHTTP is a whole prober that has more to do than one core can: timetable, probes, results to the spool on disk and in batches to a server,
// which acknowledges them. It takes turns with a bare loop of net/http in another process that makes as many requests of the same target, as many at once: each
// round is 2,000 of both, and each process runs its Go code on one thread. "ratio" is the loop's CPU time for a request over the prober's for a probe, which
// is the prober's rate on one core in relation to the loop's. The prober is charged with all of its CPU time, that of its turns and of the loop's.
func BenchmarkProberHTTP(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	url, server, _ := strings.Cut(start(b, "TestBenchPeers", "peers").answer(b), " ")
	loop := start(b, "TestBenchBare", "bare "+url)
	p := newBenched(b, server)
	var probing, bare time.Duration
	var probes, requests int64
	p.during(b, func() {
		p.hold(b, benchChecks)
		p.await(b, p.probes.Load()+benchChecks*3/2) // past the first result of each check, which is news
		p.gate.Lock()
		loop.bare(b, benchRound)
		from, begin := p.probes.Load(), cpuTime(b)
		for b.Loop() {
			p.gate.Unlock()
			p.await(b, p.probes.Load()+benchRound)
			p.gate.Lock()
			bare += loop.bare(b, benchRound)
			requests += benchRound
		}
		probing, probes = cpuTime(b)-begin, p.probes.Load()-from
		p.gate.Unlock()
	})
	perProbe, perRequest := probing.Seconds()/float64(probes), bare.Seconds()/float64(requests)
	b.ReportMetric(1/perProbe, "probes/cpu-s")
	b.ReportMetric(1/perRequest, "bare/cpu-s")
	b.ReportMetric(perRequest/perProbe, "ratio")
	b.ReportMetric(0, "ns/op")
}

// cpuTime is the CPU time that this process has used.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
