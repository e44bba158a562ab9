package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/cli"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"probemesh": func() {
		os.Exit(cli.Run(context.Background(), cli.Environment{Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}))
	}})
}

// TestScripts runs sessions of a user, each against a fake mesh of its own. `status N command...` runs a command that must exit with N;
// `mesh ...` changes the fake; `-update` on the test's command line rewrites what the sessions show.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			m := newFake()
			m.listen(t, "127.0.0.1:0")
			env.Defer(m.stop)
			env.Values["mesh"] = m
			env.Setenv("PROBEMESH_SERVER", m.addr)
			env.Setenv("USER", "alice")
			return writeLargeFiles(env.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mesh":   meshCommand,
			"status": statusCommand,
		},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

// writeLargeFiles writes what would make a script long: a directory with a hundred checks of which the 78th is bad, and a check over 16 KiB.
func writeLargeFiles(dir string) error {
	var hundred strings.Builder
	hundred.WriteString("checks:\n")
	for i := range 100 {
		interval := "30s"
		if i == 77 {
			interval = "30ms"
		}
		fmt.Fprintf(&hundred, "  - name: check-%d\n    uri: tcp://host-%d.example.com:443\n    interval: %s\n", i, i, interval)
	}
	if err := os.Mkdir(filepath.Join(dir, "hundred"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "hundred", "all.yaml"), []byte(hundred.String()), 0o644); err != nil {
		return err
	}
	large := "checks:\n  - name: large\n    uri: https://a.example.com/\n    annotations:\n"
	for i := range 10 {
		large += fmt.Sprintf("      note-%d: %s\n", i, strings.Repeat("x", 2000))
	}
	return os.WriteFile(filepath.Join(dir, "large.yaml"), []byte(large), 0o644)
}

// statusCommand is `status N command args...`.
func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		var exit interface{ ExitCode() int }
		if e, ok := err.(interface{ ExitCode() int }); ok {
			exit = e
		} else {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%v exits with %d, not %s", args[1:], got, args[0])
	}
}

// meshCommand changes the fake mesh: `mesh verdict CHECK VERDICT SUMMARY`, `mesh fill`, `mesh ail`, `mesh leaderless N`, `mesh leader ADDR`.
func meshCommand(ts *testscript.TestScript, neg bool, args []string) {
	m := ts.Value("mesh").(*fakeMesh)
	switch args[0] {
	case "verdict":
		m.setVerdict("checks/"+args[1], meshv1.CheckStatus_Verdict(meshv1.CheckStatus_Verdict_value[args[2]]), args[3])
	case "leaderless":
		m.change(func() { m.leaderless = 2 })
	case "follower":
		leader := newFake()
		leader.addr = m.addr
		m.change(func() { m.leader = "127.0.0.1:1" })
	case "fill":
		m.change(func() { fill(m) })
	case "ail":
		m.change(func() { ail(m.mesh) })
	default:
		ts.Fatalf("mesh has no %s", args[0])
	}
}

// ail makes the mesh lose a datacenter, with what follows from that.
func ail(m *meshv1.Mesh) {
	m.State, m.Summary = meshv1.Mesh_FAILING, "Somebody should look now. No prober of datacenter sin is heard."
	m.Conditions = []*meshv1.Condition{
		{Code: meshv1.Condition_DATACENTER_SILENT, Severity: meshv1.Condition_CRITICAL, Summary: "No prober of datacenter sin is heard.", Remedy: "Look at its network.", Since: ago(150 * time.Minute)},
		{Code: meshv1.Condition_PROBER_SILENT, Severity: meshv1.Condition_WARNING, Summary: "The prober of sin is silent: sin-1.", CausedBy: meshv1.Condition_DATACENTER_SILENT, Since: ago(150 * time.Minute)},
		{Code: meshv1.Condition_NO_MESH_RECEIVER, Severity: meshv1.Condition_INFO, Summary: "No receiver is told when the mesh itself is blind.", Remedy: "Set mesh_incidents: true.", Since: ago(50*time.Hour + 30*time.Minute)},
	}
}

// fill gives the fake probers, servers and incidents. Ages are in the middle of an hour of some day, so that they read the same all through a test.
func fill(m *fakeMesh) {
	for i, dc := range []string{"fra", "iad", "sin"} {
		name := "probers/" + dc + "-1"
		m.probers[name] = &meshv1.Prober{Name: name, Datacenter: dc, State: meshv1.Prober_ONLINE, Build: "1.4.2", Server: "servers/a",
			StateTime: ago(26*time.Hour + 30*time.Minute), Assignments: int32(10 + i), RoundTripTime: durationpb.New(time.Duration(i+1) * 1234 * time.Microsecond),
			Capabilities: []string{"http", "tcp"}, Domains: map[string]string{"datacenter": dc, "build": "1.4.2"}, InSync: true}
	}
	m.probers["probers/sin-1"].State = meshv1.Prober_OFFLINE
	m.probers["probers/sin-1"].Refusals = []*meshv1.AssignmentRefusal{{Check: "checks/ping", Reason: "raw ICMP needs CAP_NET_RAW"}}
	m.servers = []*meshv1.Server{
		{Name: "servers/a", Datacenter: "fra", Leader: true, Term: 7, GrpcAddress: "10.0.0.1:7700", HttpAddress: "10.0.0.1:7701", Version: "1.4.2", StartTime: ago(98*time.Hour + 30*time.Minute),
			Heard: true, Sessions: 2, Hears: 3, Revision: 120, Peers: []*meshv1.ServerPeer{{Server: "servers/b", Heard: true}}},
		{Name: "servers/b", Datacenter: "iad", Term: 7, GrpcAddress: "10.1.0.1:7700", HttpAddress: "10.1.0.1:7701", Version: "1.4.2", StartTime: ago(49*time.Hour + 30*time.Minute),
			Heard: true, Sessions: 1, Hears: 1, Revision: 117, RevisionLag: 3, HistoryLag: 40, Peers: []*meshv1.ServerPeer{{Server: "servers/a"}}},
	}
	m.mesh = &meshv1.Mesh{Server: "servers/a", State: meshv1.Mesh_HEALTHY, Summary: "All is well: 2 servers, 3 probers in 3 datacenters; a leads.", Leader: "servers/a", Term: 7,
		Datacenters: []*meshv1.DatacenterHealth{{Name: "fra", Probers: 1, ProbersOnline: 1, Servers: 1, ServersHeard: 1}, {Name: "sin", Probers: 1}},
		EtcdMembers: []*meshv1.EtcdMember{{Id: "00a", Name: "a", Leader: true, Healthy: true, DbSizeBytes: 3 << 20}, {Id: "00b", Name: "b", Healthy: true}}}
	open, closed := "incidents/01hzx3v9s4q4k3t9d1f5a8c2yf", "incidents/01hzx3v9s4q4k3t9d1f5a8c2ye"
	m.incidents[open] = &meshv1.Incident{Name: open, Kind: meshv1.Incident_CHECK, Check: "checks/shop", State: meshv1.Incident_OPEN, Verdict: meshv1.CheckStatus_DOWN,
		Reason: meshv1.CheckStatus_QUORUM_DOWN, StartTime: ago(26*time.Hour + 30*time.Minute), Summary: "shop is DOWN: 3 of 3 datacenters see connection refused", Receivers: []string{"receivers/ops"}, Term: 7}
	m.incidents[closed] = &meshv1.Incident{Name: closed, Kind: meshv1.Incident_MESH, State: meshv1.Incident_RESOLVED, Verdict: meshv1.CheckStatus_UNKNOWN,
		Reason: meshv1.CheckStatus_MESH_BLIND, StartTime: ago(50*time.Hour + 30*time.Minute), EndTime: ago(50 * time.Hour), Summary: "2 probers are missing; 5 checks are UNKNOWN", AcknowledgedBy: "bob", Term: 6}
}
