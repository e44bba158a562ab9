//go:build linux

package blackbox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
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

// contestant is a process that probes.
type contestant struct {
	name string
	pid  int
	// load makes it probe for a while, rate a second or with rate 0 as fast as it can, and calls measure with how many it had made when it begins and when it ends.
	load func(b *testing.B, k costKind, rate int, measure func(made int64))
}

// cpu is the CPU time that the process has used, user and system, with a resolution of nanoseconds.
func (c *contestant) cpu(b *testing.B) time.Duration {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^uint32(c.pid)<<3|2), &t); err != nil { // the process's CPU-time clock, see clock_getcpuclockid(3)
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// resident is its memory in MB.
func (c *contestant) resident(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / 1e6
}

// cost is what one turn of a contestant showed.
type cost struct {
	us       float64 // microseconds of CPU a probe
	rate     float64 // probes a second
	resident float64 // MB
}

// turn lets a contestant probe and gives what that cost.
func (c *contestant) turn(b *testing.B, k costKind, rate int) cost {
	b.Helper()
	var made [2]int64
	var used [2]time.Duration
	var at [2]time.Time
	var resident float64
	n := 0
	c.load(b, k, rate, func(m int64) {
		made[n], used[n], at[n] = m, c.cpu(b), time.Now()
		resident = c.resident(b)
		n++
	})
	count := float64(made[1] - made[0])
	if count < 10 || rate > 0 && count < 0.5*float64(rate)*at[1].Sub(at[0]).Seconds() {
		b.Fatalf("%s made %.0f probes of kind %s in %s", c.name, count, k.name, at[1].Sub(at[0]))
	}
	return cost{float64((used[1] - used[0]).Nanoseconds()) / 1000 / count, count / at[1].Sub(at[0]).Seconds(), resident}
}

// run starts a program until the benchmark ends.
func run(b *testing.B, program string, args ...string) (pid int, in io.Writer, out *bufio.Reader) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, program, args...)
	c.Stderr = os.Stderr
	c.Env = os.Environ()
	if n := os.Getenv(costProcs); n != "" {
		c.Env = append(c.Env, "GOMAXPROCS="+n)
	}
	stdin, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cancel()
		_ = c.Wait()
	})
	return c.Process.Pid, stdin, bufio.NewReader(stdout)
}

// build makes a program of a package and gives its path.
func build(b *testing.B, name, pkg string) string {
	b.Helper()
	binary := b.TempDir() + "/" + name
	if out, err := exec.Command("go", "build", "-o", binary, pkg).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// bareLoop is a process that does one kind in a bare loop.
func bareLoop(b *testing.B, name, program string, args ...string) *contestant {
	b.Helper()
	pid, in, out := run(b, program, args...)
	return &contestant{name, pid, func(b *testing.B, _ costKind, rate int, measure func(int64)) {
		measure(0)
		fmt.Fprintln(in, rate, costAtOnce, costTurn.Seconds())
		line, err := out.ReadString('\n')
		if err != nil {
			b.Fatalf("the bare loop ended: %v", err)
		}
		made, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		measure(made)
	}}
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

// asked is a process that probes when /probe asks it to; base is its address.
func asked(b *testing.B, name string, base string, pid int) *contestant {
	transport := &http.Transport{MaxIdleConnsPerHost: costAtOnce}
	b.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return &contestant{name, pid, func(b *testing.B, k costKind, rate int, measure func(int64)) {
		var urls []string
		for _, target := range k.targets {
			urls = append(urls, "http://"+base+"/probe?"+url.Values{"module": {k.module}, "target": {target}}.Encode())
		}
		measure(0)
		measure(askMany(b, client, urls, rate))
	}}
}

// askMany asks an exporter for probes and fails unless all succeed: rate a second at even distances, or without a rate as many as it answers.
func askMany(b *testing.B, client *http.Client, urls []string, rate int) int64 {
	begin := time.Now()
	var next, made atomic.Int64
	var group sync.WaitGroup
	for range costAtOnce {
		group.Go(func() {
			for {
				i := next.Add(1) - 1
				if rate > 0 {
					due := begin.Add(time.Duration(i) * time.Second / time.Duration(rate))
					if due.Sub(begin) >= costTurn {
						return
					}
					time.Sleep(time.Until(due))
				} else if time.Since(begin) >= costTurn {
					return
				}
				u := urls[i%int64(len(urls))]
				resp, err := client.Get(u)
				if err != nil {
					b.Error(err)
					return
				}
				text, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if !succeeded.Match(text) {
					b.Errorf("%s: %s", u, text)
					return
				}
				made.Add(1)
			}
		})
	}
	group.Wait()
	return made.Load()
}

// scheduled is a prober that runs checks on its timetable and streams their results to a server, each check once a second. To be as fast as it can it has more checks than it manages.
func scheduled(name string, server *linktest.Server, pid int) *contestant {
	return &contestant{name, pid, func(b *testing.B, k costKind, rate int, measure func(int64)) {
		if rate == 0 {
			rate = k.most
		}
		assign(b, server, costChecks(k, rate)...)
		defer assign(b, server)
		time.Sleep(2500 * time.Millisecond) // its first results are news, and leave at once
		ok, other := batch(b, server)
		measure(ok + other)
		time.Sleep(costTurn)
		ok1, other1 := batch(b, server)
		measure(ok1 + other1)
		_, _, why := server.Tally()
		if bad := other1 - other; bad > (ok1-ok)/100 {
			b.Fatalf("%s: %d results are good and %d are not: %s", k.name, ok1-ok, bad, why)
		}
	}}
}

// batch waits for the next results that come, since many come at once, and gives what there is then.
func batch(b *testing.B, server *linktest.Server) (ok, other int64) {
	b.Helper()
	before, beforeOther, _ := server.Tally()
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
		if ok, other, _ = server.Tally(); ok+other > before+beforeOther {
			return ok, other
		}
	}
	b.Fatal("no results come")
	return 0, 0
}

// assign gives the prober checks in place of those that it has, and waits until it holds them.
func assign(b *testing.B, server *linktest.Server, all ...*meshv1.Assignment) {
	b.Helper()
	server.Want(true, all...)
	for begin := time.Now(); time.Since(begin) < time.Minute; {
		server.Sync()
		for asked := time.Now(); time.Since(asked) < 5*time.Second; time.Sleep(10 * time.Millisecond) {
			if server.Holding() == len(all) {
				return
			}
		}
	}
	b.Fatalf("the prober does not hold %d checks", len(all))
}

// costChecks assigns checks of a kind, spread over the second that is their interval.
func costChecks(k costKind, n int) []*meshv1.Assignment {
	out := make([]*meshv1.Assignment, n)
	for i := range out {
		c := proto.CloneOf(k.check)
		c.Uri = strings.Replace(c.Uri, "@", k.targets[i%len(k.targets)], 1)
		c.Name, c.Interval, c.Timeout, c.Revision = fmt.Sprintf("checks/cost-%s-%05d", k.name, i), durationpb.New(time.Second), durationpb.New(900*time.Millisecond), 1
		out[i] = &meshv1.Assignment{Phase: durationpb.New(assignment.Phase(c.Name, 0, 1, time.Second)), Check: c}
		out[i].Fingerprint = assignment.Fingerprint(out[i])
	}
	return out
}
