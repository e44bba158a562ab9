package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/api"
)

var _ api.Mesh = (*Controller)(nil)

// Check gives a check as the mind follows it, the caller's own copy.
func (c *Controller) Check(name string) (*meshv1.Check, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.mind.Check(name)
	if !ok {
		return nil, false
	}
	return proto.CloneOf(k), true
}

// Names are those of all checks, in no order; they are the caller's.
func (c *Controller) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mind.NamesAfter("")
}

// Status gives the whole status of a check, with votes and evidence.
func (c *Controller) Status(check string) (*meshv1.CheckStatus, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.mind.Status(check, time.Now(), true)
	if !ok {
		return nil, false
	}
	s.Warnings = append(s.Warnings, c.refusals(check)...)
	return proto.CloneOf(s), true
}

// refusals say which of the probers that should run a check refuse to, and why. Called under mu.
func (c *Controller) refusals(check string) (list []string) {
	for _, name := range c.mind.Runners(check) {
		h := c.presences.newest(name)
		if h == nil {
			continue
		}
		all := h.facts().Refusals
		if i, is := slices.BinarySearchFunc(all, check, compareRefusal); is {
			reason := strings.TrimSuffix(all[i].GetReason(), ".")
			list = append(list, fmt.Sprintf("%s refuses to run it: %s; it has no vote until that is mended, or the prober is drained (probemesh drain prober %s)", name, reason, name))
		}
	}
	return list
}

// SortRefusals sorts what a prober refuses by check, as [SessionFacts] has it.
func SortRefusals(list []*meshv1.AssignmentRefusal) {
	slices.SortFunc(list, func(a, b *meshv1.AssignmentRefusal) int { return compareRefusal(a, b.GetCheck()) })
}

func compareRefusal(r *meshv1.AssignmentRefusal, check string) int {
	return strings.Compare(r.GetCheck(), check)
}

// eachChunk is how many statuses are made under one hold of the mutex, so that a listing of all checks never keeps a vote waiting for long.
const eachChunk = 256

// EachStatus calls yield for each check after `after` in order of name, without votes.
func (c *Controller) EachStatus(after string, yield func(*meshv1.CheckStatus) bool) {
	c.mu.Lock()
	names := c.mind.NamesAfter(after)
	c.mu.Unlock()
	slices.Sort(names)
	for len(names) > 0 {
		n := min(eachChunk, len(names))
		chunk := make([]*meshv1.CheckStatus, 0, n)
		c.mu.Lock()
		for _, name := range names[:n] {
			if s, ok := c.mind.Status(name, time.Now(), false); ok {
				s.Warnings = append(s.Warnings, c.refusals(name)...)
				chunk = append(chunk, s)
			}
		}
		c.mu.Unlock()
		for _, s := range chunk {
			if !yield(s) {
				return
			}
		}
		names = names[n:]
	}
}

// SubscribeStatuses tells of checks whose status changed.
func (c *Controller) SubscribeStatuses() api.Subscription { return c.statuses.subscribe() }

// SubscribeIncidents tells of incidents that were opened, changed or resolved.
func (c *Controller) SubscribeIncidents() api.Subscription { return c.incidents.subscribe() }

// Explain gives the reasons behind a verdict.
func (c *Controller) Explain(check string) (*meshv1.ExplainCheckResponse, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.mind.Explain(check, time.Now(), c.refusals(check)...)
	if !ok {
		return nil, false
	}
	return proto.CloneOf(e), true
}

// Builds gives every build that the mesh has seen, sorted by name.
func (c *Controller) Builds() []*meshv1.Build {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*meshv1.Build
	for _, name := range c.mind.Builds() {
		if b, ok := c.mind.Build(name); ok {
			all = append(all, b)
		}
	}
	return all
}

// Build gives one build.
func (c *Controller) Build(name string) (*meshv1.Build, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mind.Build(name)
}

// Receivers gives every receiver, sorted by name, the caller's own copies.
func (c *Controller) Receivers() []*meshv1.Receiver {
	c.mu.Lock()
	all := c.mind.Receivers()
	c.mu.Unlock()
	for i, r := range all {
		all[i] = proto.CloneOf(r)
	}
	slices.SortFunc(all, func(a, b *meshv1.Receiver) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

// OpenIncidents gives every incident that the store has as open, as far as this server has heard: newest first, the caller's own copies.
func (c *Controller) OpenIncidents() []*meshv1.Incident {
	c.mu.Lock()
	stored := c.mind.OpenIncidents()
	c.mu.Unlock()
	all := make([]*meshv1.Incident, 0, len(stored))
	for _, st := range stored {
		all = append(all, proto.CloneOf(st.GetIncident()))
	}
	slices.SortFunc(all, func(a, b *meshv1.Incident) int { return strings.Compare(b.GetName(), a.GetName()) })
	return all
}

// Server tells of this server and of who leads.
func (c *Controller) Server() api.ServerInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	info := api.ServerInfo{Name: spec.Name(spec.Servers, c.cfg.Server), Sessions: len(c.sessions), Revision: c.revision, Leading: c.reign != nil}
	if c.leader != nil {
		info.Leader, info.Term = c.leader.GetServer(), c.leader.GetTerm()
		info.LeaderAddress = c.servers[info.Leader].GetGrpcAddress()
	}
	return info
}

// StepDown ends the reign of this server.
func (c *Controller) StepDown(term int64) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reign == nil {
		address := ""
		if c.leader != nil {
			address = c.servers[c.leader.GetServer()].GetGrpcAddress()
		}
		return 0, fault.New(codes.FailedPrecondition, meshv1.ErrorReason_NOT_LEADER, spec.Name(spec.Servers, c.cfg.Server),
			"this server does not lead; ask %s", orElse(address, "again when there is a leader")).With("leader", address)
	}
	if term != 0 && term != c.reign.Term {
		return 0, fault.New(codes.FailedPrecondition, meshv1.ErrorReason_STATE_CONFLICT, spec.Name(spec.Servers, c.cfg.Server),
			"the present term is %d, not %d", c.reign.Term, term)
	}
	c.reign.cancel(errors.New("asked to step down"))
	return c.reign.Term, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Addresses are the gRPC addresses of the servers that are alive, this one's first.
func (c *Controller) Addresses() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := spec.Name(spec.Servers, c.cfg.Server)
	var list []string
	if s := c.servers[own]; s != nil {
		list = append(list, s.GetGrpcAddress())
	}
	for n, s := range c.servers {
		if n != own {
			list = append(list, s.GetGrpcAddress())
		}
	}
	return list
}

// URIs gives the URI of each check, empty for one that is not known.
func (c *Controller) URIs(checks []string) []string {
	uris := make([]string, len(checks))
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, name := range checks {
		if k, ok := c.mind.Check(name); ok {
			uris[i] = k.GetUri()
		}
	}
	return uris
}
