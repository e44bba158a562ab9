//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A prober whose canary answers no more has no say in what it does not reach: its failures are errors of its own, and those of a prober with a network are not.
func TestFailuresOfAProberWithoutANetworkAreItsOwn(t *testing.T) {
	t.Parallel()
	canary, target := startSwallowerOn(t, [4]byte{127, 0, 0, 9}), startSwallower(t)
	m := startMesh(t, "up", []string{"--datacenter", "a"})
	begin(t, "prober b-1", []string{"prober", "--name", "b-1", "--datacenter", "b", "--data", t.TempDir(), "--server", m.grpc, "--canary", canary.address})
	m.awaitProber("b-1")
	m.apply("checks:\n  - {name: checks/hole, uri: \"tcp://" + target.address + "\", interval: 3s, timeout: 1s, probers: 2, quorum: 2}\n")
	m.awaitVerdict("hole", meshv1.CheckStatus_UP, 2)

	vote := func(prober string) *meshv1.Vote {
		for _, v := range m.status("hole").GetVotes() {
			if v.GetProber() == "probers/"+prober {
				return v
			}
		}
		return nil
	}
	canary.die()
	target.die()
	until(t, "the failure of b-1 is its own, and that of the other is not", func() (bool, string) {
		b, a := vote("b-1"), vote("local-1")
		return b.GetOutcome() == meshv1.Result_ERROR && strings.HasPrefix(b.GetError(), "own network: no canary answers over IPv4 ("+canary.address+")") &&
			a.GetOutcome() == meshv1.Result_FAIL, fmt.Sprintf("b-1 %s %q, local-1 %s %q", b.GetOutcome(), b.GetError(), a.GetOutcome(), a.GetError())
	})
	until(t, "get probers shows the canaries", func() (bool, string) {
		out, errs, _ := m.cli("", "get", "probers", "-o", "wide")
		return strings.Contains(out, "ipv4 0/1 FAILING"), out + errs
	})
	if n := len(m.allIncidents()); n != 0 {
		t.Errorf("%d incidents, with one failing datacenter of a quorum of two", n)
	}
}
