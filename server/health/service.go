package health

import (
	"context"

	"google.golang.org/grpc"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Register puts MeshService onto a gRPC server that does not serve yet.
func (m *Monitor) Register(r grpc.ServiceRegistrar) {
	meshv1.RegisterMeshServiceServer(r, meshService{monitor: m})
}

type meshService struct {
	meshv1.UnimplementedMeshServiceServer
	monitor *Monitor
}

// GetMesh tells how the mesh is, from memory.
func (s meshService) GetMesh(context.Context, *meshv1.GetMeshRequest) (*meshv1.GetMeshResponse, error) {
	return &meshv1.GetMeshResponse{Mesh: s.monitor.Mesh()}, nil
}
