package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Who is refused for its name or its protocol is remembered for a while, once however often it asks, and not any more when it has been let in.
func TestWhoIsTurnedAwayIsRememberedForAWhile(t *testing.T) {
	g := &Gateway{}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	hello := func(name, boot string) *meshv1.Hello {
		return &meshv1.Hello{Prober: name, BootId: boot, Datacenter: "fra", Build: "1.0"}
	}
	twin := fault.New(codes.AlreadyExists, meshv1.ErrorReason_PROBER_NAME_TAKEN, "probers/fra-1", "another process has a session")
	for range 3 {
		g.turned.note(hello("fra-1", "copy"), netip.MustParseAddr("10.0.0.7"), twin, now)
		now = now.Add(20 * time.Second)
	}
	g.turned.note(hello("fra-2", "x"), netip.Addr{}, errors.New("the stream ended"), now)
	g.turned.note(nil, netip.Addr{}, broken("no Hello came"), now)
	g.turned.note(hello("fra-3", "x"), netip.Addr{}, fault.New(codes.ResourceExhausted, meshv1.ErrorReason_LIMIT_EXCEEDED, "", "wait"), now)
	got := g.TurnedAway(now)
	if len(got) != 1 || got[0].Prober != "probers/fra-1" || got[0].BootID != "copy" || got[0].Last.Sub(got[0].First) != 40*time.Second || got[0].Address.String() != "10.0.0.7" {
		t.Fatalf("remembered: %+v", got)
	}
	g.turned.forget(hello("fra-1", "other"))
	if len(g.TurnedAway(now)) != 1 {
		t.Error("the end of another process's waiting made it forgotten")
	}
	if got := g.TurnedAway(now.Add(turnedFor)); len(got) != 0 {
		t.Errorf("after %s it remembers %+v", turnedFor, got)
	}
	g.turned.note(hello("fra-1", "copy"), netip.Addr{}, twin, now)
	g.turned.forget(hello("fra-1", "copy"))
	if got := g.TurnedAway(now); len(got) != 0 {
		t.Errorf("it was let in, and is remembered: %+v", got)
	}
	for i := range 3 * turnedKept {
		g.turned.note(hello(fmt.Sprint("p-", i), "b"), netip.Addr{}, twin, now)
	}
	if n := len(g.TurnedAway(now)); n != turnedKept {
		t.Errorf("it remembers %d, not %d", n, turnedKept)
	}
}
