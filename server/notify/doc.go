// Package notify delivers what the outbox owes: it is the part of the leading server that tells receivers what became of an incident.
//
// The outbox is in etcd. An entry is written in the transaction that opens, escalates or resolves an incident, so a transition without its
// notifications cannot exist; this package alone takes entries out again. It promises, for each entry:
//
//   - It is sent until the receiver answers 2xx, or dropped because its receiver is deleted, is paused, or did not answer for the receiver's
//     give_up_after. A drop is recorded in the incident, counted and logged; nothing else makes an entry go. An entry that was never tried is
//     tried at least once, however old it is.
//   - Entries of one incident and receiver are sent one after the other, in the order of their ordinals: RESOLVED is never sent before OPENED has
//     been answered or dropped. Different incidents and different receivers go side by side.
//   - OPENED waits while a break-glass message may have told the same, until the leader has taken what was told so out of the outbox; and until the leader's own mind knows of
//     the incident, which without etcd would tell of the outage once more (Config.Hold).
//   - When the receiver has answered, one transaction, fenced by the reign, deletes the entry and records the delivery in the incident. One that fails is
//     repeated without sending again. What lies between the answer and that transaction is the one window in which a crash makes the next leader
//     send again, with the same Idempotency-Key, which receivers that know such keys drop; where this leader lives to see it, it is counted.
//   - Under a term that is over nothing is changed: the first write that meets [store.ErrFenced] ends the reign.
//
// What is sent is one HTTP POST (see [meshv1.Webhook]) whose body is the protojson of [meshv1.Notification], snake_case, every field present even
// when it is unset: an empty string, 0, [], {} or, for a time that is not known, null. Bytes, such as a body in the evidence, are base64.
//
// # Trying again
//
// No answer, 408, 425, 429 and 5xx: after a random pause between 1s and a bound that doubles from 2s to 2m, or when Retry-After says so (1s to 10m),
// which then holds for everything owed to that receiver. Any other answer: after 2m. A receiver that is changed is tried at once, since somebody may
// have mended it. A receiver that fails eight times in a row is taken for down: it is asked by one request at a time, at least every 10s while
// something waits, and as soon as it answers all that waits for it is sent.
//
// # Bounds
//
// At most Config.MaxInFlight entries are in the works at once and Config.PerReceiver for one receiver; while half of the places are taken, a receiver
// that has one already gets no other, so slow receivers cannot starve the rest. The queue in memory is what the outbox holds, no more. Of the
// attempts of one entry, those that matter are recorded in the incident: the first failure, each change of the error (at most 20 in one
// reign), the success, the drop.
//
// # Who runs what
//
// [New] starts nothing. [Notifier.Run] is one reign: it follows the store, sends, and returns after all its goroutines have ended. [Notifier.SendTest]
// may be called at any time, on any server, concurrently.
//
//	n, err := notify.New(s, notify.Config{Log: log, Meter: meter, Tracer: tracer})
//	...
//	err = n.Run(ctx, reign.Fence) // nil when ctx ended
package notify
