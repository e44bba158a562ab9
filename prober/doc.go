// Package prober is the agent: a process that probes what it has been assigned, from where it stands, and tells the mesh what it saw.
//
// A newcomer's way through it: a [Prober] is made of a [Config] by [New] and lives in [Prober.Run]. Run joins five parts, each of which owns one thing and
// lives in a package of its own:
//
//	assignments   what to run: kept on disk, so probing starts before any server answers
//	timetable     when to run it: in phase on the mesh's clock
//	probe/...     how to run it: one package a kind of check
//	spool         what came out of it: on disk until a server has it in its history
//	link          the session with a server: assignments in, results out
//	clock         how far this machine's clock is from the mesh's
//
// The life of one probe: the timetable says that a check is due and calls agent.probe. The job (assignment and compiled check) runs it; meanwhile, when it takes
// abnormally long, a SLOW result goes out. The result gets its start time on the mesh's clock, its lag, and the revision of the check; the spool
// gives it its number and keeps it; the link sends it, at once when it says something new. When a server acknowledges the number, the spool lets go.
//
// A run that a server asks for (RunNow) takes the same way, but starts at once, in places of its own, and its result overtakes the others.
//
// # What it promises
//
//   - No server is needed to go on probing. Without one, results gather in the spool and are handed over later, each once as far as the history can tell.
//   - Nothing from the network ends the process: an error, garbage or silence of a server makes the prober look for another; of a target, it is a result.
//   - Every queue, file and number of goroutines is bounded; what does not fit is counted and logged once.
//   - A SLOW result is sent at most once a probe: when it has taken four times what the check usually takes (a moving average of its good probes), but at
//     least a tenth and at most a third of its timeout, and only while the check's last result was not a failure. A target that has shown in eight good
//     probes that half as much again as it usually takes is more than that third, is late only then, and when it takes clearly longer than its durations
//     vary; if that leaves less than a quarter of the timeout, it is never called SLOW. SLOW results are LIVE, have sequence number 0, and are neither spooled nor repeated.
//
// # Files
//
// In the data directory, which one process may use at a time: `lock`, `assignments`, `servers.json` and `spool/`. All may be deleted while the prober is stopped, at
// the price of the results that were not handed over. What is found corrupt is set aside as `*.corrupt`.
package prober
