// Package api serves the probemesh.v1 API: checks, statuses, incidents, probers, receivers and servers. What each call promises is written in
// proto/probemesh/v1/*_service.proto, and this package keeps it. (SessionService and HistoryService are served by their own packages.)
//
// The API owns no state. It writes through server/store, by compare-and-set, and reads what the mesh holds true through [Mesh]. So any server
// answers any call, and a write that has returned is seen by every later read through any server.
//
// While etcd does not answer, reads are answered from what this server has followed, within a moment and with the header [FromMemory]: checks, statuses, probers,
// receivers, servers and open incidents. What is in no memory (resolved incidents; what is owed to receivers) is refused with UNAVAILABLE, or said to be unknown.
//
// One call is one method in the file of its noun (checks.go, receivers.go, ...). What they share is next to them: names.go and validate.go (what a
// request may say), requests.go (repeating a write), watch.go (streams), and the pure packages below: filter, page and fields.
//
// Every error is a *fault.Error. A request with several faults gets all of them at once, each with the path of its field, and changes nothing.
//
// The API starts no goroutine but one for each watch, which ends with the watch. [API.Stop] ends the watches, so that a server can stop:
//
//	a := api.New(store, mesh, test, logger)
//	a.Register(grpcServer)
//	...
//	a.Stop()
package api
