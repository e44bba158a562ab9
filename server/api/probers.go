package api

import (
	"context"
	"errors"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/api/filter"
	"github.com/probemesh/probemesh/server/store"
)

func proberKeys() []filter.Key {
	return []filter.Key{
		{Name: "name", Collection: spec.Probers},
		{Name: "datacenter"},
		{Name: "state", Values: enumNames(meshv1.Prober_State_name)},
		{Name: "build"},
		{Name: "labels."},
	}
}

func proberValues(p *meshv1.Prober) func(string) []string {
	return func(key string) []string {
		switch key {
		case "name":
			return []string{p.GetName()}
		case "datacenter":
			return []string{p.GetDatacenter()}
		case "state":
			return []string{p.GetState().String()}
		case "build":
			return []string{p.GetBuild()}
		}
		return labelValue(p.GetDomains(), key)
	}
}

type proberService struct {
	meshv1.UnimplementedProberServiceServer
	api *API
}

// GetProber returns one prober.
func (s proberService) GetProber(ctx context.Context, req *meshv1.GetProberRequest) (*meshv1.Prober, error) {
	name, err := named(spec.Probers, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	return recalled(s.api.recall(ctx), func(ctx context.Context) (*meshv1.Prober, error) {
		v, err := s.api.store.GetEnrolment(ctx, name)
		if err != nil {
			return nil, err
		}
		return s.shown(v), nil
	}, func() (*meshv1.Prober, bool) { return s.api.mesh.Prober(name) })
}

// shown is a prober as the mesh knows it, with what its enrolment says now: the mesh may not have heard of the latest change.
func (s proberService) shown(v store.Versioned[*statev1.Enrolment]) *meshv1.Prober {
	e := v.Value
	p, ok := s.api.mesh.Prober(e.GetName())
	if !ok {
		p = &meshv1.Prober{Name: e.GetName(), Datacenter: e.GetDatacenter(), Build: e.GetBuild(), Capabilities: e.GetCapabilities(),
			Domains: map[string]string{}, State: meshv1.Prober_OFFLINE, CreateTime: e.GetCreateTime()}
		for key, value := range e.GetLabels() {
			p.Domains[key] = value
		}
		p.Domains["datacenter"], p.Domains["build"] = e.GetDatacenter(), e.GetBuild()
	}
	p.Etag = strconv.FormatInt(v.ModRevision, 10)
	switch p.Drained = e.GetDrained(); {
	case p.Drained:
		p.State = meshv1.Prober_DRAINED
	case p.State == meshv1.Prober_DRAINED && p.Server != "":
		p.State = meshv1.Prober_ONLINE
	case p.State == meshv1.Prober_DRAINED:
		p.State = meshv1.Prober_OFFLINE
	}
	return p
}

// ListProbers returns a page of probers.
func (s proberService) ListProbers(ctx context.Context, req *meshv1.ListProbersRequest) (*meshv1.ListProbersResponse, error) {
	f, cursor, err := listing{"ListProbers", req.GetFilter(), proberKeys(), req.GetPageToken(), req.GetPageSize()}.read()
	if err != nil {
		return nil, err
	}
	all, err := recalled(s.api.recall(ctx), s.enrolled, func() ([]*meshv1.Prober, bool) { return s.api.mesh.Probers(), true })
	if err != nil {
		return nil, err
	}
	found, next, err := collect(cursor, !f.Empty(), inMemory(all), func(p *meshv1.Prober) bool { return f.Match(proberValues(p)) })
	if err != nil {
		return nil, err
	}
	return &meshv1.ListProbersResponse{Probers: found, NextPageToken: next}, nil
}

// enrolled are all probers that the store has.
func (s proberService) enrolled(ctx context.Context) ([]*meshv1.Prober, error) {
	enrolments, _, err := s.api.store.ListEnrolments(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]*meshv1.Prober, len(enrolments))
	for i, v := range enrolments {
		all[i] = s.shown(v)
	}
	return all, nil
}

// DrainProber takes a prober out of service.
func (s proberService) DrainProber(ctx context.Context, req *meshv1.DrainProberRequest) (*meshv1.Prober, error) {
	return s.setDrained(ctx, req.GetName(), req.GetEtag(), true)
}

// UndrainProber puts a prober back into service.
func (s proberService) UndrainProber(ctx context.Context, req *meshv1.UndrainProberRequest) (*meshv1.Prober, error) {
	return s.setDrained(ctx, req.GetName(), req.GetEtag(), false)
}

func (s proberService) setDrained(ctx context.Context, given, etag string, drained bool) (*meshv1.Prober, error) {
	var p *meshv1.Prober
	err := s.amend(ctx, given, etag, func(v store.Versioned[*statev1.Enrolment]) (err error) {
		if v.Value.GetDrained() != drained {
			v.Value.Drained = drained
			if v.ModRevision, err = s.api.store.PutEnrolment(ctx, v.Value, v.ModRevision); err != nil {
				return err
			}
		}
		p = s.shown(v)
		return nil
	})
	return p, err
}

// DeleteProber forgets a prober.
func (s proberService) DeleteProber(ctx context.Context, req *meshv1.DeleteProberRequest) (*emptypb.Empty, error) {
	err := s.amend(ctx, req.GetName(), req.GetEtag(), func(v store.Versioned[*statev1.Enrolment]) error {
		name := v.Value.GetName()
		if p, ok := s.api.mesh.Prober(name); ok && (p.GetServer() != "" || p.GetState() == meshv1.Prober_ONLINE) {
			return fault.New(codes.FailedPrecondition, meshv1.ErrorReason_STATE_CONFLICT, name,
				"%s is online and would enrol again at once; stop it first, or drain it", name)
		}
		return s.api.store.DeleteEnrolment(ctx, name, v.ModRevision)
	})
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// amend reads an enrolment and lets change write it, again when somebody else was faster, unless the caller's etag says that this matters.
func (s proberService) amend(ctx context.Context, given, etag string, change func(store.Versioned[*statev1.Enrolment]) error) error {
	name, err := named(spec.Probers, "name", given)
	if err != nil {
		return err
	}
	for range updateRounds {
		v, err := s.api.store.GetEnrolment(ctx, name)
		if err != nil {
			return err
		}
		if current := strconv.FormatInt(v.ModRevision, 10); etag != "" && etag != current {
			return fault.EtagMismatch(name, current)
		}
		if err := change(v); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return fault.New(codes.Aborted, reasonEtag, name, "%s is being changed by many at once; nothing was changed, try again", name)
}
