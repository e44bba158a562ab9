//go:build linux

package gateway

import (
	"fmt"
	"net"
	"net/rpc"
	"os"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/probemesh/probemesh/internal/version"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// stormFleet is many made-up probers of one process, each on a connection of its own over a Unix socket.
type stormFleet struct {
	address  string        // of the server, as gRPC writes it
	down     sync.Map      // checks that fail
	dialling chan struct{} // has an element for each prober that has said Hello and has no Welcome
	probers  []*stormProber
	conns    []*grpc.ClientConn // made, and not yet used

	mu    sync.Mutex
	asked map[string]time.Time // when a prober was first asked to confirm an outage, by check
}

func newStormFleet(address string) *stormFleet {
	return &stormFleet{address: address, dialling: make(chan struct{}, stormDialling), asked: map[string]time.Time{}}
}

// add makes probers with names of a prefix, in so many datacenters with that prefix.
func (f *stormFleet) add(prefix string, count, datacenters int) {
	for i := range count {
		name := fmt.Sprint(prefix, "-", i)
		f.probers = append(f.probers, &stormProber{fleet: f, held: map[string]held{}, hello: &meshv1.Hello{Prober: name, BootId: "boot-" + name,
			Build: "test", Protocol: version.Protocol, Datacenter: fmt.Sprint("dc-", prefix, "-", i%datacenters), Capabilities: []string{"tcp", "ipv4"}, FirstSequence: 1}})
	}
}

// connect makes a connection for each prober, none of which dials yet.
func (f *stormFleet) connect() error {
	f.conns = f.conns[:0]
	for range f.probers {
		conn, err := grpc.NewClient(f.address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
		if err != nil {
			return err
		}
		f.conns = append(f.conns, conn)
	}
	return nil
}

// come attaches the probers within the jitter, on the connections that are made, and returns when all have been welcomed. A prober that is refused tries again.
func (f *stormFleet) come(jitter time.Duration) time.Duration {
	begin := time.Now()
	var waiting sync.WaitGroup
	for i, conn := range f.conns {
		waiting.Add(1)
		f.probers[i].begin(conn, jitter, waiting.Done)
	}
	f.conns = nil
	waiting.Wait()
	return time.Since(begin)
}

// leave ends all sessions without a word, and returns when they have ended at this side.
func (f *stormFleet) leave() {
	for _, p := range f.probers {
		p.leave()
	}
	for _, p := range f.probers {
		p.living.Wait()
	}
}

// StormState is what the other process tells of its probers.
type StormState struct {
	Held int      // assignments
	Lost []string // a line for each prober that lost a session without the test's doing
}

func (f *stormFleet) state() (s StormState) {
	for _, p := range f.probers {
		s.Held += p.holds()
		if n := p.lost.Load(); n > 0 {
			s.Lost = append(s.Lost, fmt.Sprintf("%s, with %d checks, lost its session %d times by itself: %v", p.hello.GetProber(), p.holds(), n, p.why.Load()))
		}
	}
	return s
}

// note takes in that a prober was asked for a run of a check.
func (f *stormFleet) note(check string) {
	if _, down := f.down.Load(check); !down {
		return // for its first vote
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked[check].IsZero() {
		f.asked[check] = time.Now()
	}
}

// StormFar serves a fleet to the process that has the server, by net/rpc: the probers of a mesh are not in one process with their server, where they would share its garbage collector
// and the queue of its goroutines. Methods without a result give nothing in it.
type StormFar struct{ fleet *stormFleet }

// Connect makes the connections for the next Come.
func (f *StormFar) Connect(int, *int) error { return f.fleet.connect() }

// Come attaches all within the jitter and tells how long it took until the last had its Welcome.
func (f *StormFar) Come(jitter time.Duration, took *time.Duration) error {
	*took = f.fleet.come(jitter)
	return nil
}

// Leave ends all sessions.
func (f *StormFar) Leave(int, *int) error {
	f.fleet.leave()
	return nil
}

// State tells of the probers.
func (f *StormFar) State(_ int, s *StormState) error {
	*s = f.fleet.state()
	return nil
}

// TestFarProbersOfAStorm is the other process's part; it skips where it is not started by a storm.
func TestFarProbersOfAStorm(t *testing.T) {
	address := os.Getenv("PROBEMESH_STORM_SERVER")
	if address == "" {
		t.Skip("the far process of TestProbersThatComeAtOnceDelayNoConfirmation")
	}
	var count int
	if _, err := fmt.Sscan(os.Getenv("PROBEMESH_STORM_COUNT"), &count); err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(3, "rpc")
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	fleet := newStormFleet(address)
	fleet.add("far", count, stormDatacenters)
	server := rpc.NewServer()
	if err := server.RegisterName("Far", &StormFar{fleet}); err != nil {
		t.Fatal(err)
	}
	server.ServeConn(conn) // until the other process closes it
	fleet.leave()
}
