//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Two hundred checks of one host, which dies and comes back: one webhook each time, which names the host.
func TestTwoHundredChecksOfOneHostAreOneWebhook(t *testing.T) {
	if testing.Short() {
		t.Skip("an outage of two hundred checks takes half a minute; run without -short")
	}
	t.Parallel()
	const checks = 200
	m := startMesh(t, "up", []string{"--datacenter", "a"})
	startProber(t, m, "b-1", "b")
	target, hook := startWebTarget(t, nil), startReceiver(t)
	yaml := hook.yaml("ops") + "checks:\n"
	for i := range checks {
		yaml += strings.TrimPrefix(webCheck(fmt.Sprintf("c%03d", i), fmt.Sprint(target.url(), i), 5*time.Second, 2, 2, "receivers: [receivers/ops]"), "checks:\n")
	}
	m.apply(yaml)
	all := func(v meshv1.CheckStatus_Verdict) {
		until(t, fmt.Sprintf("all checks are %s", v), func() (bool, string) {
			list, err := m.statuses.ListStatuses(m.ctx(), &meshv1.ListStatusesRequest{Filter: fmt.Sprintf("verdict = %s", v), PageSize: 1000})
			return err == nil && len(list.GetStatuses()) == checks, fmt.Sprintf("%d of them, %v", len(list.GetStatuses()), err)
		})
	}
	all(meshv1.CheckStatus_UP)
	target.stop()
	d := hook.await(t, 1, opened)
	if d.note.GetKind() != meshv1.Incident_GROUP || !strings.HasPrefix(d.note.GetShared().GetValue(), "127.0.0.1:") || !strings.Contains(d.note.GetSummary(), "host=127.0.0.1:") {
		t.Errorf("%s", d.note.GetSummary())
	}
	all(meshv1.CheckStatus_DOWN)
	out, _, _ := m.cli("", "get", "incidents", "--filter", "kind = GROUP")
	t.Log(d.note.GetSummary() + "\n" + out)
	target.start()
	hook.await(t, 2, resolved)
	all(meshv1.CheckStatus_UP)
	if got := hook.distinct(); len(got) != 2 {
		for _, x := range got {
			t.Errorf("told %s: %s", x.note.GetTransition(), x.note.GetSummary())
		}
	}
}
