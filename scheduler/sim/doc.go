// Package sim simulates a whole mesh in one goroutine: servers with their minds (package scheduler), a linearizable store that fences, probers in datacenters, targets,
// and a receiver. Time, delays, losses and faults come from one seed, so the same seed gives the same trace, line by line.
//
// What is real is the mind, placement, phases (package assignment) and the defaults of checks. The rest is modelled: the store is one map that does each transaction at
// once, and only the ways to it and back are slow or lossy; a new server is told by its peers of all sessions and newest results; sessions are missed after three
// seconds; a killed or paused leader is replaced within about a second.
//
// # What is checked
//
// After every step, or every second of simulated time where a bound is concerned:
//
//   - At most one incident of a check is open, and none is opened that does not rest on fresh failures from as many datacenters as the quorum, counted here
//     again from the results that the server was given. So a minority never opens one.
//   - A check whose target refuses or swallows everything has an open incident within interval + timeout + 25 s, from when all of these hold: the target is down,
//     there is a leader, the check was not edited, and a quorum of datacenters have only correct probers on it, not counting those that are set aside, and none of these was lost. This is the bound
//     without any confirmation. Without losses the bound is interval/n + 2d + 1 s, where d is how long a failing probe takes; see TestFaultFreeDetection.
//   - An incident whose target answers everybody again is closed within 3 intervals + 2 timeouts + 35 s, the hold of a flapping check, and ten intervals and 15 s for one that failed by chance or three times with less in between, under the same conditions,
//     and while fewer datacenters than the quorum (for a check that alerts when DEGRADED: none) have a prober at fault.
//   - The incident of a check that was deleted or paused is closed within 25 s.
//   - Every owed notification has its effect exactly once for its key, within 30 s of the receiver and a leader being there; OPENED comes first, RESOLVED last.
//   - No effect of a term that is over is taken.
//   - A minute after the last change, every prober with a session runs exactly what a mind computes that has only ever seen the store.
//   - The outbox and the spools stay bounded, and at the end, minutes after the last fault, all servers show the same and nothing is owed.
//
// Leaderless time does not count against any bound: each counts from the latest leader's beginning.
//
// # How to run it
//
//	go test ./scheduler/sim                                                  300 seeds of mixed faults, and the golden scenarios
//	go test ./scheduler/sim -sim.seeds=1000                                  more of them
//	go test ./scheduler/sim -run MixedFaults -sim.seed=7 -v                  one of them, with its trace
//	go test ./scheduler/sim -run Golden -rewrite                             writes the golden scenarios anew
//
// The golden scenarios in testdata are scripts with their timelines; the commands are listed at [Script].
package sim
