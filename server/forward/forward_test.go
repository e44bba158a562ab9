package forward

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// node is a server whose answers say who gave them.
type node struct {
	meshv1.UnimplementedStatusServiceServer
	meshv1.UnimplementedServerServiceServer
	name string
}

func (n node) GetStatus(_ context.Context, r *meshv1.GetStatusRequest) (*meshv1.CheckStatus, error) {
	if r.GetCheck() == "checks/none" {
		return nil, fault.NotFound("checks/none")
	}
	return &meshv1.CheckStatus{Check: r.GetCheck(), Summary: n.name}, nil
}

func (n node) WatchStatuses(_ *meshv1.WatchStatusesRequest, s grpc.ServerStreamingServer[meshv1.WatchStatusesResponse]) error {
	for range 3 {
		if err := s.Send(&meshv1.WatchStatusesResponse{Status: &meshv1.CheckStatus{Summary: n.name}}); err != nil {
			return err
		}
	}
	return fault.New(codes.DataLoss, meshv1.ErrorReason_WATCH_LAGGED, "", "too slow")
}

func (n node) ListServers(context.Context, *meshv1.ListServersRequest) (*meshv1.ListServersResponse, error) {
	return &meshv1.ListServersResponse{Servers: []*meshv1.Server{{Name: n.name}}}, nil
}

// mesh is servers a and b over bufconn, with `leads` saying who each of them thinks leads.
type mesh struct {
	listeners map[string]*bufconn.Listener
	leads     map[string]string
}

func newMesh(t *testing.T, leads map[string]string) *mesh {
	m := &mesh{listeners: map[string]*bufconn.Listener{}, leads: leads}
	for name := range leads {
		m.listeners[name] = bufconn.Listen(1 << 16)
	}
	for name, listener := range m.listeners {
		f := New("servers/"+name, func() (string, bool) { return m.leads[name], m.leads[name] != name }, m.dial)
		s := grpc.NewServer(f.Options()...)
		meshv1.RegisterStatusServiceServer(s, node{name: name})
		meshv1.RegisterServerServiceServer(s, node{name: name})
		done := make(chan error, 1)
		go func() { done <- s.Serve(listener) }()
		t.Cleanup(func() { s.Stop(); f.Close(); <-done })
	}
	return m
}

func (m *mesh) dial(name string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:"+name, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return m.listeners[name].DialContext(ctx) }))
}

func (m *mesh) client(t *testing.T, name string) *grpc.ClientConn {
	conn, err := m.dial(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestStandbyAnswersAsTheLeaderDoes(t *testing.T) {
	t.Parallel()
	m := newMesh(t, map[string]string{"a": "a", "b": "a"})
	c := meshv1.NewStatusServiceClient(m.client(t, "b"))
	st, err := c.GetStatus(t.Context(), &meshv1.GetStatusRequest{Check: "checks/shop"})
	if err != nil || st.GetSummary() != "a" || st.GetCheck() != "checks/shop" {
		t.Errorf("GetStatus: %v, %v; want the leader's answer", st, err)
	}
	if _, err := c.GetStatus(t.Context(), &meshv1.GetStatusRequest{Check: "checks/none"}); !fault.IsReason(err, meshv1.ErrorReason_RESOURCE_NOT_FOUND) {
		t.Errorf("GetStatus of nothing: %v; want the leader's error with its reason", err)
	}
}

func TestStreamsAreForwardedToTheirEndAndError(t *testing.T) {
	t.Parallel()
	m := newMesh(t, map[string]string{"a": "a", "b": "a"})
	w, err := meshv1.NewStatusServiceClient(m.client(t, "b")).WatchStatuses(t.Context(), &meshv1.WatchStatusesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		r, err := w.Recv()
		if err != nil {
			if !fault.IsReason(err, meshv1.ErrorReason_WATCH_LAGGED) {
				t.Errorf("the stream ended with %v; want the leader's error", err)
			}
			break
		}
		if r.GetStatus().GetSummary() != "a" {
			t.Errorf("message from %q, want from the leader", r.GetStatus().GetSummary())
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
}

func TestServersSpeakForThemselves(t *testing.T) {
	t.Parallel()
	m := newMesh(t, map[string]string{"a": "a", "b": "a"})
	r, err := meshv1.NewServerServiceClient(m.client(t, "b")).ListServers(t.Context(), &meshv1.ListServersRequest{})
	if err != nil || r.GetServers()[0].GetName() != "b" {
		t.Errorf("ListServers at b: %v, %v; want b's own answer", r, err)
	}
}

func TestCallsDoNotCircleWhenServersDisagree(t *testing.T) {
	t.Parallel()
	m := newMesh(t, map[string]string{"a": "b", "b": "a"})
	st, err := meshv1.NewStatusServiceClient(m.client(t, "a")).GetStatus(t.Context(), &meshv1.GetStatusRequest{Check: "checks/shop"})
	if err != nil || st.GetSummary() != "b" {
		t.Errorf("%v, %v; want one hop, answered by b", st, err)
	}
}

func TestWithoutALeaderTheCallerIsToldToTryAgain(t *testing.T) {
	t.Parallel()
	m := newMesh(t, map[string]string{"a": ""})
	_, err := meshv1.NewStatusServiceClient(m.client(t, "a")).GetStatus(t.Context(), &meshv1.GetStatusRequest{Check: "checks/shop"})
	e, ok := fault.From(err)
	if !ok || e.Reason != meshv1.ErrorReason_NO_LEADER || e.RetryAfter == 0 {
		t.Errorf("%v; want NO_LEADER with advice to retry", err)
	}
}
