package peer

import (
	"time"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Mesh is what the peers need of the controller. No method blocks; messages that are handed over belong to whoever takes them.
type Mesh interface {
	// Servers are all servers of the mesh as the store has them, this one included, and a channel that is closed when they change.
	Servers() ([]*statev1.ServerRecord, <-chan struct{})
	// Local is what a follower needs to begin with: the presence of every session of this server, and the newest result of each of its probers and checks. What
	// happens afterwards goes to Peers.Presence and Peers.Votes, and the controller calls them in the same order as it changes what Local gives.
	Local() ([]*peerv1.Presence, []*meshv1.Result)
	// PeerPresences takes what a server says of its sessions. With snapshot set they are all that it has.
	PeerPresences(server string, snapshot bool, presences []*peerv1.Presence)
	// PeerVotes takes results that may be votes.
	PeerVotes(server string, results []*meshv1.Result)
	// PeerSilent says that nothing has been heard of a server for three seconds, or that it is gone: its sessions do not count any more.
	PeerSilent(server string)
	// PeerRefusal says that a run sent with Ask will not be done.
	PeerRefusal(prober, runID, reason string)
	// RunHere sends a run to a prober that has a session at this server; false when it has none, or its queue is full. If the prober refuses it, the controller calls
	// Peers.Refuse with the id of the run, which goes back to the server that asked (controller.Peers is all that the controller calls).
	RunHere(prober string, run *meshv1.RunNow) bool
}

// View is what this server makes of another one.
type View struct {
	// Server is its resource name.
	Server string
	// Datacenter is where it runs.
	Datacenter string
	// BootID is its process, as the store or its last stream said.
	BootID string
	// Heard is when it was heard last, on the monotonic clock; zero when it never was.
	Heard time.Time
	// Since is since when it has been followed or tried: a server that was never heard is missed from then on.
	Since time.Time
	// Refused says that its address refused the last attempt to connect: no process of its listens there.
	Refused bool
	// Beat is its newest beat; nil when there was none. It must not be changed.
	Beat *peerv1.Beat
	// Position and Acknowledged are how far this server's journal goes and how far the other one has it; the difference is what it lacks of the history.
	Position, Acknowledged uint64
}

// MissedAfter is the silence after which a server counts as missed: three beats.
const MissedAfter = 3 * BeatEvery

// BeatEvery is how often a server sends a beat.
const BeatEvery = 200 * time.Millisecond

// SilentAfter is the silence after which a server's sessions do not count any more.
const SilentAfter = 3 * time.Second

// Missed tells whether the server is missed at the time.
func (v View) Missed(now time.Time) bool { return v.Silence(now) >= MissedAfter }

// Silence is how long it has not been heard.
func (v View) Silence(now time.Time) time.Duration {
	if v.Heard.After(v.Since) {
		return now.Sub(v.Heard)
	}
	return now.Sub(v.Since)
}

// StreamWindow and ConnectionWindow are the HTTP/2 flow-control windows that a follower gives, in bytes: whoever makes the connection passes them to
// grpc.WithInitialWindowSize and grpc.WithInitialConnWindowSize. Fixed windows bound what is on its way before a beat: 256 KiB are 0.2 s at 10 Mbit/s, and let 1.3 MB/s
// through over a round trip of 200 ms, some four thousand results a second.
const (
	StreamWindow     = 256 << 10
	ConnectionWindow = 2 * StreamWindow
)
