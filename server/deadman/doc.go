// Package deadman calls a dead man's switch: a URL of somebody outside of the mesh who raises an alarm when the calls stop. It is for the one failure that no mesh
// can report itself, namely that all of it is gone.
//
// Only the server that leads calls, and only while it may: [Config.May] says whether alerts come. So silence outside means "alerts may not come", whatever the
// reason: no leader, no etcd, no quorum of datacenters, notifications that do not get out, or no mesh at all. The first call of a reign is made at once, so that a
// failover leaves no gap that anybody would notice; then one every interval. While it may not call it looks again every second, and calls as soon as it may.
//
// A call that fails is repeated within the interval with growing pauses. What counts is a status of 2xx, without following redirects. Each call carries a short
// JSON document with the state of the mesh, unless the method is GET.
//
//	s, err := deadman.New(deadman.Config{URL: "https://switch.example.com/ping/abc", May: may, Body: body}, deadman.Deps{Log: log, Meter: meter})
//	go s.Run(ctx)
package deadman
