//go:build linux

package blackbox_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/prober/linktest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	costAtOnce = 16              // probes at once, of every contestant
	costTurn   = 2 * time.Second // for which each probes in its turn
)

// What the benchmark is told by the environment.
const (
	costProcs = "PROBEMESH_COST_PROCS" // GOMAXPROCS of every contestant; else the system's
	costOnly  = "PROBEMESH_COST_KINDS" // kinds to compare, with commas between; else all
	costForms = "PROBEMESH_COST_FORMS" // saturated or paced; else both
)

// costKind is a kind of probe: as a bare loop does it, as an exporter is asked for it, and as a check.
type costKind struct {
	name, module string
	bare         [][]string // arguments of bare loops; the first one is what the others are measured by
	check        *meshv1.Check
	rate         int      // a second, when paced
	most         int      // checks, once a second each, that are more than a prober manages; 0: it is not compared saturated
	targets      []string // as an exporter is asked for them, one after the other; @ in the URI of the check stands for one
}

func costKinds(b *testing.B, w *world) []costKind {
	ca, err := os.ReadFile(w.path("ca.pem"))
	if err != nil {
		b.Fatal(err)
	}
	many := costListeners(b)
	web, secure := "http://"+w.at["http"]+"/ok", "https://"+w.at["https"]+"/ok"
	trust := &meshv1.TlsConfig{CaPem: string(ca)}
	resumed := proto.CloneOf(trust)
	resumed.ResumeSessions = true
	// Sockets of echo requests may be raw ones, which get every reply that comes to the machine: without pauses they lose some, each its own.
	all := []costKind{
		{"http", "http_2xx", [][]string{{"http", web}, {"minimal", web}}, &meshv1.Check{Uri: "@"}, 800, 12_000, []string{web}},
		{"tcp", "tcp_connect", [][]string{{"tcp", strings.Join(many, ",")}}, &meshv1.Check{Uri: "tcp://@"}, 800, 24_000, many},
		{"dns", "dns_one", [][]string{{"dns", w.at["dns"]}}, &meshv1.Check{Uri: "dns://@/one.example?type=A"}, 800, 24_000, []string{w.at["dns"]}},
		{"icmp", "icmp", [][]string{{"icmp", "127.0.0.1"}}, &meshv1.Check{Uri: "icmp://@", Icmp: &meshv1.IcmpProbe{Count: 1}}, 800, 0, []string{"127.0.0.1"}},
		{"https", "http_ssl", [][]string{{"https", secure, w.path("ca.pem")}}, &meshv1.Check{Uri: "@", Http: &meshv1.HttpProbe{Tls: trust}}, 100, 3_000, []string{secure}},
		{"resumed", "http_ssl", [][]string{{"https", secure, w.path("ca.pem")}, {"resumed", secure, w.path("ca.pem")}},
			&meshv1.Check{Uri: "@", Http: &meshv1.HttpProbe{Tls: resumed}}, 100, 4_000, []string{secure}},
		{"grpc", "grpc_ip4", [][]string{{"grpc", w.at["grpc"]}}, &meshv1.Check{Uri: "grpc://@"}, 200, 6_000, []string{w.at["grpc"]}},
	}
	if only := os.Getenv(costOnly); only != "" {
		wanted := strings.Split(only, ",")
		all = slices.DeleteFunc(all, func(k costKind) bool { return !slices.Contains(wanted, k.name) })
	}
	return all
}

// costListeners are targets that take connections and say nothing. A connection that the client closes keeps its port from connections to the same address for a minute, so that one address has
// not enough ports for all that is compared.
func costListeners(b *testing.B) (addresses []string) {
	b.Helper()
	for i := range 16 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.1.%d:0", i+1))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { l.Close() })
		addresses = append(addresses, l.Addr().String())
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.Copy(io.Discard, c)
				}()
			}
		}()
	}
	return addresses
}

// contestants starts those that do every kind.
func contestants(b *testing.B, w *world, exporter string) []*contestant {
	b.Helper()
	binary := build(b, "probemesh", "../../cmd/probemesh")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &linktest.Server{Address: l.Addr().String(), Forgetful: true}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	b.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	their, our, idle := free(b), free(b), free(b)
	prober := func(name string, more ...string) int {
		pid, _, _ := run(b, binary, append([]string{"prober", "--name", name, "--data", b.TempDir(), "--log-level", "error", "--in-flight", fmt.Sprint(costAtOnce)}, more...)...)
		return pid
	}
	pid, _, _ := run(b, exporter, "--config.file="+w.path("modules.yml"), "--web.listen-address="+their, "--log.level=error")
	all := []*contestant{
		asked(b, "exporter", their, pid),
		asked(b, "/probe", our, prober("a", "--server", "127.0.0.1:1", "--http-listen", our, "--blackbox-config", w.path("modules.yml"))),
		scheduled("prober", server, prober("b", "--server", l.Addr().String(), "--http-listen", idle)),
	}
	await(b, "http://"+their+"/-/healthy")
	await(b, "http://"+our+"/healthz")
	await(b, "http://"+idle+"/healthz")
	return all
}

// BenchmarkProcesses compares the CPU time that whole processes use for a probe: bare loops, Debian's exporter and a prober asked by /probe, and a prober that runs checks on its schedule and
// streams their results to a server. They take turns at the same load, in two forms: saturated, as many as each can make, and paced, so many a second at even distances. The order is turned
// round in every second round; b.N is the number of rounds.
func BenchmarkProcesses(b *testing.B) {
	exporter, err := exec.LookPath(theirs)
	if err != nil {
		b.Skipf("%s is not installed: apt-get install -y --no-install-recommends %s", theirs, theirs)
	}
	w := newWorld(b)
	w.configure(b)
	bare := build(b, "bare", "./testdata/bare")
	everything := contestants(b, w, exporter)
	forms := []string{"saturated", "paced"}
	if only := os.Getenv(costForms); only != "" {
		forms = []string{only}
	}
	costs := map[string][]cost{} // by form, kind and contestant
	kinds := costKinds(b, w)
	rivals := map[string][]*contestant{} // by kind
	for _, k := range kinds {
		for i, args := range k.bare {
			rivals[k.name] = append(rivals[k.name], bareLoop(b, []string{"bare", "bare " + args[0]}[min(i, 1)], bare, args...))
		}
		rivals[k.name] = append(rivals[k.name], everything...)
	}
	for round := 0; b.Loop(); round++ {
		for _, k := range kinds {
			for _, form := range forms {
				if form == "saturated" && k.most == 0 {
					continue
				}
				rate := map[string]int{"paced": k.rate}[form]
				order := slices.Clone(rivals[k.name])
				if round%2 == 1 {
					slices.Reverse(order)
				}
				for _, c := range order {
					key := form + " " + k.name + " " + c.name
					costs[key] = append(costs[key], c.turn(b, k, rate))
				}
			}
		}
	}
	for _, form := range forms {
		fmt.Printf("\n%s, median of %d rounds\n%-9s%-16s%12s%12s%16s%12s%12s\n", form, b.N, "", "", "us CPU", "of bare", "exporter is", "probes/s", "MB")
		for _, k := range kinds {
			if form == "saturated" && k.most == 0 {
				continue
			}
			report(b, form, k, rivals[k.name], costs)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// report prints what a kind cost in one form.
func report(b *testing.B, form string, k costKind, rivals []*contestant, costs map[string][]cost) {
	of := func(name string, what func(cost) float64) float64 {
		var all []float64
		for _, c := range costs[form+" "+k.name+" "+name] {
			all = append(all, what(c))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	us := func(c cost) float64 { return c.us }
	for _, c := range rivals {
		mine := of(c.name, us)
		toBare, toExporter := mine/of("bare", us), of("exporter", us)/mine
		fmt.Printf("%-9s%-16s%12.0f%12.2f%15.1fx%12.0f%12.0f\n", k.name, c.name, mine, toBare, toExporter,
			of(c.name, func(c cost) float64 { return c.rate }), of(c.name, func(c cost) float64 { return c.resident }))
		if c.name == "prober" {
			b.ReportMetric(toBare, form+"-"+k.name+"-of-bare")
			b.ReportMetric(toExporter, form+"-"+k.name+"-exporter-is")
		}
	}
}
