//go:build linux

package blackbox_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/assignment"
	"github.com/probemesh/probemesh/prober/linktest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// What a round of the benchmark has for each kind.
const (
	costProbes   = 400             // asked of each exporter by /probe
	costAtOnce   = 4               // of them at once
	costSchedule = 3 * time.Second // for which they run
)

// costKind is a kind of probe as an exporter is asked for it, and as a check.
type costKind struct {
	name, module, target string
	check                *meshv1.Check
	checks               int // of the mesh, once a second each: enough that waking up costs little beside them
}

func costKinds(b *testing.B, w *world) []costKind {
	ca, err := os.ReadFile(w.path("ca.pem"))
	if err != nil {
		b.Fatal(err)
	}
	web, secure := "http://"+w.at["http"]+"/ok", "https://"+w.at["https"]+"/ok"
	return []costKind{
		{"http", "http_2xx", web, &meshv1.Check{Uri: web}, 800},
		{"tcp", "tcp_connect", w.at["silent"], &meshv1.Check{Uri: "tcp://" + w.at["silent"]}, 800},
		{"dns", "dns_one", w.at["dns"], &meshv1.Check{Uri: "dns://" + w.at["dns"] + "/one.example?type=A"}, 800},
		{"icmp", "icmp", "127.0.0.1", &meshv1.Check{Uri: "icmp://127.0.0.1", Icmp: &meshv1.IcmpProbe{Count: 1}}, 800},
		{"https", "http_ssl", secure, &meshv1.Check{Uri: secure, Http: &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: string(ca)}}}, 100},
	}
}

// cpu is the CPU time that a process has used, user and system, with a resolution of nanoseconds.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^uint32(pid)<<3|2), &t); err != nil { // the process's CPU-time clock, see clock_getcpuclockid(3)
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// run starts a program until the benchmark ends.
func run(b *testing.B, program string, args ...string) int {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, program, args...)
	if testing.Verbose() {
		c.Stderr = os.Stderr
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cancel()
		_ = c.Wait()
	})
	return c.Process.Pid
}

// free is an address that nobody listens on.
func free(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await waits until a URL answers.
func await(b *testing.B, url string) {
	b.Helper()
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get(url); err == nil {
			resp.Body.Close()
			return
		}
	}
	b.Fatalf("%s does not answer", url)
}

// BenchmarkProcesses compares the CPU time that whole processes use for a probe: Debian's exporter and a prober, both asked by /probe, and a prober that runs checks
// on its schedule and streams their results to a server. They take turns, kind by kind, in every round; b.N is the number of rounds.
func BenchmarkProcesses(b *testing.B) {
	exporter, err := exec.LookPath(theirs)
	if err != nil {
		b.Skipf("%s is not installed: apt-get install -y --no-install-recommends %s", theirs, theirs)
	}
	w := newWorld(b)
	w.configure(b)
	binary := filepath.Join(b.TempDir(), "probemesh")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/probemesh").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &linktest.Server{Address: l.Addr().String()}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	b.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	their, our, idle := free(b), free(b), free(b)
	pids := map[string]int{
		"exporter": run(b, exporter, "--config.file="+w.path("modules.yml"), "--web.listen-address="+their, "--log.level=error"),
		"probe":    run(b, binary, "prober", "--name", "a", "--server", "127.0.0.1:1", "--data", b.TempDir(), "--http-listen", our, "--blackbox-config", w.path("modules.yml"), "--log-level", "error"),
		"check":    run(b, binary, "prober", "--name", "b", "--server", l.Addr().String(), "--data", b.TempDir(), "--http-listen", idle, "--log-level", "error"),
	}
	await(b, "http://"+their+"/-/healthy")
	await(b, "http://"+our+"/healthz")
	await(b, "http://"+idle+"/healthz")
	costs := map[string][]float64{} // microseconds a probe, by kind and process
	kinds := costKinds(b, w)
	for b.Loop() {
		for _, k := range kinds {
			for name, base := range map[string]string{"exporter": their, "probe": our} {
				before := cpu(b, pids[name])
				flood(b, base, k)
				costs[k.name+" "+name] = append(costs[k.name+" "+name], us(cpu(b, pids[name])-before, costProbes))
			}
			costs[k.name+" check"] = append(costs[k.name+" check"], scheduled(b, server, k, func() time.Duration { return cpu(b, pids["check"]) }))
		}
	}
	fmt.Printf("\nmicroseconds of CPU a probe, median of %d rounds\n%-8s%10s%10s%10s%18s%18s\n", b.N, "", "exporter", "/probe", "check", "exporter//probe", "exporter/check")
	for _, k := range kinds {
		e, p, c := median(costs[k.name+" exporter"]), median(costs[k.name+" probe"]), median(costs[k.name+" check"])
		fmt.Printf("%-8s%10.0f%10.0f%10.0f%18.1f%18.1f\n", k.name, e, p, c, e/p, e/c)
		b.ReportMetric(e/c, k.name+"-exporter/check")
		b.ReportMetric(e/p, k.name+"-exporter/probe")
	}
	b.ReportMetric(0, "ns/op")
}

func us(d time.Duration, n int) float64 { return float64(d.Microseconds()) / float64(n) }

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// flood asks an exporter for many probes and fails unless all succeed.
func flood(b *testing.B, base string, k costKind) {
	q := url.Values{"module": {k.module}, "target": {k.target}}.Encode()
	transport := &http.Transport{MaxIdleConnsPerHost: costAtOnce}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}
	var left atomic.Int64
	left.Store(costProbes)
	var group sync.WaitGroup
	for range costAtOnce {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				resp, err := client.Get("http://" + base + "/probe?" + q)
				if err != nil {
					b.Error(err)
					return
				}
				text, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if !succeeded.Match(text) {
					b.Errorf("%s at %s: %s", k.name, base, text)
					return
				}
			}
		})
	}
	group.Wait()
}

// scheduled lets the mesh's prober run checks for a while, and gives what one result costs in microseconds, less what the process uses without any.
func scheduled(b *testing.B, server *linktest.Server, k costKind, used func() time.Duration) float64 {
	b.Helper()
	settle := func(checks int) {
		for begin := time.Now(); !server.Sync(); time.Sleep(20 * time.Millisecond) {
			if time.Since(begin) > 20*time.Second {
				b.Fatalf("the prober does not hold %d checks", checks)
			}
		}
		time.Sleep(1200 * time.Millisecond) // an interval: the first probes of all, or the last of those before
	}
	server.Want(true)
	settle(0)
	before := used()
	time.Sleep(time.Second)
	idle := used() - before
	wanted := make([]*meshv1.Assignment, k.checks)
	for i := range wanted {
		c := proto.CloneOf(k.check)
		c.Name, c.Interval, c.Timeout, c.Revision = fmt.Sprintf("checks/cost-%s-%04d", k.name, i), durationpb.New(time.Second), durationpb.New(900*time.Millisecond), 1
		wanted[i] = &meshv1.Assignment{Phase: durationpb.New(assignment.Phase(c.Name, 0, 1, time.Second)), Check: c}
		wanted[i].Fingerprint = assignment.Fingerprint(wanted[i])
	}
	server.Want(true, wanted...)
	settle(k.checks)
	results := func() (all, bad int, why string) {
		for _, r := range server.Seen().Results(meshv1.ResultBatch_LIVE, meshv1.ResultBatch_BACKLOG) {
			if r.GetOutcome() == meshv1.Result_SLOW {
				continue // it counts when it ends
			}
			if all++; r.GetOutcome() != meshv1.Result_OK {
				bad, why = bad+1, r.GetError()
			}
		}
		return all, bad, why
	}
	all0, bad0, _ := results()
	begin, before := time.Now(), used()
	time.Sleep(costSchedule)
	spent, took := used()-before, time.Since(begin)
	all1, bad1, why := results()
	if made, bad := all1-all0, bad1-bad0; made < int(took.Seconds()*float64(k.checks)*0.5) || bad > made/100 {
		b.Fatalf("%s: %d results in %s, %d of them bad (%s); refusals %v", k.name, made, took, bad, why, server.Seen().Refusals)
	}
	made := all1 - all0
	return us(spent-time.Duration(float64(idle)*took.Seconds()), made)
}
