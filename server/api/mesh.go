package api

import (
	"context"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Mesh is what the API needs of the part of the server that follows the mesh. All of it answers from memory and lags the store by the time that a
// watch takes, so the API asks the store for what a caller may just have written. Every method may be called concurrently; what is returned is the
// caller's own copy.
type Mesh interface {
	// Check gives the check as the mesh follows it now, without status; false when it knows none of that name.
	Check(name string) (*meshv1.Check, bool)
	// Status gives the whole status of a check, with every vote and its evidence; false when the mesh knows no check of that name.
	Status(check string) (*meshv1.CheckStatus, bool)
	// EachStatus calls yield with the status of each check whose name sorts after `after` (empty: all), in order of name and without votes, until
	// yield returns false. yield calls nothing of Mesh.
	EachStatus(after string, yield func(*meshv1.CheckStatus) bool)
	// SubscribeStatuses tells of checks whose status changed, or that appeared or went, after the call. The caller closes it.
	SubscribeStatuses() Subscription
	// SubscribeIncidents tells of incidents that were opened, changed or resolved after the call. The caller closes it.
	SubscribeIncidents() Subscription
	// Explain gives the reasons behind a verdict; false when the mesh knows no check of that name.
	Explain(check string) (*meshv1.ExplainCheckResponse, bool)
	// Run runs a check at once on the named probers, or where it is placed when none are named, and calls send with each message of
	// CheckService.RunCheck, in its order and never concurrently. It returns when all have answered, when the check's timeout and 5 s more have
	// passed, when ctx ends, or with the error of send.
	Run(ctx context.Context, check string, probers []string, send func(*meshv1.RunCheckResponse) error) error
	// Probers gives every enrolled prober, sorted by name.
	Probers() []*meshv1.Prober
	// Prober gives one prober; false when the mesh knows none of that name.
	Prober(name string) (*meshv1.Prober, bool)
	// Builds gives every build that the mesh has seen, sorted by name.
	Builds() []*meshv1.Build
	// Build gives one build; false when the mesh knows none of that name.
	Build(name string) (*meshv1.Build, bool)
	// Receivers gives every receiver, sorted by name.
	Receivers() []*meshv1.Receiver
	// OpenIncidents gives every incident that is open, newest (greatest name) first.
	OpenIncidents() []*meshv1.Incident
	// Records gives what the servers that are alive publish of themselves, sorted by name.
	Records() []*statev1.ServerRecord
	// Server tells of this server and of who leads.
	Server() ServerInfo
	// StepDown ends the reign of this server, if it leads and term is 0 or its own, and returns the term that ended. Otherwise it fails with a
	// *fault.Error.
	StepDown(term int64) (int64, error)
}

// Subscription tells of changes by name. Changes of one name between two calls of Next are merged, so a slow subscriber costs no more memory than
// there are names.
type Subscription interface {
	// Next waits until something has changed since the call before, and gives the names. It fails when ctx ends, with its error. One caller at a time.
	Next(ctx context.Context) ([]string, error)
	// Close ends the subscription. It may be called once, after the last Next.
	Close()
}

// ServerInfo is this server as the mesh knows it.
type ServerInfo struct {
	// Name is this server, `servers/{server}`.
	Name string
	// Leading tells whether this server leads.
	Leading bool
	// Leader is the server that leads, `servers/{server}`; empty when none does.
	Leader string
	// LeaderAddress is where the leader's gRPC API listens; empty when none leads or its address is not known.
	LeaderAddress string
	// Term is the present term, or 0 when none leads.
	Term int64
	// Sessions is how many probers are attached to this server.
	Sessions int
	// Revision is the etcd revision that this server has applied.
	Revision int64
}
