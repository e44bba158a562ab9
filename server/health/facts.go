package health

import (
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Facts are what one server knows at one moment. The zero value of a field means that nothing is wrong with it, or that it is not known.
type Facts struct {
	// Server is the one whose facts these are, for example "servers/a".
	Server string
	// Leading tells whether it leads, by its own clock.
	Leading bool
	// Leader is who leads as far as it knows, for example "servers/a"; empty when nobody does.
	Leader string
	// Term is the term of that leader.
	Term int64
	// Etcd is what it knows of etcd.
	Etcd Etcd
	// Servers are those that ought to be there, itself included, by name.
	Servers []Server
	// SeesProbers tells whether it knows the presence of every prober: it leads, or hears of those of other servers. Without it nothing is said about probers.
	SeesProbers bool
	// Probers are all that are enrolled. They are not changed.
	Probers []*meshv1.Prober
	// Checks is what it knows of the checks.
	Checks Checks
	// Asked tells that it has read what is owed since it started.
	Asked bool
	// Owed is what receivers are owed, by receiver.
	Owed []Owed
	// Receivers are all there are. They are not changed.
	Receivers []Receiver
	// HistoryFailed tells that its history cannot be written.
	HistoryFailed bool
	// Disk is that of its data directory.
	Disk Disk
	// DeadMan is its dead man's switch.
	DeadMan DeadMan
	// TurnedAway are the processes that it has refused a session lately.
	TurnedAway []TurnedAway
}

// TurnedAway is a process that says it is a prober and is refused.
type TurnedAway struct {
	// Prober is who it says it is, for example "probers/fra-1"; BootID, Datacenter and Build are what else it says.
	Prober, BootID, Datacenter, Build string
	// Address is where it calls from; empty when it is not known.
	Address string
	// Twin tells that another process has a session of that name; else it speaks another protocol.
	Twin bool
	// Why is what it was told, a sentence.
	Why string
	// First and Last are when it was refused first and last.
	First, Last time.Time
}

// Etcd is what a server knows of etcd.
type Etcd struct {
	// LostSince is since when it has not answered a linearizable read; zero while it does.
	LostSince time.Time
	// Slow is how long the slower half of the latest linearizable reads and transactions took at least: their median. 0 when there were fewer than five.
	Slow time.Duration
	// Members are those of the cluster, as last known.
	Members []Member
	// Alarms are etcd's own, for example "NOSPACE".
	Alarms []string
}

// Member is a member of the etcd cluster.
type Member struct {
	// ID is 16 hexadecimal digits.
	ID string
	// Name is its name; that of an embedded one is its server's bare name. A member that has not started yet has none.
	Name string
	// Healthy tells whether it answered when it was last asked.
	Healthy bool
	// Error is why it is not healthy.
	Error string
	// Learner tells whether it has no vote.
	Learner bool
	// Leader tells whether it leads the cluster.
	Leader bool
	// DBSize is the size of its database in bytes; 0 when not known.
	DBSize int64
	// PeerURL is where the others reach it.
	PeerURL string
}

// Server is a server as another one sees it.
type Server struct {
	// Name is for example "servers/b".
	Name string
	// Datacenter is where it runs; empty when it is not known.
	Datacenter string
	// Version is its build; empty when it is not known.
	Version string
	// GRPC and HTTP are its addresses as others reach it, by its record, the last one if it is gone; empty when they are not known.
	GRPC, HTTP string
	// Self tells that it is the one whose facts these are.
	Self bool
	// Silence is how long it has not been heard; 0 while it is.
	Silence time.Duration
	// Refused tells that its address refuses connections.
	Refused bool
	// Beat tells whether what follows is known, from its newest beat or of itself.
	Beat bool
	// Leader and Term are who leads as far as it knows.
	Leader string
	Term   int64
	// Hears is how many probers it hears.
	Hears int
	// Sessions is how many probers are attached to it.
	Sessions int
	// Revision is the etcd revision it has applied, since RevisionSince.
	Revision      int64
	RevisionSince time.Time
	// EtcdLostSince is since when etcd has not answered it; zero while it does.
	EtcdLostSince time.Time
	// DiskStall is how long a write to its disk has been waiting; 0 while none does.
	DiskStall time.Duration
	// Uncommitted is how long the oldest write of its reign has been waiting for etcd.
	Uncommitted time.Duration
	// ClockOffset is its clock minus this server's.
	ClockOffset time.Duration
	// Misses are the servers that it does not hear.
	Misses []string
	// HistoryLag is how many results of this server's journal it lacks. HistoryStuck is how long that number has been above 0 without any of them being taken.
	HistoryLag   int64
	HistoryStuck time.Duration
}

// heard tells whether the server is heard.
func (s Server) heard() bool { return s.Silence == 0 }

// Checks is what a server knows of the checks.
type Checks struct {
	// Total is how many there are that are not paused.
	Total int
	// Blind have been UNKNOWN for want of votes for longer than is usual, Unsatisfiable ask for more failure domains than there are. Resource names, sorted.
	Blind, Unsatisfiable []string
	// Silent and Aside are the probers whose votes Blind lacks: they are silent, or set aside. Resource names, sorted.
	Silent, Aside []string
	// Forbidden cannot be judged because their probers may not connect to the target, resource names, sorted; ForbiddenBy is what a prober of the first of them says.
	Forbidden   []string
	ForbiddenBy string
}

// Owed is what one receiver is owed.
type Owed struct {
	// Receiver is for example "receivers/ops".
	Receiver string
	// Count is how many notifications.
	Count int
	// Oldest is when the oldest of them was decided.
	Oldest time.Time
	// Failed tells that attempts to deliver have failed.
	Failed bool
	// Error is what the last of them met; empty when it is not known.
	Error string
}

// Receiver is what is to be known of a receiver here.
type Receiver struct {
	// Name is for example "receivers/ops".
	Name string
	// Paused tells that nothing is sent to it.
	Paused bool
	// Mesh tells that it wants incidents of the mesh.
	Mesh bool
}

// Disk is that of a server's data directory.
type Disk struct {
	// Full tells that the embedded etcd has stopped for want of space.
	Full bool
	// Known tells whether Free is known.
	Known bool
	// Free is how many bytes may still be written.
	Free uint64
	// Stall is how long a write of one small file has been waiting, when that is a second or longer.
	Stall time.Duration
}

// DeadMan is a dead man's switch.
type DeadMan struct {
	// Configured tells whether there is one.
	Configured bool
	// Interval is how often it is to be told.
	Interval time.Duration
	// FailingSince is since when every call has failed; zero when the last one succeeded or there was none.
	FailingSince time.Time
	// Error is what the last call met.
	Error string
	// Told is when a call last succeeded.
	Told time.Time
}
