package api

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// inhabit enrols a prober in each datacenter.
func (m *mesh) inhabit(datacenters ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.server.Revision = 1
	for _, d := range datacenters {
		m.probers["probers/"+d+"-1"] = &meshv1.Prober{Name: "probers/" + d + "-1", Datacenter: d}
	}
}

func TestAMistypedDatacenterIsWarnedOfAndApplied(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		c := check("shop")
		c.Datacenters = []string{"fra", "iadd"}
		req := &meshv1.ApplyRequest{Checks: []*meshv1.Check{check("other"), c}}
		if r, err := w.checks.Apply(ctx, req); err != nil || len(r.GetWarnings()) != 0 || len(r.GetChanges()) != 2 {
			t.Errorf("before it knows who is enrolled, it warns: %v, %v", r, err)
		}
		w.mesh.inhabit("fra", "iad")
		for _, validateOnly := range []bool{true, false} {
			req.ValidateOnly = validateOnly
			r, err := w.checks.Apply(ctx, req)
			if err != nil || len(r.GetWarnings()) != 1 || r.Warnings[0].Field != "checks[1].datacenters[1]" || r.Warnings[0].Problem != `is "iadd", where no prober is enrolled; did you mean "iad"?` {
				t.Errorf("%v, %v", r, err)
			}
		}
		// What was just written is warned of also while the mesh has not heard of it.
		for datacenter, warned := range map[string]bool{"iad": false, "iat": true} {
			c.Datacenters[1] = datacenter
			if got := w.api.statusOf(c).GetWarnings(); (len(got) == 1) != warned || warned && got[0] != `datacenters[1] is "iat", where no prober is enrolled; did you mean "iad"?` {
				t.Errorf("%s: %q", datacenter, got)
			}
		}
	})
}

func TestAllFaultsOfAnApplyComeAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.receiver("ops")
		c := check("shop")
		c.Uri, c.Receivers = "ping://a", []string{"opps", "mail"}
		_, err := w.checks.Apply(context.Background(), &meshv1.ApplyRequest{Checks: []*meshv1.Check{c}, Receivers: []*meshv1.Receiver{hook("chat")}})
		e := want(t, err, meshv1.ErrorReason_INVALID_FIELD)
		lines := make([]string, len(e.Violations))
		for i, v := range e.Violations {
			lines[i] = v.String()
		}
		all := strings.Join(lines, "\n")
		for _, want := range []string{"checks[0].uri: ", "checks[0].receivers[0]: receivers/opps does not exist (did you mean ops?); put it into the request", "checks[0].receivers[1]: receivers/mail does not exist; put it into the request"} {
			if !strings.Contains(all, want) {
				t.Errorf("%q is missing in\n%s", want, all)
			}
		}
		if len(e.Violations) != 3 {
			t.Errorf("%s", all)
		}
	})
}

func TestAServerThatIsMissedIsListedAsGone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.mesh.mu.Lock()
		w.mesh.records["servers/b"] = &statev1.ServerRecord{Name: "servers/b"}
		w.mesh.mu.Unlock()
		at := timestamppb.New(timestamppb.Now().AsTime())
		w.api.MissedServers(func() []*meshv1.Server {
			return []*meshv1.Server{{Name: "servers/a", Datacenter: "fra", SilentTime: at}, {Name: "servers/b", SilentTime: at}}
		})
		r, err := w.servers.ListServers(context.Background(), &meshv1.ListServersRequest{})
		if err != nil || len(r.GetServers()) != 2 {
			t.Fatalf("%v, %v", r, err)
		}
		if a := r.Servers[0]; a.Name != "servers/a" || !a.Gone || a.Heard || a.GetSilentTime() == nil || a.Datacenter != "fra" {
			t.Errorf("%v", a)
		}
		if b := r.Servers[1]; b.Name != "servers/b" || b.Gone {
			t.Errorf("one that has a record is gone: %v", b)
		}
	})
}

func TestAFaultThatWasStoredBeforeSaysHowToMendItInTheSameUpdate(t *testing.T) {
	held := []fault.Violation{{Field: "check.http.expect[0]", Problem: "reads response.icmp, which is never set for kind http"}}
	got := storedBefore(held, append(held, fault.Violation{Field: "check.uri", Problem: "is missing"}), "checks/shop")
	if len(got) != 2 || got[1].Problem != "is missing" || !strings.Contains(got[0].Problem, "checks/shop was stored with it") || !strings.Contains(got[0].Problem, "http.expect") {
		t.Errorf("%v", got)
	}
}
