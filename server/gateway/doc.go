// Package gateway serves SessionService: it is where probers attach. The contract of the stream is in session_service.proto.
//
// A session is three goroutines, which the handler waits for. One receives, and hands votes to the mesh at once, before anything is written anywhere; one owns everything that is
// sent and the state of the prober's assignments; one appends results to the history and knows what may be acknowledged. They share a context that ends when
// the stream does, when the prober has been silent for three seconds, or when the server stops.
//
// A history that stalls stops the acknowledgements and nothing else: its queue is bounded, what does not fit is left out and asked for again ([meshv1.Resend]) once
// the queue is empty, and meanwhile it is safe in the prober's spool.
package gateway
