// Package drill breaks a local mesh of real processes on purpose and counts what its users would have noticed.
//
// A [Scenario] is what is broken and how; a [Run] is one execution of it: it owns a mesh of processes (package localmesh), targets that fail when they are told to
// ([Target]), a receiver that remembers every notification ([Receiver]), and the figures. The targets are the ground truth: they know to the millisecond when each
// was down. [Judge] holds the receiver's record against it.
//
// # Figures
//
// Every drill counts, by [Run.Conclude]: alerts lost, doubled, false and late; the time from a target's failure to the receiver; resolved notes that are missing,
// doubled or too early; results that are missing from the history of any server after the drain. Drills add figures of their own, such as the time from the kill
// of the leader to the next decision. Each [Figure] says what it is held against and why; [Report.Passed] is false when one does not hold.
//
// A notification counts once however often it is sent with the same Idempotency-Key, since that is what the key is for; the repeats are counted apart.
//
// # Writing a scenario
//
//	drill.Scenario{
//		Name: "server-kill", Summary: "...", Proves: "...", Promise: "unbroken: ...", Times: 5, ShortTimes: 1, About: time.Minute, Requires: nil,
//		Run: func(ctx context.Context, r *drill.Run) error {
//			m, err := r.StartMesh(ctx, nil)                      // three datacenters, a server and a prober in each
//			...
//			targets, err := r.Watch(ctx, m, 8)                   // eight targets, each watched by a check, all UP
//			...
//			targets[0].Break(drill.Refuse, r.Bound(0))           // ground truth: down from now on, and when the alert is late
//			_ = m.Server("a").Kill()
//			r.AwaitAlerts(ctx)                                   // until every outage has its OPENED, or is late
//			targets[0].Mend()
//			...
//			return r.Conclude(ctx, m)                            // waits for what is owed, judges, and adds the figures
//		},
//	}
//
// Errors that Run returns are those of the drill itself (a process that does not start); what the mesh does wrong is a figure.
//
// A drill leaves nothing behind: processes end with the run, and when the process that runs the drill is killed.
package drill
