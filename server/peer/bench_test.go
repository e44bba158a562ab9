package peer

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/history"
)

// benchHost is a server that counts what it is told.
type benchHost struct {
	list    []*statev1.ServerRecord
	votes   atomic.Int64
	entries atomic.Int64
}

func (h *benchHost) Servers() ([]*statev1.ServerRecord, <-chan struct{}) { return h.list, nil }
func (h *benchHost) Local() ([]*peerv1.Presence, []*meshv1.Result)       { return nil, nil }
func (h *benchHost) PeerPresences(string, bool, []*peerv1.Presence)      {}
func (h *benchHost) PeerVotes(_ string, r []*meshv1.Result)              { h.votes.Add(int64(len(r))) }
func (h *benchHost) PeerSilent(string)                                   {}
func (h *benchHost) PeerRefusal(string, string, string)                  {}
func (h *benchHost) RunHere(string, *meshv1.RunNow) bool                 { return false }
func (h *benchHost) Append(_ context.Context, entries []history.Entry) error {
	h.entries.Add(int64(len(entries)))
	return nil
}

// benchMesh is three servers on loopback TCP, each following the others.
func benchMesh(b *testing.B) (hosts [3]*benchHost, all [3]*Peers) {
	var list []*statev1.ServerRecord
	var sockets [3]net.Listener
	for i, name := range []string{"a", "b", "c"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		sockets[i] = l
		list = append(list, &statev1.ServerRecord{Name: "servers/" + name, GrpcAddress: l.Addr().String(), BootId: name})
	}
	for i, name := range []string{"a", "b", "c"} {
		hosts[i] = &benchHost{list: list}
		p, err := New(Config{Server: name, BootID: name, Dir: b.TempDir(), CatchUp: 1_000_000}, Deps{Log: slog.New(slog.DiscardHandler), Meter: noop.Meter{}, History: hosts[i],
			Dial: func(address string) (*grpc.ClientConn, error) {
				return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(StreamWindow), grpc.WithInitialConnWindowSize(ConnectionWindow))
			}})
		if err != nil {
			b.Fatal(err)
		}
		all[i] = p
		s := grpc.NewServer()
		p.Register(s)
		go s.Serve(sockets[i])
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx, hosts[i]) }()
		b.Cleanup(func() {
			cancel()
			<-ended
			s.Stop()
		})
	}
	for _, p := range all {
		for {
			views, changed := p.Watch()
			if len(views) == 2 && views[0].Beat != nil && views[1].Beat != nil {
				break
			}
			<-changed
		}
	}
	return hosts, all
}

// benchResults is a batch such as probers send: HTTP results of 100 checks.
func benchResults() ([]*meshv1.Result, []history.Entry) {
	var list []*meshv1.Result
	var entries []history.Entry
	for i := range 100 {
		r := &meshv1.Result{Check: "checks/shop-" + string(rune('a'+i%26)), Prober: "probers/fra-1", Sequence: uint64(i), StartTime: timestamppb.Now(), Duration: durationpb.New(37 * time.Millisecond),
			Outcome: meshv1.Result_OK, Http: &meshv1.HttpResult{Status: 200, Version: "2", BodyBytes: 5120, ContentLength: 5120}}
		list = append(list, r)
		entries = append(entries, history.Entry{Result: r, Prober: "fra-1", Datacenter: "fra", URI: "https://shop.example.com/health"})
	}
	return list, entries
}

// BenchmarkRelay takes results to two other servers, as votes and for the history, over loopback TCP: sending and receiving in one process. The histories themselves
// are not part of it.
func BenchmarkRelay(b *testing.B) {
	hosts, all := benchMesh(b)
	list, entries := benchResults()
	b.ResetTimer()
	sent := int64(0)
	for b.Loop() {
		all[0].Votes(list)
		if err := all[0].Append(context.Background(), entries); err != nil {
			b.Fatal(err)
		}
		sent += int64(len(list))
		for min(hosts[1].entries.Load(), hosts[2].entries.Load(), hosts[1].votes.Load(), hosts[2].votes.Load()) < sent-5000 {
			time.Sleep(time.Millisecond)
		}
	}
	for min(hosts[1].entries.Load(), hosts[2].entries.Load(), hosts[1].votes.Load(), hosts[2].votes.Load()) < sent {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "results/s")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/result")
}
