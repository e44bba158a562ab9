package etcdfake

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/test/bufconn"
)

// Server is the etcd in memory. Its methods may be called concurrently.
type Server struct {
	receivers sync.WaitGroup // goroutines that read requests of watch streams

	// mu guards everything below.
	mu        sync.Mutex
	data      *mvcc
	leases    map[int64]*lease
	nextLease int64
	changed   chan struct{} // closed and replaced with each new revision
	broken    chan struct{} // closed and replaced when watches are broken
	faults    faults
	member    *member // nil while stopped
	observe   func(Write)
	rewrite   func(*pb.TxnRequest) (now, then *pb.TxnRequest)
}

// member is one run of the gRPC server.
type member struct {
	listener *bufconn.Listener
	server   *grpc.Server
	done     chan struct{}
}

// New starts a server that is stopped when the test ends. Inside a bubble, call it in the bubble.
func New(t testing.TB) *Server {
	s := &Server{data: newMVCC(), leases: map[int64]*lease{}, nextLease: 7000, changed: make(chan struct{}), broken: make(chan struct{})}
	s.Start()
	t.Cleanup(s.close)
	return s
}

// Start starts a stopped server, with all its data.
func (s *Server) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.member != nil {
		return
	}
	m := &member{listener: bufconn.Listen(1 << 20), server: grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20)), done: make(chan struct{})}
	pb.RegisterKVServer(m.server, kvServer{s: s})
	pb.RegisterWatchServer(m.server, watchServer{s: s})
	pb.RegisterLeaseServer(m.server, leaseServer{s: s})
	s.member = m
	go func() {
		defer close(m.done)
		// Serve returns an error when it is stopped; there is nothing else that could go wrong in memory.
		_ = m.server.Serve(m.listener)
	}()
}

// Stop stops the server as a crash of its process would: connections break, data stays, leases go on ageing.
func (s *Server) Stop() {
	s.mu.Lock()
	m := s.member
	s.member = nil
	s.mu.Unlock()
	if m == nil {
		return
	}
	m.server.Stop()
	<-m.done
	s.receivers.Wait()
}

func (s *Server) close() {
	s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, le := range s.leases {
		le.timer.Stop()
	}
}

// Client makes a client that is closed when the test ends.
func (s *Server) Client(t testing.TB) *clientv3.Client {
	c, _ := s.Link(t)
	return c
}

// Link makes a client together with the means to cut it off from the server.
func (s *Server) Link(t testing.TB) (*clientv3.Client, *Link) {
	l := &Link{s: s, conns: map[net.Conn]bool{}}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"passthrough:///etcdfake"},
		Logger:    zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(l.dial),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: 3 * time.Second}}),
		},
	})
	if err != nil {
		t.Fatalf("etcdfake: client: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("etcdfake: close client: %v", err)
		}
	})
	return c, l
}

// Link is the connection of one client. Its methods may be called concurrently.
type Link struct {
	s *Server
	// mu guards everything below.
	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

var errCut = errors.New("etcdfake: no route to the server")

func (l *Link) dial(ctx context.Context, _ string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s.mu.Lock()
	m := l.s.member
	l.s.mu.Unlock()
	if l.cut || m == nil {
		return nil, errCut
	}
	c, err := m.listener.DialContext(ctx)
	if err == nil {
		l.conns[c] = true
	}
	return c, err
}

// Cut breaks the client's connection and refuses new ones until Mend.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.conns {
		_ = c.Close() // already closed is fine
		delete(l.conns, c)
	}
}

// Mend lets the client connect again.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// Revision is the current revision.
func (s *Server) Revision() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data.rev
}

// Keys lists the keys that live now, sorted.
func (s *Server) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, v := range s.data.span([]byte{0}, []byte{0}, s.data.rev) {
		out = append(out, string(v.Key))
	}
	return out
}

func (s *Server) headerLocked() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1, MemberId: 1, Revision: s.data.rev, RaftTerm: 1}
}

// wakeLocked wakes all watch streams.
func (s *Server) wakeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) signals() (changed, broken <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed, s.broken
}
