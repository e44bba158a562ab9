package localmesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/localmesh"
)

// TestMain makes this test's program a member of a mesh when it is started as one: it writes its addresses down, says so, and runs until its standard input ends.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "server" || os.Args[1] == "prober") {
		os.Exit(pretend(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func pretend(args []string) int {
	value := func(flag string) string {
		if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	if slices.Contains(args, "--fail") {
		fmt.Println("it fails as it was told to")
		fmt.Println("error: for a reason")
		return 7
	}
	if data := value("--data"); args[0] == "server" {
		if err := os.MkdirAll(data, 0o700); err != nil {
			return 1
		}
		if err := os.WriteFile(filepath.Join(data, localmesh.AddressesFile), []byte(`{"grpc": "`+value("--grpc-listen")+`"}`), 0o600); err != nil {
			return 1
		}
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// startMesh starts a mesh of pretended members.
func startMesh(t *testing.T, change func(*localmesh.Options)) *localmesh.Mesh {
	t.Helper()
	m := newMesh(t, change)
	if err := m.Start(limited(t)); err != nil {
		t.Fatal(err)
	}
	return m
}

func newMesh(t *testing.T, change func(*localmesh.Options)) *localmesh.Mesh {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := localmesh.Options{Program: self, Data: t.TempDir(), Datacenters: 3, Probers: 2, EtcdClients: true, DieWithParent: true}
	if change != nil {
		change(&o)
	}
	m, err := localmesh.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	return m
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// addresses is what addresses.json says.
func addresses(t *testing.T, m *localmesh.Mesh) localmesh.Plan {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.Data(), localmesh.AddressesFile))
	if err != nil {
		t.Fatal(err)
	}
	var p localmesh.Plan
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAddressesTellWhatRunsAlsoAfterAMemberWasStartedAgain(t *testing.T) {
	t.Parallel()
	m := startMesh(t, nil)
	p := addresses(t, m)
	if len(p.Servers) != 3 || len(p.Probers) != 6 || p.Servers[1].Peer != "" || p.Servers[1].GRPC != m.Server("b").GRPC || p.Probers[5].Name != "c-2" {
		t.Fatalf("addresses.json: %+v", p)
	}
	before := m.Server("b").PID()
	if p.Servers[1].PID != before || before == 0 {
		t.Errorf("addresses.json has pid %d for server b, which is %d", p.Servers[1].PID, before)
	}
	if err := m.Server("b").Kill(); err != nil || m.Server("b").Alive() {
		t.Fatalf("kill: %v, alive %t", err, m.Server("b").Alive())
	}
	if e := <-m.Ended(); e.Member != m.Server("b") || e.PID != before || e.Err == nil {
		t.Errorf("the end that was told is %+v", e)
	}
	if err := m.Server("b").Start(); err != nil {
		t.Fatal(err)
	}
	if err := m.Await(limited(t), m.Server("b")); err != nil {
		t.Fatal(err)
	}
	if p := addresses(t, m); p.Servers[1].PID != m.Server("b").PID() || p.Servers[1].PID == before {
		t.Errorf("addresses.json has pid %d for server b, which is %d now", p.Servers[1].PID, m.Server("b").PID())
	}
	if err := m.Server("b").Start(); err == nil {
		t.Error("a member that runs was started twice")
	}
}

func TestStopEndsAlsoWhatIsPaused(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no SIGSTOP here")
	}
	m := startMesh(t, nil)
	if err := m.Prober("a-1").Pause(); err != nil {
		t.Fatal(err)
	}
	if !m.Prober("a-1").Alive() {
		t.Error("a paused member counts as dead")
	}
	m.Stop()
	for _, x := range m.Members() {
		if x.Alive() || x.Err() != nil {
			t.Errorf("%s: alive %t, %v", x, x.Alive(), x.Err())
		}
	}
}

func TestAMemberThatEndsBeforeItIsReadyIsNamedWithItsLog(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(o *localmesh.Options) {
		o.Args = func(x *localmesh.Member) []string {
			if x.Name == "b" {
				return []string{"--fail"}
			}
			return nil
		}
	})
	err := m.Start(limited(t))
	if err == nil || !strings.Contains(err.Error(), "server b") || !strings.Contains(err.Error(), "for a reason") || !strings.Contains(err.Error(), m.Server("b").Log) {
		t.Fatalf("start: %v; want the server and its log named", err)
	}
	if b, _ := os.ReadFile(m.Server("b").Log); !strings.Contains(string(b), "as it was told to") {
		t.Errorf("the log has %q", b)
	}
}

func TestAMeshStartsAgainOnThePortsItHad(t *testing.T) {
	t.Parallel()
	first := newMesh(t, nil)
	self, _ := os.Executable()
	first.Stop()
	again, err := localmesh.New(localmesh.Options{Program: self, Data: first.Data(), Datacenters: 3, Probers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	if again.Addresses() != first.Addresses() {
		t.Errorf("addresses %s, then %s", first.Addresses(), again.Addresses())
	}
	for _, s := range again.Servers() {
		if !slices.Contains(s.Args(), "http://"+s.EtcdClient) {
			t.Errorf("%s has lost its port for etcdctl: %v", s, s.Args())
		}
	}
	again.Stop()
	if _, err := localmesh.New(localmesh.Options{Program: self, Data: first.Data(), Datacenters: 3, Probers: 1}); err == nil || !strings.Contains(err.Error(), "6 probers") {
		t.Errorf("another number of probers on the same data: %v", err)
	}
}

func TestDatacentersMayHaveHostsOfTheirOwn(t *testing.T) {
	t.Parallel()
	m := newMesh(t, func(o *localmesh.Options) {
		o.Host = func(dc string) string { return "10.9.8." + fmt.Sprint(int(dc[0]-'a')+1) }
	})
	if got := m.Addresses(); got != "10.9.8.1:7700,10.9.8.2:7700,10.9.8.3:7700" {
		t.Errorf("the servers are at %s", got)
	}
	if s := m.Server("c"); s.HTTP != "10.9.8.3:7701" || s.EtcdClient != "10.9.8.3:2379" {
		t.Errorf("server c: HTTP %s, etcd %s", s.HTTP, s.EtcdClient)
	}
}
