// Package election owns the question which server leads: at most one at a time, numbered by terms that only ever grow.
//
// The leader holds one key in etcd, bound to a lease. Who finds it absent writes it, in a transaction that also raises the term, which has a key
// of its own without a lease: terms never repeat, even when every server was away for a week. The key's create revision is the reign's
// fence ([store.Fence]): whatever a leader writes compares it, so that one that was paused, or believes in itself for too long, changes nothing.
//
// A reign is one context. It ends when the lease is lost, when the key is deleted or another's, when [Election.Resign] says so, and by the
// leader's own monotonic clock when it has not been able to renew for the lease's time less a margin: a leader whose disk or network hangs stops
// before others may begin.
//
// A server that wants to stop, resigns: it deletes its key, and the others, who watch it, need a round trip or two to have a leader again. A
// server that comes back finds its own key of its former boot and deletes it by compare-and-delete, rather than waiting for its own ghost's lease.
//
// There is no queue of candidates: with a handful of servers, all of them trying at once costs one refused transaction each.
package election
