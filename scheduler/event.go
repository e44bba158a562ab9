package scheduler

import (
	"time"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Event is something that happened. The messages in events belong to the State afterwards: the caller must not change them.
type Event interface{ event() }

type (
	// CheckPut says that a check exists, as stored.
	CheckPut struct {
		Check *meshv1.Check
		// ModRevision is the etcd revision of its last change.
		ModRevision int64
	}
	// CheckGone says that a check was deleted.
	CheckGone struct{ Name string }
	// EnrolmentPut says that a prober is known.
	EnrolmentPut struct{ Enrolment *statev1.Enrolment }
	// EnrolmentGone says that a prober, by its resource name, was forgotten.
	EnrolmentGone struct{ Name string }
	// TablePut says how rows are placed in a datacenter.
	TablePut struct {
		Table       *statev1.PlacementTable
		ModRevision int64
	}
	// TableGone says that a datacenter has no table any more.
	TableGone struct{ Datacenter string }
	// IncidentPut says that an incident is open. Key is what it is kept under: the name of the check, or that of a condition of the mesh.
	IncidentPut struct {
		Key         string
		Incident    *statev1.StoredIncident
		ModRevision int64
	}
	// IncidentGone says that the incident under the key is open no more, since an etcd revision.
	IncidentGone struct {
		Key         string
		ModRevision int64
	}
	// IncidentWritten says that this server itself has opened or changed the incident of a check, before the store tells of it: its watch may be silent, and if etcd were
	// lost then, people would be told a second time. What is known as of a later revision stays.
	IncidentWritten struct {
		Key         string
		Incident    *statev1.StoredIncident
		ModRevision int64
	}
	// ReceiverPut says that a receiver exists.
	ReceiverPut struct{ Receiver *meshv1.Receiver }
	// ReceiverGone says that a receiver, by its resource name, was deleted.
	ReceiverGone struct{ Name string }
	// BuildPut says how far a build is trusted, as stored.
	BuildPut struct {
		Build       *meshv1.Build
		ModRevision int64
	}
	// BuildGone says that what was known of a build, by its resource name, was dropped.
	BuildGone struct{ Name string }
	// BuildPolicyPut says how builds are tried; a nil policy is the default one.
	BuildPolicyPut struct{ Policy *meshv1.BuildPolicy }
	// Reset forgets everything that came from the store, because a snapshot of a revision follows, in the same call of Apply. Votes and presence stay.
	Reset struct{ Revision int64 }

	// Leadership says whether this server leads, and in which term.
	Leadership struct {
		Leading bool
		Term    int64
	}
	// Recalled says what this server held true before it was started anew, by the name of the check. The first verdict that the mind comes to by itself holds since then,
	// if it is the same. Nothing is decided by it.
	Recalled struct{ Verdicts map[string]Recollection }
	// ProberOnline says that a prober, by its bare name, has a session at a server; again when that is another one.
	ProberOnline struct {
		Name   string
		Server string
		// Since is since when it has one; zero: since now.
		Since time.Time
	}
	// ProberOffline says that it has none any more. Leaving: it said goodbye and is not expected back soon. Unheard: the server that held it is not heard any
	// more, which says nothing of the prober.
	ProberOffline struct {
		Name    string
		Leaving bool
		Unheard bool
	}
	// Store says how etcd is, as far as this server and those that it hears can tell. The mind of a caller that never says it takes etcd for well.
	Store struct {
		// Lost: no server that is heard can read etcd linearizably. Nobody can decide anything then.
		Lost bool
		// Since is since when; the zero time is now.
		Since time.Time
		// Term is the newest term that any of them knows of. Lower ones than before are ignored.
		Term int64
		// Alone: with Lost, there are other servers and none of them is heard. It may be this one that is away, and what it makes of its votes then is forgotten when the
		// store is back, unless somebody was told.
		Alone bool
		// Unsettled: what other servers did without the store may not be known here yet. Nothing is opened until it is.
		Unsettled bool
	}
	// IncidentKnown says that an incident of a check is open, by what another server knows of it that cannot read etcd either. Check, name, verdict, reason, start, group
	// and break-glass key are all that it has. It counts only while etcd is lost, and when this server was told of the incident neither as of ModRevision nor later.
	IncidentKnown struct {
		Incident    *meshv1.Incident
		ModRevision int64
	}
	// IncidentEnded says that an incident of a check is open no more, likewise.
	IncidentEnded struct {
		Check, Incident string
		ModRevision     int64
	}
	// OutageSeen says what a server knows of an outage: another one, or this one before it was started anew.
	OutageSeen struct{ Outage Outage }
	// OutageOver says that an outage was found in the store, joined: it needs nothing more.
	OutageOver struct{ Check, Key string }
	// Cast is a result that may be a vote: LIVE or STATE, never backlog. The prober is a bare name.
	Cast struct {
		Prober string
		Result *meshv1.Result
	}
	// RunRefused says that a prober will not do a run it was asked for.
	RunRefused struct {
		Prober string
		RunID  string
		Reason string
	}
	// EffectFailed says that an action with this key could not be carried out. It is wished for again after Retry, but not before 100 ms, so that a
	// store which refuses at once is not asked in a tight loop.
	EffectFailed struct {
		Key   string
		Retry time.Duration
	}
)

func (CheckPut) event()        {}
func (CheckGone) event()       {}
func (EnrolmentPut) event()    {}
func (EnrolmentGone) event()   {}
func (TablePut) event()        {}
func (TableGone) event()       {}
func (IncidentPut) event()     {}
func (IncidentGone) event()    {}
func (IncidentWritten) event() {}
func (ReceiverPut) event()     {}
func (ReceiverGone) event()    {}
func (BuildPut) event()        {}
func (BuildGone) event()       {}
func (BuildPolicyPut) event()  {}
func (Reset) event()           {}
func (Recalled) event()        {}
func (Leadership) event()      {}
func (ProberOnline) event()    {}
func (ProberOffline) event()   {}
func (Store) event()           {}
func (IncidentKnown) event()   {}
func (IncidentEnded) event()   {}
func (OutageSeen) event()      {}
func (OutageOver) event()      {}
func (Cast) event()            {}
func (RunRefused) event()      {}
func (EffectFailed) event()    {}

// Action is something that the State wishes for.
type Action interface{ action() }

type (
	// Open opens an incident: one transaction that also owes the notifications. It must fail when the check has changed since CheckRevision, when an
	// incident is open under the key, or when the term is over.
	Open struct {
		Key           string
		Incident      *statev1.StoredIncident
		Outbox        []*statev1.OutboxEntry
		CheckRevision int64
	}
	// Escalate replaces the open incident by a worse one, with its notifications, or by one that has taken an outage in. Paid are the ids of what the outbox owes no more
	// then, because break-glass messages have told it.
	Escalate struct {
		Key         string
		Incident    *statev1.StoredIncident
		Outbox      []*statev1.OutboxEntry
		Paid        []string
		ModRevision int64
	}
	// Resolve closes the open incident, with its notifications.
	Resolve struct {
		Key         string
		Incident    *statev1.StoredIncident
		Outbox      []*statev1.OutboxEntry
		ModRevision int64
	}
	// Confirm asks a prober, by its bare name, to probe at once.
	Confirm struct {
		Prober string
		Run    *meshv1.RunNow
		// Local: nobody leads, and each server asks those probers only that have a session with it.
		Local bool
	}
	// BreakGlass is a message about an outage while etcd is lost. Every server wishes for it, and the same key comes of the same outage on each of them: which one
	// sends it is theirs to settle.
	BreakGlass struct {
		Outage Outage
		// Notification is what to send, without its receiver.
		Notification *meshv1.Notification
		// Again: its incident has ended after etcd came back. Only receivers that this server has told and that are not Covered need it.
		Again bool
		// Covered are names and URL digests of receivers that are told through the store.
		Covered []string
	}
	// OutageJoined says that an outage has become part of an incident in the store, or needs nothing more: no message about it is to be sent any more.
	OutageJoined struct {
		Key, Check string
		// Incident is the resource name of the incident, if it goes on.
		Incident string
	}
	// MoveRows replaces a placement table that is at ModRevision (0: there is none).
	MoveRows struct {
		Table       *statev1.PlacementTable
		ModRevision int64
	}
	// PutBuild writes how far a build is trusted, over what is at ModRevision (0: there is nothing).
	PutBuild struct {
		Build       *meshv1.Build
		ModRevision int64
	}
	// DropBuild deletes what is stored of a build that nobody runs, at ModRevision.
	DropBuild struct {
		Name        string
		ModRevision int64
	}
	// Assign says that what a prober should run has changed; State.Assignments has it. At most one a prober comes of one Apply, after all other actions.
	Assign struct{ Prober string }
	// StatusChanged says that the status of a check has changed, or that the check is gone; State.Status has it. A check that is gone is said so once,
	// even if its incident has still to be closed.
	StatusChanged struct {
		Check string
		// Gone: the check was deleted.
		Gone bool
		// Verdict before and after; equal when something else changed.
		Before, After meshv1.CheckStatus_Verdict
		Reason        meshv1.CheckStatus_Reason
	}
)

func (Open) action()          {}
func (Escalate) action()      {}
func (Resolve) action()       {}
func (Confirm) action()       {}
func (BreakGlass) action()    {}
func (OutageJoined) action()  {}
func (MoveRows) action()      {}
func (PutBuild) action()      {}
func (DropBuild) action()     {}
func (Assign) action()        {}
func (StatusChanged) action() {}

// Outage is what servers tell each other of an incident that nobody can write down.
type Outage struct {
	// Key is the same on every server that saw the same checks, terms and votes.
	Key string
	// Check is its resource name.
	Check string
	// Created is when the check was made, zero when that is not known: one that was deleted and made again is another one.
	Created time.Time
	// Incident is the resource name of the incident that was open before and is over; empty for an outage that began without etcd.
	Incident string
	// Verdict is DOWN or DEGRADED.
	Verdict meshv1.CheckStatus_Verdict
	// Start is when the target failed, Due when an incident was due, End when it answered again; End is zero while it does not.
	Start, Due, End time.Time
	// Told are the messages that were delivered, by any server.
	Told []Told
}

// Told is a break-glass message that a receiver has accepted.
type Told struct {
	// Receiver is its resource name in the file of the server that sent it, URLDigest its URL as URLDigest gives it.
	Receiver, URLDigest string
	// Transition is OPENED or RESOLVED.
	Transition meshv1.Notification_Transition
	// IdempotencyKey is what it was sent with.
	IdempotencyKey string
	// Time is when it was accepted.
	Time time.Time
	// Server is the resource name of the one that sent it.
	Server string
}
