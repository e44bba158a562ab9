// Package meshtest tests the whole mesh in one testing/synctest bubble: the real etcd client on an etcd in memory, real servers (store, election, controller,
// gateway), real probers with their files, and everything that can happen to them. Hours of mesh time pass in seconds.
//
// What is not real: targets (what a probe meets is set by the test), the history (kept in memory, and it can stall), and the sending of notifications
// (what the outbox owes goes to an inbox in memory, under the same fence).
//
// TestMixedFaults runs a schedule of faults from a seed and then holds the mesh to its invariants. A seed that fails is run again with
//
//	go test ./internal/meshtest -run TestMixedFaults -meshtest.seed=N -v
//
// and more of them with -meshtest.seeds=N. The schedule follows from the seed; the order in which goroutines run does not.
package meshtest
