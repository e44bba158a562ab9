// Package localmesh owns the processes of a mesh that runs on one machine: in each datacenter a server with an etcd member, and probers, each a process that can
// be stopped, killed, paused and started again by its name.
//
// It knows processes and files, nothing of what they do: a [Member] is a command line, a log file and what has become of it. `probemesh up --datacenters` runs
// one for people to try, and the drills run one to break it:
//
//	m, err := localmesh.New(localmesh.Options{Program: self, Data: dir, Datacenters: 3, Probers: 2})
//	...
//	defer m.Stop()
//	err = m.Start(ctx)                 // every process, until every server is ready; writes addresses.json
//	err = m.Server("a").Kill()         // SIGKILL, and its end awaited
//	err = m.Server("a").Start()        // on the same ports and the same data
//	err = m.Await(ctx, m.Server("a"))  // ready again
//
// The plan (names and ports) is kept in mesh.json below the data directory, so that a mesh starts again as it was: etcd's members know each other by their
// ports. addresses.json says what runs where, for other programs:
//
//	{"servers": [{"name": "a", "datacenter": "a", "grpc": "127.0.0.1:7700", "http": "127.0.0.1:7701", "pid": 4711}, ...],
//	 "probers": [{"name": "a-1", "datacenter": "a", "pid": 4714}, ...]}
//
// Every process reads its standard input and stops when that ends, so none outlives the one that started it, however that one ends; where Linux can, one that
// is paused at that moment is killed.
//
// A Mesh may be used concurrently. Its Options must not be changed after New.
package localmesh
