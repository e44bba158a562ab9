package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/timeline"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/api/filter"
	"github.com/probemesh/probemesh/server/store"
)

const (
	// byMax and commentMax bound what an acknowledgement may say, in characters.
	byMax, commentMax = 200, 1000
)

func incidentKeys() []filter.Key {
	return []filter.Key{
		{Name: "check", Collection: spec.Checks},
		{Name: "state", Values: enumNames(meshv1.Incident_State_name)},
		{Name: "verdict", Values: enumNames(meshv1.CheckStatus_Verdict_name)},
		{Name: "kind", Values: enumNames(meshv1.Incident_Kind_name)},
		{Name: "group", Collection: spec.Incidents},
		{Name: "labels."},
	}
}

func incidentValues(i *meshv1.Incident) func(string) []string {
	return func(key string) []string {
		switch key {
		case "check":
			if i.GetCheck() == "" {
				return nil
			}
			return []string{i.GetCheck()}
		case "state":
			return []string{i.GetState().String()}
		case "verdict":
			return []string{i.GetVerdict().String()}
		case "kind":
			return []string{i.GetKind().String()}
		case "group":
			if i.GetGroup() == "" {
				return nil
			}
			return []string{i.GetGroup()}
		}
		return labelValue(i.GetLabels(), key)
	}
}

type incidentService struct {
	meshv1.UnimplementedIncidentServiceServer
	api *API
}

// GetIncident returns one incident.
func (s incidentService) GetIncident(ctx context.Context, req *meshv1.GetIncidentRequest) (*meshv1.Incident, error) {
	name, err := named(spec.Incidents, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	return s.read(s.api.recall(ctx), name)
}

// read gives an incident from the store, or from memory when it is open.
func (s incidentService) read(r *recall, name string) (*meshv1.Incident, error) {
	return recalled(r, func(ctx context.Context) (*meshv1.Incident, error) {
		v, err := s.api.store.GetIncident(ctx, name)
		return v.Value.GetIncident(), err
	}, func() (*meshv1.Incident, bool) { return s.api.openIncident(name) })
}

// open gives the open incidents from the store, or from memory.
func (s incidentService) open(r *recall) ([]*meshv1.Incident, error) {
	return recalled(r, func(ctx context.Context) ([]*meshv1.Incident, error) {
		open, _, err := s.api.store.ListOpenIncidents(ctx)
		return bare(open), err
	}, func() ([]*meshv1.Incident, bool) { return s.api.mesh.OpenIncidents(), true })
}

func bare(stored []store.Versioned[*statev1.StoredIncident]) []*meshv1.Incident {
	list := make([]*meshv1.Incident, 0, len(stored))
	for _, v := range stored {
		list = append(list, v.Value.GetIncident())
	}
	return list
}

// ListIncidents returns a page of incidents, newest first.
func (s incidentService) ListIncidents(ctx context.Context, req *meshv1.ListIncidentsRequest) (*meshv1.ListIncidentsResponse, error) {
	f, cursor, err := listing{"ListIncidents", req.GetFilter(), incidentKeys(), req.GetPageToken(), req.GetPageSize()}.read()
	if err != nil {
		return nil, err
	}
	memory := s.api.recall(ctx)
	from := func(before string, limit int) ([]*meshv1.Incident, string, error) {
		return s.older(memory, f, before, limit)
	}
	found, next, err := collect(cursor, !f.Empty(), from, func(i *meshv1.Incident) bool { return f.Match(incidentValues(i)) })
	if err != nil {
		return nil, err
	}
	return &meshv1.ListIncidentsResponse{Incidents: found, NextPageToken: next}, nil
}

// older is the source of incidents in descending order of name, that is, of time. The open ones are read first: one that is resolved in between
// is then seen twice, not missed, and taken once, as resolved.
func (s incidentService) older(r *recall, f filter.Filter, before string, limit int) ([]*meshv1.Incident, string, error) {
	byName := map[string]*meshv1.Incident{}
	add := func(list []*meshv1.Incident) {
		for _, i := range list {
			if before == "" || i.GetName() < before {
				byName[i.GetName()] = i
			}
		}
	}
	if !f.Excludes("state", meshv1.Incident_OPEN.String()) {
		open, err := s.open(r)
		if err != nil {
			return nil, "", err
		}
		add(open)
	}
	more := false
	if !f.Excludes("state", meshv1.Incident_RESOLVED.String()) {
		closed, err := recalled(r, func(ctx context.Context) ([]*meshv1.Incident, error) {
			closed, _, err := s.api.store.ListClosedIncidents(ctx, before, limit)
			return bare(closed), err
		}, func() ([]*meshv1.Incident, bool) { return nil, false })
		if r.away {
			return nil, "", errHistoryAway
		}
		if err != nil {
			return nil, "", err
		}
		add(closed)
		more = len(closed) == limit
	}
	merged := make([]*meshv1.Incident, 0, len(byName))
	for _, i := range byName {
		merged = append(merged, i)
	}
	slices.SortFunc(merged, func(a, b *meshv1.Incident) int { return strings.Compare(b.GetName(), a.GetName()) })
	if len(merged) > limit {
		merged, more = merged[:limit], true
	}
	return merged, nextAfter(merged, more), nil
}

// WatchIncidents streams incidents.
func (s incidentService) WatchIncidents(req *meshv1.WatchIncidentsRequest, stream grpc.ServerStreamingServer[meshv1.WatchIncidentsResponse]) error {
	f, err := filter.Parse(req.GetFilter(), incidentKeys())
	if err != nil {
		return err
	}
	return serveWatch(s.api, stream, func(ctx context.Context, send func(*meshv1.WatchIncidentsResponse) error) error {
		changes := s.api.mesh.SubscribeIncidents() // before the snapshot, so that what changes meanwhile is sent again
		defer changes.Close()
		view := &incidentView{filter: f, shown: map[string]string{}, send: send}
		open, err := s.open(s.api.recall(ctx))
		if err != nil {
			return err
		}
		for _, i := range open {
			if err := view.show(i); err != nil {
				return err
			}
		}
		if err := send(&meshv1.WatchIncidentsResponse{Synced: true}); err != nil {
			return err
		}
		for {
			names, err := changes.Next(ctx)
			if err != nil {
				return err
			}
			slices.Sort(names)
			for _, name := range names {
				i, err := s.read(s.api.recall(ctx), name)
				if isNotFound(err) {
					continue // so old that it is no longer kept
				}
				if err != nil {
					return err
				}
				if err := view.show(i); err != nil {
					return err
				}
			}
		}
	})
}

// incidentView is what a watcher has been shown: the etag of each open incident.
type incidentView struct {
	filter filter.Filter
	shown  map[string]string
	send   func(*meshv1.WatchIncidentsResponse) error
}

// show sends an incident that passes the filter, or that did when it was last sent, unless it is still as it was.
func (v *incidentView) show(i *meshv1.Incident) error {
	etag, before := v.shown[i.GetName()]
	fits := v.filter.Match(incidentValues(i))
	if (!fits && !before) || (before && etag == i.GetEtag()) {
		return nil
	}
	if fits && i.GetState() == meshv1.Incident_OPEN {
		v.shown[i.GetName()] = i.GetEtag()
	} else {
		delete(v.shown, i.GetName())
	}
	return v.send(&meshv1.WatchIncidentsResponse{Incident: i})
}

// errUnchanged ends an amendment that has nothing to do.
var errUnchanged = errors.New("nothing to change")

// AcknowledgeIncident records who takes care of an open incident.
func (s incidentService) AcknowledgeIncident(ctx context.Context, req *meshv1.AcknowledgeIncidentRequest) (*meshv1.Incident, error) {
	faults := acknowledgeFaults(req)
	name, err := named(spec.Incidents, "name", req.GetName())
	if invalid, ok := fault.From(err); ok {
		faults = append(faults, invalid.Violations...)
	}
	if err := invalidIfAny(faults); err != nil {
		return nil, err
	}
	var same *meshv1.Incident
	v, err := s.api.store.AmendIncident(ctx, nil, name, func(stored *statev1.StoredIncident) error {
		i := stored.GetIncident()
		if i.GetState() == meshv1.Incident_OPEN && i.GetAcknowledgedBy() == req.GetBy() {
			same = i
			return errUnchanged
		}
		if req.GetEtag() != "" && req.GetEtag() != i.GetEtag() {
			return fault.EtagMismatch(name, i.GetEtag())
		}
		return acknowledge(i, req, time.Now())
	})
	if errors.Is(err, errUnchanged) {
		return same, nil
	}
	if err != nil {
		return nil, err
	}
	return v.Value.GetIncident(), nil
}

func acknowledgeFaults(req *meshv1.AcknowledgeIncidentRequest) []fault.Violation {
	var faults []fault.Violation
	if strings.TrimSpace(req.GetBy()) == "" {
		faults = append(faults, fault.Violation{Field: "by", Problem: "is missing; say who takes care"})
	}
	if n := utf8.RuneCountInString(req.GetBy()); n > byMax {
		faults = append(faults, fault.Violation{Field: "by", Problem: fmt.Sprintf("has %d characters; at most %d are allowed", n, byMax)})
	}
	if n := utf8.RuneCountInString(req.GetComment()); n > commentMax {
		faults = append(faults, fault.Violation{Field: "comment", Problem: fmt.Sprintf("has %d characters; at most %d are allowed", n, commentMax)})
	}
	return faults
}

// acknowledge changes an open incident.
func acknowledge(i *meshv1.Incident, req *meshv1.AcknowledgeIncidentRequest, now time.Time) error {
	if i.GetState() != meshv1.Incident_OPEN {
		return fault.New(codes.FailedPrecondition, meshv1.ErrorReason_STATE_CONFLICT, i.GetName(),
			"%s is resolved since %s; only an open incident can be acknowledged", i.GetName(), i.GetResolveTime().AsTime().UTC().Format(time.RFC3339))
	}
	i.AcknowledgedBy, i.AcknowledgeTime = req.GetBy(), timestamppb.New(now)
	text := req.GetBy() + " takes care of it"
	if req.GetComment() != "" {
		text += ": " + req.GetComment()
	}
	timeline.Add(i, &meshv1.TimelineEntry{Time: i.AcknowledgeTime, Event: meshv1.TimelineEntry_ACKNOWLEDGED, Text: text})
	return nil
}
