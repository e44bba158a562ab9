//go:build linux

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/localmesh"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Two of three servers are killed, and with them two of three etcd members; then the target stops. The server that is left tells the receiver of its break-glass
// file once, marked. When a second server is back, the outage is one incident, the same receiver is not told again that it began, and once that it is over.
func TestOutageWithoutEtcdIsToldByBreakGlassAndJoined(t *testing.T) {
	t.Parallel()
	hook := startReceiver(t)
	file := filepath.Join(t.TempDir(), "break-glass.yaml")
	if err := os.WriteFile(file, []byte(hook.yaml("pager")), 0o600); err != nil {
		t.Fatal(err)
	}
	lm, err := localmesh.New(localmesh.Options{Program: binary, Data: t.TempDir(), Datacenters: 3, Probers: 2, CleanEnv: true, DieWithParent: true,
		Args: func(x *localmesh.Member) []string {
			if x.Kind == localmesh.KindServer {
				return []string{"--break-glass", file}
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lm.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	if err := lm.Start(ctx); err != nil {
		t.Fatal(err)
	}
	m := &mesh{t: t, grpc: lm.Addresses()}
	m.connect(strings.Split(lm.Addresses(), ",")[0]) // that of a, the first
	target := startWebTarget(t, nil)
	m.apply(hook.yaml("ops") + webCheck("shop", target.url(), pace, 3, 2, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 3)

	lm.Server("b").Kill()
	lm.Server("c").Kill()
	time.Sleep(time.Second)
	target.stop()
	stopped := time.Now()
	d := hook.await(t, 1, opened)
	if !d.note.GetBreakGlass() || !strings.Contains(d.note.GetSummary(), "without etcd") || !strings.HasPrefix(d.key, d.note.GetBreakGlassKey()+".OPENED.") {
		t.Fatalf("told %v under %s", d.note, d.key)
	}
	until(t, "the status says that it is undecided", func() (bool, string) {
		s := m.status("shop")
		return s.GetUndecided(), s.String()
	})
	if out, _, _ := m.cli("", "get", "statuses"); !strings.Contains(out, "DOWN (undecided)") {
		t.Errorf("get checks does not show that it is undecided:\n%s", out)
	}
	t.Logf("told %s after the target stopped: %s", d.at.Sub(stopped).Round(10*time.Millisecond), d.note.GetSummary())
	time.Sleep(8 * time.Second) // longer than any turn of another server
	if all := hook.all(); len(all) != 1 {
		t.Fatalf("told %s", story(all))
	}

	if err := lm.Server("b").Start(); err != nil {
		t.Fatal(err)
	}
	var i *meshv1.Incident
	until(t, "the outage is an incident", func() (bool, string) {
		resp, err := m.incidents.ListIncidents(m.ctx(), &meshv1.ListIncidentsRequest{})
		if err != nil || len(resp.GetIncidents()) == 0 {
			return false, "none yet"
		}
		i = resp.GetIncidents()[0]
		return true, ""
	})
	if i.GetBreakGlassKey() != d.note.GetBreakGlassKey() || len(m.allIncidents()) != 1 {
		t.Fatalf("incidents %v, want one with key %s", m.allIncidents(), d.note.GetBreakGlassKey())
	}
	target.start()
	end := hook.await(t, 2, resolved)
	if end.note.GetBreakGlassKey() != d.note.GetBreakGlassKey() || end.note.GetIncident() != i.GetName() {
		t.Fatalf("the end is told as %v", end.note)
	}
	time.Sleep(3 * time.Second)
	if all := hook.all(); len(all) != 2 {
		t.Fatalf("told %s", story(all))
	}
}
