// Package notify owns the delivery of what the outbox owes. Only the leader delivers, for the time of one reign; every server knows what is owed,
// so that a new leader begins at once.
//
// # Feeding
//
// Whoever follows the store tells a [Notifier] of outbox entries and receivers: [Notifier.Replace] with each snapshot, then [Notifier.Put],
// [Notifier.Gone], [Notifier.PutReceiver] and [Notifier.GoneReceiver]. Nothing is delivered before the first Replace. These calls never block.
// When this server begins to lead, call [Notifier.Run] with the reign's context and fence.
//
// # Promises
//
//   - Order: the entries of one incident for one receiver are delivered one after the other, by ordinal. RESOLVED never comes before OPENED. Different
//     incidents and receivers do not wait for each other.
//   - Bounds: at most Config.Concurrency deliveries at once, at most Config.PerReceiver of them to one receiver. The rest waits in the outbox, which
//     is in etcd anyway; a slow receiver therefore delays nobody else.
//   - Once: an entry is deleted, and its delivery recorded in the incident, in one fenced transaction after the receiver has answered. A crash
//     between the answer and that transaction means a resend with the same Idempotency-Key, which is all that a receiver can be given. An answer that
//     could not be recorded because etcd was away is remembered, and only the recording is repeated, for as long as the reign lasts.
//   - Nothing is lost: a delivery that fails is tried again as the Webhook message says, until give_up_after; then, or when the receiver is deleted
//     or paused, the entry is dropped, which the incident's timeline records.
//   - The timeline gets the first failure of an entry, each later change of its error (at most 20 in a reign), and the end.
//
// A Notifier starts no goroutine outside Run and SendTest; Run waits for all of its own.
package notify
