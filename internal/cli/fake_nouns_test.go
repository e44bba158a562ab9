package cli_test

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func (m *fakeMesh) GetIncident(_ context.Context, r *meshv1.GetIncidentRequest) (*meshv1.Incident, error) {
	return lookUp(m, m.incidents, r.GetName())
}

func (m *fakeMesh) ListIncidents(_ context.Context, r *meshv1.ListIncidentsRequest) (*meshv1.ListIncidentsResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := sorted(m.incidents)
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	page, next, err := pageOf(all, r.GetPageToken())
	return &meshv1.ListIncidentsResponse{Incidents: page, NextPageToken: next}, err
}

func (m *fakeMesh) AcknowledgeIncident(_ context.Context, r *meshv1.AcknowledgeIncidentRequest) (*meshv1.Incident, error) {
	i, err := lookUp(m, m.incidents, r.GetName())
	if err != nil {
		return nil, err
	}
	if i.GetState() == meshv1.Incident_RESOLVED {
		return nil, fault.New(codes.FailedPrecondition, meshv1.ErrorReason_STATE_CONFLICT, r.GetName(), "%s is resolved; only an open incident can be acknowledged", r.GetName())
	}
	i.AcknowledgedBy = r.GetBy()
	m.change(func() { m.incidents[r.GetName()] = i })
	return i, nil
}

func (m *fakeMesh) GetProber(_ context.Context, r *meshv1.GetProberRequest) (*meshv1.Prober, error) {
	return lookUp(m, m.probers, r.GetName())
}

func (m *fakeMesh) ListProbers(_ context.Context, r *meshv1.ListProbersRequest) (*meshv1.ListProbersResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	page, next, err := pageOf(sorted(m.probers), r.GetPageToken())
	return &meshv1.ListProbersResponse{Probers: page, NextPageToken: next}, err
}

func (m *fakeMesh) setDrained(name string, state meshv1.Prober_State) (*meshv1.Prober, error) {
	p, err := lookUp(m, m.probers, name)
	if err != nil {
		return nil, err
	}
	p.State = state
	m.change(func() { m.probers[name] = p })
	return p, nil
}

func (m *fakeMesh) DrainProber(_ context.Context, r *meshv1.DrainProberRequest) (*meshv1.Prober, error) {
	return m.setDrained(r.GetName(), meshv1.Prober_DRAINED)
}

func (m *fakeMesh) UndrainProber(_ context.Context, r *meshv1.UndrainProberRequest) (*meshv1.Prober, error) {
	return m.setDrained(r.GetName(), meshv1.Prober_ONLINE)
}

func (m *fakeMesh) GetReceiver(_ context.Context, r *meshv1.GetReceiverRequest) (*meshv1.Receiver, error) {
	return lookUp(m, m.receivers, r.GetName())
}

func (m *fakeMesh) ListReceivers(_ context.Context, r *meshv1.ListReceiversRequest) (*meshv1.ListReceiversResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	page, next, err := pageOf(sorted(m.receivers), r.GetPageToken())
	return &meshv1.ListReceiversResponse{Receivers: page, NextPageToken: next}, err
}

func (m *fakeMesh) DeleteReceiver(_ context.Context, r *meshv1.DeleteReceiverRequest) (*emptypb.Empty, error) {
	if _, err := lookUp(m, m.receivers, r.GetName()); err != nil {
		return nil, err
	}
	var user string
	m.change(func() {
		for _, c := range sorted(m.checks) {
			if user == "" && slices.Contains(c.GetReceivers(), r.GetName()) {
				user = c.GetName()
			}
		}
		if user == "" {
			delete(m.receivers, r.GetName())
		}
	})
	if user != "" {
		return nil, fault.New(codes.FailedPrecondition, meshv1.ErrorReason_RESOURCE_IN_USE, r.GetName(), "%s is named by %s; take it out there first", r.GetName(), user)
	}
	return &emptypb.Empty{}, nil
}

func (m *fakeMesh) TestReceiver(_ context.Context, r *meshv1.TestReceiverRequest) (*meshv1.TestReceiverResponse, error) {
	rec, err := lookUp(m, m.receivers, r.GetName())
	if err != nil {
		return nil, err
	}
	if strings.Contains(rec.GetWebhook().GetUrl(), "broken") {
		return &meshv1.TestReceiverResponse{Error: "the answer was 503 Service Unavailable", Status: 503, Duration: durationpb.New(7 * time.Millisecond)}, nil
	}
	return &meshv1.TestReceiverResponse{Delivered: true, Status: 204, Duration: durationpb.New(7 * time.Millisecond)}, nil
}

func (m *fakeMesh) ListServers(context.Context, *meshv1.ListServersRequest) (*meshv1.ListServersResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &meshv1.ListServersResponse{Servers: m.servers}, nil
}

func (m *fakeMesh) StepDown(_ context.Context, r *meshv1.StepDownRequest) (*meshv1.StepDownResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leader != "" {
		return nil, fault.New(codes.FailedPrecondition, meshv1.ErrorReason_NOT_LEADER, "", "this server does not lead").With("leader", m.leader)
	}
	return &meshv1.StepDownResponse{Term: 7}, nil
}
