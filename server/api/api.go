package api

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// TestDelivery sends one notification with transition TEST to a receiver, waits for its answer, and never returns nil.
type TestDelivery func(ctx context.Context, r *meshv1.Receiver) *meshv1.TestReceiverResponse

// API answers the calls. Make one with New; its methods may be called concurrently.
type API struct {
	store *store.Store
	mesh  Mesh
	test  TestDelivery
	log   *slog.Logger
	// describe fills in what has been heard of a server; nil: nothing has.
	describe func(*meshv1.Server)
	// missed gives the servers that are not heard and ought to be; nil: none is known.
	missed func() []*meshv1.Server
	// lost tells whether etcd is lost; nil: that shows when it does not answer.
	lost func() (time.Time, bool)

	checks    collection[*meshv1.Check]
	receivers collection[*meshv1.Receiver]
	watches   watches
}

// New makes the API over the store and the mesh. test delivers test notifications. A nil logger discards.
func New(s *store.Store, mesh Mesh, test TestDelivery, logger *slog.Logger) *API {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	a := &API{store: s, mesh: mesh, test: test, log: logger}
	a.watches.stopping = make(chan struct{})
	a.checks = checkCollection(a)
	a.receivers = receiverCollection(a)
	return a
}

// DescribeServers says who fills in what has been heard of a server: whether and whom it hears, how many probers, and how far it is behind. It is called before
// Register; the function may be called concurrently and does not block.
func (a *API) DescribeServers(fill func(*meshv1.Server)) { a.describe = fill }

// MissedServers says who knows of servers that ought to be there and are not heard, with what is known of them: those among them that have no record are listed as gone. It is called
// before Register; the function may be called concurrently and does not block.
func (a *API) MissedServers(list func() []*meshv1.Server) { a.missed = list }

// Register puts the seven services of this package onto a server that does not serve yet.
func (a *API) Register(r grpc.ServiceRegistrar) {
	meshv1.RegisterCheckServiceServer(r, checkService{api: a})
	meshv1.RegisterStatusServiceServer(r, statusService{api: a})
	meshv1.RegisterIncidentServiceServer(r, incidentService{api: a})
	meshv1.RegisterProberServiceServer(r, proberService{api: a})
	meshv1.RegisterBuildServiceServer(r, buildService{api: a})
	meshv1.RegisterReceiverServiceServer(r, receiverService{api: a})
	meshv1.RegisterServerServiceServer(r, serverService{api: a})
}

// Stop ends every watch with SHUTTING_DOWN, refuses new ones, and returns when their goroutines have ended. It may be called more than once. Call
// it when the server begins to stop: a graceful stop waits for watches.
func (a *API) Stop() { a.watches.stop() }

// watches are the streams that are open.
type watches struct {
	stopping chan struct{} // closed by stop
	running  sync.WaitGroup

	mu      sync.Mutex // guards stopped, and that running grows only before it is set
	stopped bool
}

// enter counts a watch, which calls running.Done at its end. It is false when the server stops.
func (w *watches) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false
	}
	w.running.Add(1)
	return true
}

func (w *watches) stop() {
	w.mu.Lock()
	if !w.stopped {
		w.stopped = true
		close(w.stopping)
	}
	w.mu.Unlock()
	w.running.Wait()
}
