package cli

import (
	"context"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/rpc"
	"github.com/probemesh/probemesh/internal/version"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// defaultPort is taken when --server has none.
const defaultPort = "7700"

// maxAnswer is the largest message to accept: a page of 1,000 checks of 16 KiB, and some.
const maxAnswer = 64 << 20

// client is a connection to the mesh with a stub for each service that the command line calls.
type client struct {
	conn      *grpc.ClientConn
	checks    meshv1.CheckServiceClient
	statuses  meshv1.StatusServiceClient
	incidents meshv1.IncidentServiceClient
	probers   meshv1.ProberServiceClient
	receivers meshv1.ReceiverServiceClient
	servers   meshv1.ServerServiceClient
	members   meshv1.MemberServiceClient
	mesh      meshv1.MeshServiceClient
	builds    meshv1.BuildServiceClient
}

// Close ends the connection.
func (c *client) Close() { _ = c.conn.Close() }

// connect prepares a connection to the addresses of --server. It does not wait for it: the first call does.
func (a *app) connect() (*client, error) { return a.connectTo(a.server) }

// credentials are TLS when a file for it was given, as servers with --tls-cert want it.
func (a *app) credentials() (credentials.TransportCredentials, error) {
	if a.tls == (rpc.TLSFiles{}) {
		return insecure.NewCredentials(), nil
	}
	c, err := rpc.ClientTLS(a.tls)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return credentials.NewTLS(c), nil
}

func (a *app) connectTo(server string) (*client, error) {
	addresses, err := parseServers(server)
	if err != nil {
		return nil, err
	}
	creds, err := a.credentials()
	if err != nil {
		return nil, err
	}
	r := manual.NewBuilderWithScheme("probemesh")
	var state resolver.State
	for _, addr := range addresses {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: addr}}})
	}
	r.InitialState(state)
	conn, err := grpc.NewClient("probemesh:///"+addresses[0],
		grpc.WithResolvers(r),
		grpc.WithNoProxy(),
		grpc.WithTransportCredentials(creds),
		grpc.WithUserAgent("probemesh-cli/"+version.Version),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithUnaryInterceptor(a.retry))
	if err != nil {
		return nil, usagef("--server %s: %v", server, err)
	}
	return &client{
		conn:      conn,
		checks:    meshv1.NewCheckServiceClient(conn),
		statuses:  meshv1.NewStatusServiceClient(conn),
		incidents: meshv1.NewIncidentServiceClient(conn),
		probers:   meshv1.NewProberServiceClient(conn),
		receivers: meshv1.NewReceiverServiceClient(conn),
		servers:   meshv1.NewServerServiceClient(conn),
		members:   meshv1.NewMemberServiceClient(conn),
		mesh:      meshv1.NewMeshServiceClient(conn),
		builds:    meshv1.NewBuildServiceClient(conn),
	}, nil
}

// parseServers splits the value of --server into dialable addresses.
func parseServers(s string) ([]string, error) {
	var out []string
	for _, part := range strings.Split(s, ",") {
		addr := strings.TrimSpace(part)
		switch host, _, err := net.SplitHostPort(addr); {
		case addr == "" || strings.Contains(addr, "/"):
			return nil, usagef("--server %q is not an address; write HOST:PORT, for example %s", s, defaultServer)
		case err == nil && host == "":
			addr = "127.0.0.1" + addr
		case err != nil:
			addr = net.JoinHostPort(strings.Trim(addr, "[]"), defaultPort)
		}
		out = append(out, addr)
	}
	return out, nil
}

// retry repeats a call that the server says may be repeated (RetryInfo), or that found no leader, until it succeeds or its time is up. Only calls
// that change nothing when repeated get that far: reads, and Apply, which carries a request_id.
func (a *app) retry(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	told := false
	var answer error // the newest of a server
	for {
		err := invoke(ctx, method, req, reply, cc, opts...)
		if err != nil && answer != nil && (ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded) {
			return answer // says more than that there was no time for another, whichever side has seen that first
		}
		answer = err
		wait, again := retryAfter(err)
		if !again || !repeatable(method) {
			return err
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return err
		}
		if !told && a.err.terminal {
			e, _ := fault.From(err)
			a.note("%s; trying again…", strings.TrimRight(e.Message, "."))
			told = true
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// repeatable tells whether a call may be made twice.
func repeatable(method string) bool {
	name := method[strings.LastIndexByte(method, '/')+1:]
	for _, prefix := range []string{"Get", "List", "Explain", "Apply"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// retryAfter tells whether the server asks for another try, and when.
func retryAfter(err error) (time.Duration, bool) {
	e, ok := fault.From(err)
	if err == nil || !ok {
		return 0, false
	}
	switch {
	case e.RetryAfter > 0:
		return min(e.RetryAfter, 5*time.Second), true
	case e.Reason == meshv1.ErrorReason_NO_LEADER, e.Reason == meshv1.ErrorReason_SHUTTING_DOWN:
		return 300 * time.Millisecond, true
	}
	return 0, false
}

// answer runs one unary call under --timeout and turns its error into a sentence.
func answer[Request, Response any](ctx context.Context, a *app, call func(context.Context, Request, ...grpc.CallOption) (Response, error), req Request) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	resp, err := call(ctx, req)
	if err != nil {
		return resp, a.explain(err)
	}
	return resp, nil
}
