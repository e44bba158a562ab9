package api

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

type serverService struct {
	meshv1.UnimplementedServerServiceServer
	api *API
}

// here is what this server knows of itself and of who leads. A reign of its own that is over may still be what etcd said last, when etcd is lost: then nobody leads.
func (a *API) here() ServerInfo {
	info := a.mesh.Server()
	if !info.Leading && info.Leader == info.Name {
		info.Leader, info.LeaderAddress = "", ""
	}
	return info
}

// ListServers lists the servers that are alive and those that are missed, as this server knows them: it answers while etcd is lost, and shows those then that were there last.
func (s serverService) ListServers(_ context.Context, _ *meshv1.ListServersRequest) (*meshv1.ListServersResponse, error) {
	here := s.api.here()
	response := &meshv1.ListServersResponse{}
	listed := map[string]bool{}
	for _, r := range s.api.mesh.Records() {
		server := &meshv1.Server{
			Name: r.GetName(), Datacenter: r.GetDatacenter(), GrpcAddress: r.GetGrpcAddress(), HttpAddress: r.GetHttpAddress(), Version: r.GetVersion(),
			StartTime: r.GetStartTime(), BootId: r.GetBootId(), Labels: r.GetLabels(), Term: int32(here.Term), Leader: here.Leader != "" && here.Leader == r.GetName(),
		}
		if r.GetName() == here.Name {
			server.Sessions, server.Revision = int32(here.Sessions), here.Revision
		}
		if s.api.describe != nil {
			s.api.describe(server)
		}
		listed[server.Name] = true
		response.Servers = append(response.Servers, server)
	}
	if s.api.missed != nil {
		for _, gone := range s.api.missed() {
			if !listed[gone.GetName()] {
				gone.Gone, gone.Term = true, int32(here.Term)
				response.Servers = append(response.Servers, gone)
			}
		}
	}
	slices.SortFunc(response.Servers, func(a, b *meshv1.Server) int { return strings.Compare(a.GetName(), b.GetName()) })
	return response, nil
}

// StepDown makes this server resign, if it leads.
func (s serverService) StepDown(_ context.Context, req *meshv1.StepDownRequest) (*meshv1.StepDownResponse, error) {
	here := s.api.here()
	switch {
	case !here.Leading && here.Leader == "":
		return nil, fault.New(codes.FailedPrecondition, meshv1.ErrorReason_NOT_LEADER, here.Name, "%s does not lead, and no server does at present", here.Name)
	case !here.Leading:
		e := fault.New(codes.FailedPrecondition, meshv1.ErrorReason_NOT_LEADER, here.Name, "%s does not lead; %s does, at %s: ask it", here.Name, here.Leader, here.LeaderAddress)
		return nil, e.With("leader", here.LeaderAddress)
	case req.GetTerm() != 0 && int64(req.GetTerm()) != here.Term:
		return nil, fault.New(codes.FailedPrecondition, meshv1.ErrorReason_NOT_LEADER, here.Name,
			"%s leads term %d, not %d; nothing was changed", here.Name, here.Term, req.GetTerm())
	}
	term, err := s.api.mesh.StepDown(int64(req.GetTerm()))
	if err != nil {
		return nil, err
	}
	return &meshv1.StepDownResponse{Term: int32(term)}, nil
}
