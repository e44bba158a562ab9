//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// addresses is addresses.json of a local mesh.
type addresses struct {
	Servers []struct {
		Name, Datacenter, GRPC, HTTP string
		PID                          int
	}
	Probers []struct {
		Name, Datacenter string
		PID              int
	}
}

// A local mesh of three datacenters loses its leader to SIGKILL in the middle of an outage: the outage is announced once, and so is its end.
func TestLocalMeshLosesItsLeaderAndNoAlert(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers with an etcd cluster; run without -short")
	}
	t.Parallel()
	data := t.TempDir()
	up := begin(t, "up", []string{"up", "--datacenters", "3", "--probers", "1", "--data", data, "--lease-ttl", "2s", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"})
	var at addresses
	until(t, "the local mesh is up", func() (bool, string) {
		b, err := os.ReadFile(filepath.Join(data, "addresses.json"))
		if err != nil {
			if !up.alive() {
				t.Fatal(tail(up.log.String(), 20))
			}
			return false, err.Error()
		}
		return json.Unmarshal(b, &at) == nil && len(at.Servers) == 3 && len(at.Probers) == 3, string(b)
	})
	var all []string
	for _, s := range at.Servers {
		all = append(all, s.GRPC)
	}
	m := &mesh{t: t, data: data, grpc: strings.Join(all, ",")}
	hook, target := startReceiver(t), startWebTarget(t, nil)
	m.apply(fmt.Sprintf(`
receivers: [{name: ops, webhook: {url: %q}}]
checks: [{name: shop, uri: "http://%s/", interval: 2s, timeout: 1s, receivers: [ops]}]
`, hook.url, target.address))
	verdict := func(want string) {
		t.Helper()
		until(t, "shop is "+want, func() (bool, string) {
			out, errs, _ := m.cli("", "get", "check", "shop")
			return strings.Contains(out, want), out + errs
		})
	}
	verdict("UP")

	target.stop()
	hook.await(t, 1, meshv1.Notification_OPENED)
	out, _, _ := m.cli("", "get", "servers", "-o", "json")
	var list struct {
		Servers []struct {
			Name   string
			Leader bool
			Term   int
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("get servers -o json: %v\n%s", err, out)
	}
	killed, term := "", 0
	for i, s := range list.Servers {
		if s.Leader {
			killed, term = s.Name, s.Term
			if err := syscall.Kill(at.Servers[i].PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if killed == "" {
		t.Fatalf("nobody leads:\n%s", out)
	}
	until(t, "another server leads", func() (bool, string) {
		out, errs, _ := m.cli("", "get", "servers")
		return strings.Contains(out, "leader") && !strings.Contains(out, "leader    "+fmt.Sprint(term)+" "), out + errs
	})
	verdict("DOWN")
	target.start()
	hook.await(t, 2, meshv1.Notification_RESOLVED)
	verdict("UP")
	if !strings.Contains(up.log.String(), "server "+strings.TrimPrefix(killed, "servers/")) {
		t.Errorf("`up` did not say that %s was killed:\n%s", killed, tail(up.log.String(), 5))
	}
	if list := hook.distinct(); len(list) != 2 {
		t.Errorf("the receiver was told %s; want one OPENED and one RESOLVED", story(list))
	}
	if code, took := up.interrupt(); code != 0 {
		t.Errorf("`up` ended with %d after %s, want 0", code, took)
	}
	for _, p := range at.Probers {
		if syscall.Kill(p.PID, 0) == nil {
			t.Errorf("prober %s outlived the mesh", p.Name)
		}
	}
}
