// Package link owns a prober's session with the mesh: it finds a server, speaks the session protocol with it (proto/probemesh/v1/session_service.proto is the
// law), and finds another when that one is gone. It never ends by itself: whatever a server says or does, the link backs off and tries the next one, and the
// prober goes on probing meanwhile.
//
// # One session
//
// A session has three goroutines: one receives, one sends, one applies assignment updates, which may take long. All that is to be sent waits in an outbox with
// strict priorities:
//
//  1. pongs, acknowledgements, refusals and the ping of each second;
//  2. results of runs that were asked for;
//  3. results whose outcome changed, and SLOW ones;
//  4. the inventory, then the STATE batches after Welcome;
//  5. unchanged results, gathered for up to a second;
//  6. BACKLOG, read from the spool, at most 2,000 results/s and never more than the server's window without an acknowledgement.
//
// Queues 2, 3 and 5 are bounded. A result that finds its queue full is not lost: it is in the spool already, and the backlog is extended to it. So is
// everything that a session could not send before it ended. The one exception are SLOW results, which are not spooled; those are dropped and counted.
//
// Acknowledgements go to the spool at once. They are cumulative, and the prober believes them.
//
// # Finding a server
//
// Candidates are the configured addresses in their order, then those that the last Welcome named, which are kept on disk. Attempts go round robin, with pauses of
// full jitter below 1 s, 2 s, 4 s, 8 s, 10 s; a session that lived for 10 s starts this anew. A Redirect's addresses come first, without a pause.
//
// # Time
//
// Every pong is a sample for the prober's clock; Welcome is a first, rough one. Timestamps in Hello, Ping and Pong are the prober's own clock, results' are
// on the mesh's.
package link
