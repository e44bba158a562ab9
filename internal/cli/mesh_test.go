package cli_test

import (
	"context"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func (m *fakeMesh) GetMesh(context.Context, *meshv1.GetMeshRequest) (*meshv1.GetMeshResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &meshv1.GetMeshResponse{Mesh: proto.CloneOf(m.mesh)}, nil
}
