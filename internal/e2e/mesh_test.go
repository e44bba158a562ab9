//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// mesh is a running server (`up` or `server`) and the clients of its API.
type mesh struct {
	t    *testing.T
	verb string
	args []string
	opts []option
	data string
	proc *process
	grpc string
	http string

	conn      *grpc.ClientConn
	checks    meshv1.CheckServiceClient
	statuses  meshv1.StatusServiceClient
	incidents meshv1.IncidentServiceClient
	probers   meshv1.ProberServiceClient
	receivers meshv1.ReceiverServiceClient
	history   meshv1.HistoryServiceClient
	sessions  meshv1.SessionServiceClient
	control   meshv1.ServerServiceClient
}

// startMesh runs `probemesh verb` on ports that no outgoing connection is given while it is down, so that it can be started again, and waits until it serves.
func startMesh(t *testing.T, verb string, args []string, options ...option) *mesh {
	t.Helper()
	m := newMesh(t, verb, args, t.TempDir(), options...)
	m.start()
	return m
}

// newMesh is a mesh with a data directory that has not been started.
func newMesh(t *testing.T, verb string, args []string, data string, options ...option) *mesh {
	t.Helper()
	return &mesh{t: t, verb: verb, args: args, opts: options, data: data, grpc: quietAddress(t), http: quietAddress(t)}
}

// start starts the process, on the ports of the start before if there was one, and waits until it is ready.
func (m *mesh) start() {
	m.t.Helper()
	m.launch()
	m.ready()
}

func (m *mesh) launch() {
	m.t.Helper()
	_ = os.Remove(filepath.Join(m.data, "addresses.json"))
	args := append([]string{m.verb, "--data", m.data, "--grpc-listen", m.grpc, "--http-listen", m.http, "--lease-ttl", "2s"}, m.args...)
	m.proc = begin(m.t, m.verb, args, m.opts...)
}

// ready waits until a server that was launched is ready, and connects to it.
func (m *mesh) ready() {
	m.t.Helper()
	until(m.t, m.verb+" is ready", func() (bool, string) {
		if !m.proc.alive() {
			m.t.Fatalf("%s has ended:\n%s", m.verb, tail(m.proc.log.String(), 20))
		}
		b, err := os.ReadFile(filepath.Join(m.data, "addresses.json"))
		if err != nil {
			return false, err.Error()
		}
		var at struct{ GRPC, HTTP string }
		if err := json.Unmarshal(b, &at); err != nil {
			return false, err.Error()
		}
		if m.checks == nil || m.grpc != at.GRPC {
			m.connect(at.GRPC)
		}
		m.grpc, m.http = at.GRPC, at.HTTP
		return true, ""
	})
}

func (m *mesh) connect(address string) {
	m.t.Helper()
	cc := dial(m.t, address)
	m.conn = cc
	m.checks, m.statuses, m.incidents = meshv1.NewCheckServiceClient(cc), meshv1.NewStatusServiceClient(cc), meshv1.NewIncidentServiceClient(cc)
	m.receivers = meshv1.NewReceiverServiceClient(cc)
	m.probers, m.history, m.sessions = meshv1.NewProberServiceClient(cc), meshv1.NewHistoryServiceClient(cc), meshv1.NewSessionServiceClient(cc)
	m.control = meshv1.NewServerServiceClient(cc)
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// restart kills the process with SIGKILL and starts it again.
func (m *mesh) restart() {
	m.t.Helper()
	m.proc.kill()
	m.start()
}

// quietAddress is a free address of 127.0.0.1 below the range from which the kernel takes ports for outgoing connections.
func quietAddress(t *testing.T) string {
	t.Helper()
	for range 200 {
		address := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(18000))
		// A port is given once: whoever has it may be down for the moment.
		if _, taken := given.LoadOrStore(address, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port found")
	return ""
}

// startProber runs `probemesh prober` and waits until it has a session. It returns the process and its data directory.
func startProber(t *testing.T, m *mesh, name, datacenter string, options ...option) (*process, string) {
	t.Helper()
	dir := t.TempDir()
	p := launchProber(t, m.grpc, name, datacenter, dir, options...)
	m.awaitProber(name)
	return p, dir
}

func launchProber(t *testing.T, server, name, datacenter, dir string, options ...option) *process {
	t.Helper()
	return begin(t, "prober "+name, []string{"prober", "--name", name, "--datacenter", datacenter, "--data", dir, "--server", server}, options...)
}

func (m *mesh) awaitProber(name string) {
	m.t.Helper()
	until(m.t, name+" is online", func() (bool, string) {
		p, err := m.probers.GetProber(m.ctx(), &meshv1.GetProberRequest{Name: "probers/" + name})
		if err != nil {
			return false, err.Error()
		}
		return p.GetState() == meshv1.Prober_ONLINE, p.GetState().String()
	})
}

// ctx bounds one call.
func (m *mesh) ctx() context.Context {
	ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
	m.t.Cleanup(cancel)
	return ctx
}

// cli runs a user's verb against the mesh and returns what it printed, and its exit code.
func (m *mesh) cli(stdin string, args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"--server", m.grpc}, args...)...)
	cmd.Env = cleanEnv()
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		m.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// apply applies YAML, which must succeed.
func (m *mesh) apply(yaml string) {
	m.t.Helper()
	if out, errs, code := m.cli(yaml, "apply", "-f", "-"); code != 0 {
		m.t.Fatalf("apply ended with %d:\n%s%s\n%s", code, out, errs, yaml)
	}
}

// status is a check's status, nil when it cannot be had just now.
func (m *mesh) status(check string) *meshv1.CheckStatus {
	s, err := m.statuses.GetStatus(m.ctx(), &meshv1.GetStatusRequest{Check: "checks/" + check})
	if err != nil {
		return nil
	}
	return s
}

// awaitVerdict waits for a verdict that rests on n fresh votes.
func (m *mesh) awaitVerdict(check string, want meshv1.CheckStatus_Verdict, n int) *meshv1.CheckStatus {
	m.t.Helper()
	var s *meshv1.CheckStatus
	until(m.t, fmt.Sprintf("%s is %s", check, want), func() (bool, string) {
		s = m.status(check)
		fresh := 0
		for _, v := range s.GetVotes() {
			if v.GetFresh() {
				fresh++
			}
		}
		return s.GetVerdict() == want && fresh >= n, fmt.Sprintf("%s, %d fresh votes: %s", s.GetVerdict(), fresh, s.GetSummary())
	})
	return s
}

// allIncidents are those that are open or were.
func (m *mesh) allIncidents() []*meshv1.Incident {
	m.t.Helper()
	resp, err := m.incidents.ListIncidents(m.ctx(), &meshv1.ListIncidentsRequest{PageSize: 1000})
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.GetIncidents()
}
