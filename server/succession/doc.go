// Package succession decides when leadership must move, so that a mesh has a leader that decides within a second of losing one, and carries that out through
// package election. A wrong decision here costs an election and never an alert: whatever a leader writes is fenced.
//
// [Judge] is the decision, a pure function of what a server knows. There are two sides to it.
//
// A server that follows evicts the leader, which means that it deletes the leader's key, when
//
//   - the leader's process is gone: its address refuses connections and it has been silent for [GoneAfter], and another server says the same; or a newer process of
//     the same server is heard. After SIGKILL this takes about 0.3 s, against a lease of 5 s;
//   - the leader is silent: it has not been heard for 600 ms, and another server that is heard says the same. The other server's word is what tells a dead leader from
//     a bad link. In a mesh of two there is nobody to say it: then one server's view is enough after [LonelyAfter], or with refusal, if it has read etcd linearizably since;
//   - the leader says itself that it cannot lead: its disk has been hanging for [StallAfter], or its writes for 3.5 s, or it has ended its reign and the key is still there after
//     [DisownAfter]. Nobody's second word is needed for that.
//
// Of several servers that may evict, the first by name acts at once, the next one 200 ms later, and so on: one transaction is enough.
//
// Evictions for silence are limited, since a link that works one way only could make leadership go round for ever: after one, this server waits at least 10 s
// before the next, and twice as long for each of those in the last half hour whose leader turned out to be alive, up to five minutes. While it waits, the lease is the
// floor. A process that is gone, and a leader that disowns itself, are not limited: nothing can go round there.
//
// A server that leads resigns when
//
//   - it cannot commit: a write of its reign has been waiting for etcd, or a write of a small file to its disk, for [StallAfter]. Where it has resigned for its writes in the
//     last ten minutes, it bears twice as much for each time, up to 3.5 s: an etcd that is slow under every leader is served best by one that stays. It stops acting at that moment by
//     its own clock, says so in its beats, so that the others evict it (its own resignation may hang too), and does not stand again before a write has succeeded;
//   - it is deaf: for three seconds a peer has heard at least three probers, and more than twice as many as it does. Not in the first five seconds of a reign. It stays out of the
//     next election for ten seconds unless nobody else takes it within two; a candidate that hears less than half of what another one does, or none of several other servers, waits 300 ms.
//
// Where the leader runs is not moved for etcd's sake: a leader beside etcd's own leader commits a round trip sooner, and loses a second more when the two die together.
// Both are smaller than the cost of an election for it, so leadership stays where it is.
//
// [Succession] watches the disk, gathers the facts whenever one of them changes, and acts.
package succession
