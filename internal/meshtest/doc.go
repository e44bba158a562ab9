// Package meshtest tests the whole mesh in one testing/synctest bubble: the real etcd client on an etcd in memory, real servers (store, election, controller,
// gateway), real probers with their files, and everything that can happen to them. Hours of mesh time pass in seconds.
//
// What is not real: targets (what a probe meets is set by the test), the history (kept in memory, and it can stall), the disks' hanging, and the members of etcd (one
// store in memory stands for all of them, and is lost, slow, silent or stale as a whole). Notifications go over the simulated network to an HTTP server that knows
// idempotency keys.
//
// TestSchedules draws a schedule of faults from a seed, plays it, mends everything, and holds the mesh to its invariants meanwhile and afterwards: etcd's own record of
// every transaction, what the probers met and what the receiver was told are compared with each other, and none of it is taken from the minds. A seed that
// fails prints its schedule, what servers and probers logged meanwhile, and how to play it again:
//
//	go test ./internal/meshtest -run 'TestSchedules$' -meshtest.seed=N -v
//
// More are played with -meshtest.seeds=N -meshtest.first=M; with -v they end with what they came to: schedules, faults of each kind, incidents, notifications, violations.
// The schedule follows from the seed; the order in which goroutines run does not, so that a seed that failed is best played some times over (-count=20).
//
// The tests in mutation_test.go show what the invariants are worth: they take a guard away, the leader's fence, the votes told anew at attach, the outbox in the
// transaction, and are content only when an invariant is broken then.
package meshtest
