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
	// IncidentGone says that the incident under the key is open no more.
	IncidentGone struct{ Key string }
	// ReceiverPut says that a receiver exists.
	ReceiverPut struct{ Receiver *meshv1.Receiver }
	// ReceiverGone says that a receiver, by its resource name, was deleted.
	ReceiverGone struct{ Name string }
	// Reset forgets everything that came from the store, because a snapshot follows, in the same call of Apply. Votes and presence stay.
	Reset struct{}

	// Leadership says whether this server leads, and in which term.
	Leadership struct {
		Leading bool
		Term    int64
	}
	// ProberOnline says that a prober, by its bare name, has a session somewhere.
	ProberOnline struct {
		Name   string
		Server string
	}
	// ProberOffline says that it has none any more. Leaving: it said goodbye and is not expected back soon.
	ProberOffline struct {
		Name    string
		Leaving bool
	}
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

func (CheckPut) event()      {}
func (CheckGone) event()     {}
func (EnrolmentPut) event()  {}
func (EnrolmentGone) event() {}
func (TablePut) event()      {}
func (TableGone) event()     {}
func (IncidentPut) event()   {}
func (IncidentGone) event()  {}
func (ReceiverPut) event()   {}
func (ReceiverGone) event()  {}
func (Reset) event()         {}
func (Leadership) event()    {}
func (ProberOnline) event()  {}
func (ProberOffline) event() {}
func (Cast) event()          {}
func (RunRefused) event()    {}
func (EffectFailed) event()  {}

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
	// Escalate replaces the open incident by a worse one, with its notifications.
	Escalate struct {
		Key         string
		Incident    *statev1.StoredIncident
		Outbox      []*statev1.OutboxEntry
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
	}
	// MoveRows replaces a placement table that is at ModRevision (0: there is none).
	MoveRows struct {
		Table       *statev1.PlacementTable
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
func (MoveRows) action()      {}
func (Assign) action()        {}
func (StatusChanged) action() {}
