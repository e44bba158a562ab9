package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// storeMoment is how long a read waits for etcd before it is answered from memory: a linearizable read takes milliseconds, an election of etcd's members one to two seconds.
const storeMoment = time.Second

// FromMemory is the header (gRPC metadata) of an answer to a read that was given from this server's memory because etcd did not answer: what the server followed last. It
// may lack a write that another server has just taken.
const FromMemory = "probemesh-from-memory"

// StoreLost says who knows whether etcd is lost; reads are then answered from memory at once. It is called before Register; the function may be called concurrently and
// does not block.
func (a *API) StoreLost(lost func() (since time.Time, yes bool)) { a.lost = lost }

// recall is one call that reads the store, and answers from memory what the store does not. Used by one goroutine.
type recall struct {
	api *API
	ctx context.Context
	// away: the store has not answered in this call.
	away bool
}

func (a *API) recall(ctx context.Context) *recall { return &recall{api: a, ctx: ctx} }

// recalled gives what read has from the store. When etcd does not answer within a moment it gives what memory has; without anything there, the error of the store.
func recalled[T any](r *recall, read func(context.Context) (T, error), memory func() (T, bool)) (T, error) {
	if !r.away && r.api.lost != nil {
		_, r.away = r.api.lost()
	}
	var v T
	err := error(errAway)
	if !r.away {
		ctx, cancel := context.WithTimeout(r.ctx, storeMoment)
		v, err = read(ctx)
		cancel()
		if !fault.IsReason(err, meshv1.ErrorReason_STORE_UNAVAILABLE) || r.ctx.Err() != nil {
			return v, err
		}
		r.away = true
	}
	known, ok := memory()
	if !ok {
		return v, err
	}
	// It fails only for a stream that has begun to answer, which has said it then.
	_ = grpc.SetHeader(r.ctx, metadata.Pairs(FromMemory, "etcd does not answer"))
	return known, nil
}

// errAway is the fault of a read for which nothing is at hand while etcd is known to be lost.
var errAway = fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, "",
	"etcd does not answer, and this server knows nothing of it by itself; try again in a second").Retry(time.Second)

// errHistoryAway is the fault of a list of incidents that would have to name resolved ones.
var errHistoryAway = fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, "",
	"resolved incidents are kept in etcd, which does not answer; open ones can be listed meanwhile, by the filter `state = OPEN`").Retry(time.Second)

// openIncident gives an open incident as the mesh holds it.
func (a *API) openIncident(name string) (*meshv1.Incident, bool) {
	for _, i := range a.mesh.OpenIncidents() {
		if i.GetName() == name {
			return i, true
		}
	}
	return nil, false
}

// receiver gives a receiver as the mesh holds it.
func (a *API) receiver(name string) (*meshv1.Receiver, bool) {
	for _, r := range a.mesh.Receivers() {
		if r.GetName() == name {
			return r, true
		}
	}
	return nil, false
}

// checksAfter gives up to limit checks that the mesh follows, after one.
func (a *API) checksAfter(after string, limit int) (batch []*meshv1.Check) {
	for _, name := range a.statusNames(after, limit) {
		if c, ok := a.mesh.Check(name); ok {
			batch = append(batch, c)
		}
	}
	return batch
}

// receiversAfter gives up to limit receivers that the mesh follows, after one.
func (a *API) receiversAfter(after string, limit int) []*meshv1.Receiver {
	all := a.mesh.Receivers()
	from, found := slices.BinarySearchFunc(all, after, func(r *meshv1.Receiver, name string) int { return strings.Compare(r.GetName(), name) })
	if found {
		from++
	}
	return all[from:min(len(all), from+limit)]
}
