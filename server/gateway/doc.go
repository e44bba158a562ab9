// Package gateway serves SessionService: it is where probers attach. The contract of the stream is in session_service.proto.
//
// A session has five goroutines. One receives, and hands votes to the mesh at once, before anything is written anywhere; one owns everything that is
// sent and the state of the prober's assignments; one appends results to the history and knows what may be acknowledged; one reads the store
// a second time when a prober asks whether it shall really drop so many assignments; one notices silence. They share a context that ends when the stream does,
// when the prober has been silent for three seconds, or when the server stops. The first that ends ends the session, and the prober is detached at once:
// the session does not wait for a prober that has stopped reading, or for a disk that hangs. What is still blocked then is freed by the end of the stream, or
// when the disk answers.
//
// # Thousands at once
//
// When another server dies, its probers come here within milliseconds. What all of them do then goes a few at a time: being attached (64, the others wait up to three seconds and
// are then told to try elsewhere), detaching, comparing assignments, and STATE (4). Votes do not queue behind them. A session that was not looked at for some time because this server did
// not run is not cut off for the silence.
//
// # Results and the history
//
// A history that stalls stops the acknowledgements and nothing else: its queue is bounded, what does not fit is left out, and meanwhile it is safe in the
// prober's spool. When the queue is empty again, everything above the last acknowledgement is asked for again ([meshv1.Resend]). BACKLOG that was on its way
// before the prober heard of that is passed over: it would look as if the prober had skipped what was left out. It is known to have gone back when it comes
// with the number asked for; or, when the prober no longer has that, by the pong of a ping sent behind the Resend, because a prober answers in order. A number that never comes, for whatever reason, is asked for in the same way after half a minute.
package gateway
