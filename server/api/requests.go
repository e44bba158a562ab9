package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"google.golang.org/protobuf/proto"
)

// digestOf identifies a request: two with the same digest ask for the same.
func digestOf(request proto.Message) string {
	bare := proto.Clone(request)
	m := bare.ProtoReflect()
	if f := m.Descriptor().Fields().ByName("request_id"); f != nil {
		m.Clear(f)
	}
	h := sha256.New()
	h.Write([]byte(m.Descriptor().FullName())) // never fails: see hash.Hash
	// A message from the wire always marshals: its texts were checked when it was read.
	encoded, _ := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	h.Write(encoded)
	return hex.EncodeToString(h.Sum(nil))
}

// answered tells whether this write was carried out before, and then gives the resource as it is now. The error is REQUEST_ID_REUSED when another
// request had the id, or NOT_FOUND when the resource was deleted since.
func (c collection[T]) answered(ctx context.Context, w write[T]) (r T, again bool, err error) {
	if w.requestID == "" || w.validateOnly {
		return r, false, nil
	}
	name, found, err := c.api.store.LookupRequest(ctx, w.requestID, w.digest)
	if err != nil || !found {
		return r, false, err
	}
	r, err = c.get(ctx, name)
	return r, true, err
}

// remember keeps that a write was carried out. It is done, so a failure is not the caller's: a repetition is then treated as a new call.
func (c collection[T]) remember(ctx context.Context, w write[T], name string) {
	c.api.remember(ctx, w.requestID, w.digest, name)
}

func (a *API) remember(ctx context.Context, requestID, digest, name string) {
	if requestID == "" {
		return
	}
	if err := a.store.RememberRequest(ctx, requestID, digest, name); err != nil {
		a.log.WarnContext(ctx, "request id not remembered, repeating the request would be a new one", "name", name, "err", err)
	}
}
