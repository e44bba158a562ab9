// Package health owns what a server says about the mesh itself: which conditions hold, how bad each is, what to do about it and what merely follows from
// another one. It never says anything about what the checks watch.
//
// Three parts, each of which can be read alone:
//
//   - [Evaluate] is pure: facts in, conditions out. The table in codes.go has, for every code, how bad it is, how long it must hold before anybody is told, how
//     long it must be gone before it counts as gone, which other conditions explain it, and what an operator does about it.
//   - [Tracker] gives conditions their memory: since when each holds, and that none flaps.
//   - [Monitor] gathers the facts of one server every second, in one place: from the controller, the other servers' beats, etcd, the outbox, the history and the
//     disk. Every server has one, so that any of them can be asked: also the one that is alone in its datacenter while nothing else answers.
//
// What follows from another condition is not left out but carries its cause: the loss of a datacenter is one condition with its silent probers, its silent server
// and its etcd member below it, not four alarms. A cause is as bad as the worst of what follows from it.
//
// The same conditions are in GetMesh (`probemesh get mesh`), /readyz, the status page and the metric probemesh_mesh_condition. Those that keep alerts from coming
// also silence the dead man's switch, see [Monitor.MayTell] and package deadman.
//
//	m, err := health.New(health.Config{Server: "servers/a", ...}, sources, health.Deps{Log: log, Meter: meter})
//	go m.Run(ctx)
//	fmt.Println(m.Mesh().GetSummary())
package health
