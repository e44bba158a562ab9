package store

import (
	"net/url"
	"strings"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Prefix is what every key of the mesh begins with.
const Prefix = "/probemesh/v1/"

// Keys of the election, which package election writes.
const (
	// LeaderKey is held, with a lease, by the server that leads; its create revision is the fence of the reign.
	LeaderKey = leaderPrefix + "holder"
	// TermKey has the number of the newest term. It has no lease, so that terms never repeat.
	TermKey = Prefix + "term"
)

const (
	checkPrefix     = Prefix + "check/"
	receiverPrefix  = Prefix + "receiver/"
	enrolmentPrefix = Prefix + "prober/"
	tablePrefix     = Prefix + "placement/"
	openPrefix      = Prefix + "incident/open/"
	incidentPrefix  = Prefix + "incident/id/"
	closedPrefix    = Prefix + "incident/closed/"
	outboxPrefix    = Prefix + "outbox/"
	serverPrefix    = Prefix + "server/"
	requestPrefix   = Prefix + "request/"
	leaderPrefix    = Prefix + "leader/"
	buildPrefix     = Prefix + "build/"
	policyPrefix    = Prefix + "policy/"
)

// Kind is what a key in etcd is about.
type Kind string

// The kinds that [Store.Follow] tells of.
const (
	KindCheck     Kind = "check"
	KindReceiver  Kind = "receiver"
	KindEnrolment Kind = "enrolment"
	KindTable     Kind = "table"
	// KindIncident is an open incident; when it is resolved or pruned, it is deleted in the eyes of a follower.
	KindIncident Kind = "incident"
	KindOutbox   Kind = "outbox"
	KindServer   Kind = "server"
	KindLeader   Kind = "leader"
	KindBuild    Kind = "build"
	// KindBuildPolicy is how builds are tried; there is at most one.
	KindBuildPolicy Kind = "build_policy"
)

// subject is the part of an open incident's key after its prefix: the id of the check, "_mesh-<reason>", "_mesh-<reason>-<domain>", or "_group-<what is shared>".
func subject(inc *meshv1.Incident) string {
	if a := inc.GetSetAside(); a != nil {
		// One of each domain may be open. A value may have any character.
		return "_mesh-" + strings.ToLower(inc.GetReason().String()) + "-" + url.PathEscape(a.GetDimension()+"="+a.GetValue())
	}
	if x := inc.GetShared(); x != nil {
		value := ""
		if x.GetDimension() != "" {
			value = url.PathEscape(x.GetDimension() + "=" + x.GetValue())
		}
		if inc.GetKind() == meshv1.Incident_GROUP {
			return "_group-" + value
		}
		return "_mesh-" + strings.ToLower(inc.GetReason().String()) + "-" + value
	}
	if inc.GetKind() == meshv1.Incident_MESH {
		return "_mesh-" + strings.ToLower(inc.GetReason().String())
	}
	return spec.ID(inc.GetCheck())
}

// subjectName is how a subject is told to others: "checks/shop" or "_mesh-mesh_blind".
func subjectName(s string) string {
	if strings.HasPrefix(s, "_") {
		return s
	}
	return spec.Name(spec.Checks, s)
}

func checkKey(name string) string     { return checkPrefix + spec.ID(name) }
func openKey(subject string) string   { return openPrefix + subject }
func idKey(incident string) string    { return incidentPrefix + spec.ID(incident) }
func closedKey(name string) string    { return closedPrefix + spec.ID(name) }
func outboxKey(id string) string      { return outboxPrefix + id }
func tableKey(dc string) string       { return tablePrefix + dc }
func requestKey(id string) string     { return requestPrefix + id }
func enrolmentKey(name string) string { return enrolmentPrefix + spec.ID(name) }
func buildKey(name string) string     { return buildPrefix + spec.ID(name) }
func serverKey(name string) string    { return serverPrefix + spec.ID(name) }
