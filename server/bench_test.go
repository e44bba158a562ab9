package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/assignment"
	"github.com/probemesh/probemesh/internal/version"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// probersVariable makes the test binary the probers of a benchmark, in a process of their own so that only the server's work is measured. Its value is
// the server's address.
const probersVariable = "PROBEMESH_BENCH_PROBERS"

const (
	benchChecks   = 2_000
	benchProbers  = 3
	benchInterval = time.Minute
	benchBatch    = 100
	benchWindow   = 2_000 // results without an acknowledgement
)

// TestBenchProbers is that process: three probers in as many datacenters. For each line with a number each of them sends as many batches, and the answer comes
// when the last of them is in the history.
func TestBenchProbers(t *testing.T) {
	address := os.Getenv(probersVariable)
	if address == "" {
		t.Skip("it is only run by the benchmarks")
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var all []*fakeProber
	for i := range benchProbers {
		p, err := attach(t.Context(), conn, i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	fmt.Println("answer attached")
	var n int
	for in := bufio.NewReader(os.Stdin); ; {
		if _, err := fmt.Fscanln(in, &n); err != nil {
			return
		}
		var group sync.WaitGroup
		for _, p := range all {
			group.Go(func() {
				if err := p.send(n); err != nil {
					fmt.Println("bench_test.go:", err)
				}
			})
		}
		group.Wait()
		fmt.Println("answer done")
	}
}

// fakeProber is a session whose results are made up: each check that is assigned is up, in its turn, now.
type fakeProber struct {
	stream   grpc.BidiStreamingClient[meshv1.ProberMessage, meshv1.ServerMessage]
	acked    chan uint64
	sequence uint64 // of the newest result
	last     uint64 // acknowledged

	mu     sync.Mutex // guards sending and everything below
	held   map[string]*meshv1.Assignment
	checks []*meshv1.Check
	turn   int
}

func attach(ctx context.Context, conn *grpc.ClientConn, i int) (*fakeProber, error) {
	stream, err := meshv1.NewSessionServiceClient(conn).Session(ctx)
	if err != nil {
		return nil, err
	}
	p := &fakeProber{stream: stream, acked: make(chan uint64, 4096), held: map[string]*meshv1.Assignment{}}
	hello := &meshv1.Hello{Prober: fmt.Sprintf("bench-%d", i), BootId: fmt.Sprintf("boot-%d", i), Build: "bench", Protocol: version.Protocol,
		Datacenter: fmt.Sprintf("dc-%d", i), Capabilities: []string{"http", "ipv4"}, Time: timestamppb.Now(), FirstSequence: 1}
	if err := p.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Hello{Hello: hello}}); err != nil {
		return nil, err
	}
	if _, err := stream.Recv(); err != nil {
		return nil, err
	}
	go p.receive() // ends with the stream
	go func() {
		for range time.Tick(time.Second) {
			if p.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Ping{Ping: &meshv1.Ping{Id: 1, OriginateTime: timestamppb.Now()}}}) != nil {
				return
			}
		}
	}()
	return p, nil
}

func (p *fakeProber) say(m *meshv1.ProberMessage) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stream.Send(m)
}

// receive takes acknowledgements, and claims to run whatever is assigned.
func (p *fakeProber) receive() {
	defer close(p.acked)
	for {
		m, err := p.stream.Recv()
		if err != nil {
			return
		}
		switch m := m.GetMessage().(type) {
		case *meshv1.ServerMessage_ResultAck:
			p.acked <- m.ResultAck.GetSequence()
		case *meshv1.ServerMessage_InventoryRequest:
			_ = p.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Inventory{Inventory: p.inventory()}})
		case *meshv1.ServerMessage_AssignmentUpdate:
			ack := p.apply(m.AssignmentUpdate)
			if m.AssignmentUpdate.GetLast() {
				_ = p.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_AssignmentAck{AssignmentAck: ack}})
			}
		}
	}
}

func (p *fakeProber) inventory() *meshv1.Inventory {
	p.mu.Lock()
	defer p.mu.Unlock()
	inv := &meshv1.Inventory{Last: true}
	for check, a := range p.held {
		inv.Items = append(inv.Items, &meshv1.InventoryItem{Check: check, Fingerprint: a.GetFingerprint()})
	}
	return inv
}

func (p *fakeProber) apply(u *meshv1.AssignmentUpdate) *meshv1.AssignmentAck {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range u.GetUpserts() {
		p.held[a.GetCheck().GetName()] = a
	}
	for _, name := range u.GetRemovals() {
		delete(p.held, name)
	}
	var digest assignment.Digest
	p.checks = p.checks[:0]
	for name, a := range p.held {
		digest.Add(name, a.GetFingerprint())
		p.checks = append(p.checks, a.GetCheck())
	}
	return &meshv1.AssignmentAck{Revision: u.GetRevision(), Held: int32(len(p.held)), Digest: uint64(digest)}
}

// next is a batch of the checks whose turn it is.
func (p *fakeProber) next() (*meshv1.ProberMessage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.checks) < benchChecks {
		return nil, fmt.Errorf("%d checks are assigned and not %d", len(p.checks), benchChecks)
	}
	b := &meshv1.ResultBatch{Kind: meshv1.ResultBatch_LIVE, Results: make([]*meshv1.Result, benchBatch)}
	for i := range b.Results {
		c := p.checks[p.turn%len(p.checks)]
		p.turn++
		p.sequence++
		b.Results[i] = &meshv1.Result{Check: c.GetName(), Sequence: p.sequence, CheckRevision: c.GetRevision(), Outcome: meshv1.Result_OK, StartTime: timestamppb.Now(),
			Duration: durationpb.New(40 * time.Millisecond), RemoteAddress: "192.0.2.7:443", Timings: &meshv1.Timings{Connect: durationpb.New(10 * time.Millisecond),
				Processing: durationpb.New(20 * time.Millisecond), Transfer: durationpb.New(10 * time.Millisecond)},
			Http: &meshv1.HttpResult{Status: 200, Version: "1.1", BodyBytes: 1000, ContentLength: 1000}}
	}
	return &meshv1.ProberMessage{Message: &meshv1.ProberMessage_Results{Results: b}}, nil
}

// send sends n batches and waits until all of them are acknowledged.
func (p *fakeProber) send(n int) error {
	for range n {
		m, err := p.next()
		if err != nil {
			return err
		}
		if err := p.say(m); err != nil {
			return err
		}
		if err := p.await(benchWindow); err != nil {
			return err
		}
	}
	return p.await(0)
}

// await waits until at most so many results are not acknowledged.
func (p *fakeProber) await(open uint64) error {
	for p.last+open < p.sequence {
		a, ok := <-p.acked
		if !ok {
			return fmt.Errorf("the session ended at result %d", p.sequence)
		}
		p.last = a
	}
	return nil
}

// BenchmarkIngest is a whole server that three probers in as many datacenters send results to: session, votes and verdicts of 2,000 checks, history on disk,
// acknowledgements, all by gRPC over loopback. A round is 50 batches of 100 results from each. The server is charged with all CPU time of its process,
// the embedded etcd's too.
func BenchmarkIngest(b *testing.B) {
	s, conn := serveBench(b)
	var checks []*meshv1.Check
	for i := range benchChecks {
		checks = append(checks, &meshv1.Check{Name: fmt.Sprintf("checks/shop-%05d", i), Uri: "http://shop.example.com/", Interval: durationpb.New(benchInterval), Probers: benchProbers})
	}
	in, answers := startProbers(b, s.Addresses().GRPC)
	if _, err := meshv1.NewCheckServiceClient(conn).Apply(b.Context(), &meshv1.ApplyRequest{Checks: checks}); err != nil {
		b.Fatal(err)
	}
	round := func(batches int) {
		fmt.Fprintln(in, batches)
		awaitAnswer(b, answers)
	}
	time.Sleep(5 * time.Second) // until placement has reached every prober; the round fails if it has not
	round(benchChecks / benchBatch)
	begin, beginCPU := time.Now(), cpuTime(b)
	results := 0
	for b.Loop() {
		round(50)
		results += 50 * benchBatch * benchProbers
	}
	wall, cpu := time.Since(begin), cpuTime(b)-beginCPU
	allUp(b, conn)
	b.ReportMetric(float64(results)/cpu.Seconds(), "results/cpu-s")
	b.ReportMetric(float64(results)/wall.Seconds(), "results/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(results), "cpu-us/result")
	b.ReportMetric(0, "ns/op")
}

// allUp sees to it that the votes were counted: every check has that many, and is up.
func allUp(b *testing.B, conn *grpc.ClientConn) {
	for i := range benchChecks {
		st, err := meshv1.NewStatusServiceClient(conn).GetStatus(b.Context(), &meshv1.GetStatusRequest{Check: fmt.Sprintf("checks/shop-%05d", i)})
		if err != nil {
			b.Fatal(err)
		}
		if st.GetVerdict() != meshv1.CheckStatus_UP || len(st.GetVotes()) != benchProbers {
			b.Fatalf("%s is %s by %d votes", st.GetCheck(), st.GetVerdict(), len(st.GetVotes()))
		}
	}
}

// serveBench runs a server of its own until the benchmark ends.
func serveBench(b *testing.B) (*Server, *grpc.ClientConn) {
	s, err := New(Config{Data: b.TempDir(), GRPCListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0"}, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		cancel()
		b.Fatal(err)
	}
	conn, err := grpc.NewClient(s.Addresses().GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		cancel()
		b.Fatal(err)
	}
	b.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	return s, conn
}

// startProbers starts the process of the probers.
func startProbers(b *testing.B, address string) (io.Writer, *bufio.Scanner) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestBenchProbers$", "-test.v")
	cmd.Env = append(os.Environ(), probersVariable+"="+address)
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
	answers := bufio.NewScanner(out)
	awaitAnswer(b, answers)
	return in, answers
}

func awaitAnswer(b *testing.B, answers *bufio.Scanner) {
	b.Helper()
	for answers.Scan() {
		if strings.Contains(answers.Text(), "answer ") {
			return
		}
		if text := answers.Text(); strings.Contains(text, "_test.go:") {
			b.Fatal(text)
		}
	}
	b.Fatal("the probers ended")
}

// cpuTime is the CPU time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
