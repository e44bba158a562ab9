package etcdfake

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"
)

// watchServer is etcd's Watch service.
type watchServer struct {
	pb.UnimplementedWatchServer
	s *Server
}

// watcher is one watch of a stream.
type watcher struct {
	id       int64
	from     []byte
	end      []byte
	start    int64 // the revision it was asked to begin at
	next     int64 // the first revision not sent yet
	prev     bool
	fragment bool
	noPut    bool
	noDelete bool
}

// watchStream is one stream with its watchers. Only its handler's goroutine touches it.
type watchStream struct {
	s        *Server
	stream   pb.Watch_WatchServer
	watchers map[int64]*watcher
	order    []int64
	nextID   int64
}

func (w watchServer) Watch(stream pb.Watch_WatchServer) error {
	if err := w.s.admit(stream.Context(), false); err != nil {
		return err
	}
	ws := &watchStream{s: w.s, stream: stream, watchers: map[int64]*watcher{}}
	requests := make(chan *pb.WatchRequest)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	// Recv ends when this handler returns, and the server waits for its goroutine when it is closed.
	w.s.receivers.Go(func() {
		defer close(requests)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	})
	return ws.run(ctx, requests)
}

func (ws *watchStream) run(ctx context.Context, requests <-chan *pb.WatchRequest) error {
	for {
		changed, broken := ws.s.signals()
		if err := ws.deliver(); err != nil {
			return err
		}
		select {
		case r, ok := <-requests:
			if !ok {
				return nil
			}
			if err := ws.request(r); err != nil {
				return err
			}
		case <-changed:
		case <-broken:
			return ws.s.breakReason()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (ws *watchStream) request(r *pb.WatchRequest) error {
	switch r := r.RequestUnion.(type) {
	case *pb.WatchRequest_CreateRequest:
		return ws.create(r.CreateRequest)
	case *pb.WatchRequest_CancelRequest:
		if _, ok := ws.watchers[r.CancelRequest.WatchId]; ok {
			ws.drop(r.CancelRequest.WatchId)
			return ws.send(&pb.WatchResponse{WatchId: r.CancelRequest.WatchId, Canceled: true})
		}
		return nil
	case *pb.WatchRequest_ProgressRequest:
		if ws.s.starved() {
			return nil
		}
		// Everything up to the present revision has been delivered by this goroutine just now, or is by the call below.
		rev := ws.s.Revision()
		if err := ws.deliver(); err != nil {
			return err
		}
		for _, w := range ws.watchers {
			if w.start > rev {
				return nil // as etcd, which tells no progress to a watch whose first revision is still to come (mvcc, progressIfSync)
			}
		}
		return ws.stream.Send(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: rev}, WatchId: -1})
	default:
		return nil
	}
}

func (ws *watchStream) create(r *pb.WatchCreateRequest) error {
	w := &watcher{id: r.WatchId, from: r.Key, end: r.RangeEnd, next: r.StartRevision, prev: r.PrevKv, fragment: r.Fragment}
	for _, f := range r.Filters {
		w.noPut = w.noPut || f == pb.WatchCreateRequest_NOPUT
		w.noDelete = w.noDelete || f == pb.WatchCreateRequest_NODELETE
	}
	if w.id == 0 {
		for ws.watchers[ws.nextID] != nil {
			ws.nextID++
		}
		w.id = ws.nextID
		ws.nextID++
	}
	if w.next <= 0 {
		w.next = ws.s.Revision() + 1
	}
	w.start = w.next
	ws.watchers[w.id] = w
	ws.order = append(ws.order, w.id)
	return ws.send(&pb.WatchResponse{WatchId: w.id, Created: true})
}

func (ws *watchStream) drop(id int64) {
	delete(ws.watchers, id)
	for i, o := range ws.order {
		if o == id {
			ws.order = append(ws.order[:i], ws.order[i+1:]...)
			return
		}
	}
}

// deliver sends each watcher what it has not seen, one answer a revision.
func (ws *watchStream) deliver() error {
	for _, id := range append([]int64(nil), ws.order...) {
		w := ws.watchers[id]
		batches, compacted, ok := ws.s.pending(w)
		if compacted > 0 {
			ws.drop(id)
			err := ws.send(&pb.WatchResponse{WatchId: id, Canceled: true, CompactRevision: compacted,
				CancelReason: rpctypes.ErrCompacted.Error()})
			if err != nil {
				return err
			}
			continue
		}
		if !ok {
			continue
		}
		for _, b := range batches {
			if err := ws.sendEvents(w, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// sendEvents sends the events of one revision, in two fragments where the watcher takes fragments.
func (ws *watchStream) sendEvents(w *watcher, events []*mvccpb.Event) error {
	rev := events[0].Kv.ModRevision
	if w.fragment && len(events) > 1 {
		half := len(events) / 2
		err := ws.stream.Send(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: rev}, WatchId: w.id, Events: events[:half], Fragment: true})
		if err != nil {
			return err
		}
		events = events[half:]
	}
	return ws.stream.Send(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: rev}, WatchId: w.id, Events: events})
}

func (ws *watchStream) send(r *pb.WatchResponse) error {
	r.Header = &pb.ResponseHeader{Revision: ws.s.Revision()}
	return ws.stream.Send(r)
}

// pending gives the watcher's events by revision and moves it on. compacted is not 0 when what it wants is gone; ok is false while watches
// are starved.
func (s *Server) pending(w *watcher) (batches [][]*mvccpb.Event, compacted int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.starve {
		return nil, 0, false
	}
	if w.next < s.data.compacted {
		return nil, s.data.compacted, true
	}
	var last int64
	for _, ev := range s.data.since(w.next) {
		if !inRange(string(ev.Kv.Key), w.from, w.end) || s.data.hidden[ev] ||
			(w.noPut && ev.Type == mvccpb.Event_PUT) || (w.noDelete && ev.Type == mvccpb.Event_DELETE) {
			continue
		}
		ev = proto.Clone(ev).(*mvccpb.Event)
		if !w.prev {
			ev.PrevKv = nil
		}
		if ev.Kv.ModRevision != last {
			batches, last = append(batches, nil), ev.Kv.ModRevision
		}
		batches[len(batches)-1] = append(batches[len(batches)-1], ev)
	}
	w.next = max(w.next, s.data.rev+1)
	return batches, 0, true
}
