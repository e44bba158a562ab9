package localmesh_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/probemesh/probemesh/internal/localmesh"
)

func TestASecondMeshOnTheSameDataIsRefusedAndLeavesTheAddressesOfTheFirst(t *testing.T) {
	t.Parallel()
	m := startMesh(t, nil)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := localmesh.Options{Program: self, Data: m.Data(), Datacenters: 3, Probers: 2}
	if _, err := localmesh.New(o); err == nil || !strings.Contains(err.Error(), "running on "+m.Data()+" already") {
		t.Fatalf("a second mesh on the same data: %v", err)
	}
	if p := addresses(t, m); p.Servers[0].PID != m.Server("a").PID() {
		t.Errorf("addresses.json has pid %d for server a, which is %d", p.Servers[0].PID, m.Server("a").PID())
	}
	m.Stop()
	again, err := localmesh.New(o)
	if err != nil {
		t.Fatalf("after the first one's end: %v", err)
	}
	again.Stop()
}

func TestAPortThatIsTakenIsNamedBeforeAnyMemberIsStarted(t *testing.T) {
	t.Parallel()
	m := newMesh(t, nil)
	l, err := net.Listen("tcp", m.Server("b").HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := m.Start(limited(t)); err == nil || !strings.Contains(err.Error(), "server b is to listen on "+m.Server("b").HTTP) {
		t.Fatalf("start: %v; want the server and its address named", err)
	}
	for _, x := range m.Members() {
		if x.PID() != 0 {
			t.Errorf("%s was started", x)
		}
	}
}

func TestMeshesThatArePlannedAtTheSameTimeShareNoPort(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	user := map[string]int{}
	for i := range 60 { // 1,200 ports: chosen alone, without looking at the others, some would surely meet
		m, err := localmesh.New(localmesh.Options{Program: self, Data: t.TempDir(), Datacenters: localmesh.MaxDatacenters, EtcdClients: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Stop)
		for _, s := range m.Servers() {
			for _, address := range []string{s.GRPC, s.HTTP, s.EtcdClient} {
				if other, taken := user[address]; taken {
					t.Errorf("meshes %d and %d were both given %s", other, i, address)
				}
				user[address] = i
			}
		}
	}
}

func TestPortsThatWouldMeetAreRefusedBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ grpc, http, want string }{
		"one port for both":           {"127.0.0.77:11810", "127.0.0.77:11810", "server a would twice listen on 127.0.0.77:11810"},
		"two apart":                   {"127.0.0.77:11820", "127.0.0.77:11822", "servers a and b would both listen on 127.0.0.77:11822"},
		"beyond the highest of ports": {"127.0.0.77:65533", "127.0.0.77:11830", "would need port 65537"},
	} {
		data := filepath.Join(t.TempDir(), "mesh")
		_, err := localmesh.New(localmesh.Options{Program: "none", Data: data, Datacenters: 3, Probers: 1, GRPCListen: c.grpc, HTTPListen: c.http})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		if _, err := os.Stat(filepath.Join(data, "mesh.json")); err == nil {
			t.Errorf("%s: a plan was written down", name)
		}
	}
}
