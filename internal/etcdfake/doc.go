// Package etcdfake is an etcd in memory, for tests: it speaks etcd's own gRPC API (KV, Watch, Lease) over an in-memory connection, so that the
// real client and everything built on it run inside testing/synctest bubbles, where hours of lease time pass in milliseconds.
//
// It keeps etcd's meaning where the mesh depends on it: one revision a transaction, reads at old revisions until they are compacted, watches that
// start at a revision and are cancelled by a compaction, progress notifications, leases that expire by time (never below two seconds, as etcd
// itself raises them), limits of 128 operations and 1.5 MiB. One contract suite (server/store) runs on it and on the real thing.
// It has no raft, no authentication, no disk: it is one member that is always right, unless told to fail.
//
// What it is told to do wrong is in faults.go: lose answers, refuse, be slow, break or starve watches, forget leases, restart, cut one client off.
//
//	synctest.Test(t, func(t *testing.T) {
//		etcd := etcdfake.New(t)
//		client := etcd.Client(t)
//		...
//	})
package etcdfake
