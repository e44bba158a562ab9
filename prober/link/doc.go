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
// Acknowledgements go to the spool at once. They are cumulative, and the prober believes them, whichever server they come from: each means "in the history of this
// server", and servers give each other what they have. A server to which the prober moves is sent what no server has acknowledged: first the newest result of each
// assignment as STATE, which are votes, then the rest as BACKLOG, which are none.
//
// # Home
//
// Every server of the mesh may hold any session, and Welcome names all servers (Servers tells of changes within a session). Each prober has one that is its home:
// the server of its own datacenter, of several the one that draws it most by rendezvous hashing of both names; without any, the one of all servers that draws
// it most. The others are ordered by the same hash, so that the probers of a dead server spread over all that are left, and a server that comes or goes moves no other's probers.
//
// Why the own datacenter, although a session elsewhere would survive its server: a datacenter that is cut off takes its probers' sessions with it in any case,
// wherever they lead. One that loses only its server lets them move at once. But a prober whose session crosses datacenters is lost when either of two is cut off, and when
// the way between them is. What a cut-off prober finds meanwhile is in its spool, and is handed over afterwards.
//
// # Standby
//
// Besides the session there is a connection to a second server, of another datacenter than the session's where there is one. Every 5 s it is asked for its health
// (grpc.health.v1); a server that is not SERVING, or takes 2 s to say so, is no standby. When a session ends (its stream breaks, the server says that it stops, or nothing was
// heard of it for 3 s), the next one begins on that connection: no dialling, no TLS handshake, and no pause but a random one below 50 ms, because all probers of that
// server come at once. Without a standby, other addresses are tried: the home, the other servers in their order, the configured addresses; the one that
// was lost comes last. An address at which nobody answers is followed by the next one at once. Only when a whole round of them has failed, a server refuses, or sessions keep
// ending within a second, there are pauses of full jitter below 1 s, 2 s, 4 s, 8 s, 10 s; a session that lived for 10 s starts this anew. A Redirect's addresses come before all others.
//
// Silence ends a session after 3 s and not earlier, although a standby is at hand: a server that paused for half of that (a virtual machine that is moved, a
// collection of garbage) would lose all of its probers for nothing, and have them back a minute later.
//
// # Coming home
//
// While the session is elsewhere, the home is asked for its health in the same way. When it has been healthy for 30 s, and as long again by chance, the prober attaches there while it
// still has its session; with Welcome the new session takes over, and the old one ends without Goodbye, as soon as the runs that its server asked for are answered
// (to both), or after 10 s. So there is no moment without a session. A prober that was redirected stays for 10 minutes.
//
// A prober that has just been started knows no more than some addresses. When it hears within its first 30 s that its home is another server, it goes there within a second, in the
// same way: nothing has failed, so there is nothing to wait for.
//
// A home that is among the servers and yet does not answer from here for 30 s is logged once: its published address may lead nowhere from where the prober runs.
//
// # Time
//
// Every pong is a sample for the prober's clock; Welcome is a first, rough one. Timestamps in Hello, Ping and Pong are the prober's own clock, results' are
// on the mesh's.
package link
