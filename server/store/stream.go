package store

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// watchOpen is how long the server may take to confirm a new watch.
const watchOpen = 10 * time.Second

// errWatchHangs says that a watch was not confirmed in time.
var errWatchHangs = errors.New("etcd did not confirm the watch in 10s")

// OpenWatch is the client's Watch with what a watch needs to recover whatever happens: it ends when its member loses the leader; it gives up, with an
// error, when the member does not confirm it in 10s; and it has a stream of its own, named by who, because a new watch would otherwise join
// the stream on which the last one hangs. who must be different each time. The returned context is the watch's, for RequestProgress.
func OpenWatch(ctx context.Context, c *clientv3.Client, who, key string, opts ...clientv3.OpOption) (context.Context, clientv3.WatchChan, error) {
	ctx = metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "probemesh-watch", who)
	ctx, cancel := context.WithCancelCause(ctx)
	hung := time.AfterFunc(watchOpen, func() { cancel(errWatchHangs) })
	ch := c.Watch(ctx, key, opts...)
	if !hung.Stop() {
		return nil, nil, context.Cause(ctx)
	}
	// ctx ends with its parent; nothing else is to cancel it.
	return ctx, ch, ctx.Err()
}
