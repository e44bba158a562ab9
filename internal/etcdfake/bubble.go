package etcdfake

import (
	_ "unsafe" // for go:linkname
)

// The client's watcher derives its streams' contexts from one whose Done is this channel, which is made when the program starts and never closed.
// A goroutine that waits for it, made by package context, does not count as blocked in a bubble, since the channel is not of the bubble: time would
// stand still for as long as a watch is open. Without the channel, Done is nil, which means the same (never), and no goroutine waits.
//
//go:linkname valCtxCh go.etcd.io/etcd/client/v3.valCtxCh
var valCtxCh chan struct{}

// It is taken away before any test runs, so that no client reads it meanwhile.
var _ = func() bool {
	valCtxCh = nil
	return true
}()
