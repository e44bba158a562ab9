// Package peer connects the servers of a mesh: each follows every other one, so that all of them know every prober's presence and votes, keep the same history,
// and notice within a second when one is gone.
//
// Between two servers there are two streams of PeerService, one each way. On each, what flows is what the followed server hears from its own probers, and nothing
// that it was told by a third: a result goes round once. Three lanes share the stream, in this order of priority:
//
//   - beats, every 200 ms: a sign of life, who leads as far as the server knows, how it is, whom it misses ([View] is what this server makes of the others');
//   - presence, votes, runs and refusals: state, never written to a disk on its way and never waiting for one. A follower that reads too slowly is sent a new
//     snapshot instead of what it missed;
//   - history: the followed server's journal, which is a spool on its disk. An entry stays until every server that follows, or did so within a day, has it in
//     its own history. A follower that was cut off goes on where it was, at a bounded rate.
//
// The clocks of servers need not agree: votes and the deadlines of runs are taken from one server's clock to the other's, as the beats show the difference.
//
// So a verdict never waits for a disk, and no server's history has a gap that another server's disk could fill.
//
// [Peers] is one server's part: [Peers.Run] follows the others and serves those that follow; [Peers.Presence], [Peers.Votes] and [Peers.Append] take what its own
// sessions bring; [Peers.Ask] sends a run to the server that holds a prober.
package peer
