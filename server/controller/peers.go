package controller

import (
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Peers are the other servers, as the controller sees them: it tells them what its own sessions bring, and asks those that hold a prober for runs. No method blocks,
// and none calls the controller before it returns: they are called with its mutex held, so that what is told has the order in which [Controller.Local] changes.
// *peer.Peers is one.
type Peers interface {
	// Presence tells that a session of this server began, changed or ended. The message is the callee's.
	Presence(*peerv1.Presence)
	// Votes passes on what may be votes of this server's probers. Neither the slice nor the results may be changed.
	Votes([]*meshv1.Result)
	// Ask sends a run to the server, by its resource name, that holds the prober, by its bare name; false when that server is not heard, or its queue is full. What
	// comes of it arrives as a vote, or at [Controller.PeerRefusal].
	Ask(server, prober string, run *meshv1.RunNow) bool
	// Refuse passes on that a prober of this server will not do a run. It goes to the server that asked for the run; nothing happens if none did.
	Refuse(prober, runID, reason string)
}
