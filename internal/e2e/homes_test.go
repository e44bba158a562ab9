//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/localmesh"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// comeHome is how long a prober may take to come home: the home must have been healthy for 30 to 60 s, and is looked at every 5 s.
const comeHome = 2 * time.Minute

// homes is a local mesh of three datacenters with two probers each, seen through the server of datacenter c, and a check that runs everywhere.
type homes struct {
	t *testing.T
	m *localmesh.Mesh
	c *mesh
}

func startHomes(t *testing.T) *homes {
	t.Helper()
	m, err := localmesh.New(localmesh.Options{Program: binary, Data: t.TempDir(), Datacenters: 3, Probers: 2, CleanEnv: true, DieWithParent: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	h := &homes{t: t, m: m, c: &mesh{t: t, grpc: m.Server("c").GRPC}}
	h.c.connect(h.c.grpc)
	return h
}

// at are the servers at which the probers have their sessions, by prober.
func (h *homes) at() map[string]string {
	at := map[string]string{}
	r, err := h.c.probers.ListProbers(h.c.ctx(), &meshv1.ListProbersRequest{})
	if err != nil {
		return at
	}
	for _, p := range r.GetProbers() {
		if p.GetState() == meshv1.Prober_ONLINE {
			at[strings.TrimPrefix(p.GetName(), "probers/")] = strings.TrimPrefix(p.GetServer(), "servers/")
		}
	}
	return at
}

// awaitHome waits until every prober is at the server of its datacenter.
func (h *homes) awaitHome(within time.Duration) {
	h.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		at, away := h.at(), 0
		for prober, server := range at {
			if !strings.HasPrefix(prober, server+"-") {
				away++
			}
		}
		if len(at) == 6 && away == 0 {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("not all at home within %s: %v", within, at)
		}
	}
}

// sessions are when and where the sessions of a prober began after a moment, by the clock of its log.
func (h *homes) sessions(prober string, after time.Time) (began []time.Time, servers []string) {
	b, err := os.ReadFile(h.m.Prober(prober).Log)
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		stamp, rest, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		_, server, ok := strings.Cut(rest, "server=servers/")
		if err != nil || !ok || !at.After(after) || !strings.Contains(rest, `msg="session began"`) {
			continue
		}
		server, _, _ = strings.Cut(server, " ")
		began, servers = append(began, at), append(servers, strings.TrimSpace(server))
	}
	return began, servers
}

// awaitMoved waits until the two probers of a datacenter have a session elsewhere, and gives how long after the moment they began.
func (h *homes) awaitMoved(datacenter string, since time.Time) (took []time.Duration) {
	h.t.Helper()
	for _, prober := range []string{datacenter + "-1", datacenter + "-2"} {
		until(h.t, prober+" has a session elsewhere", func() (bool, string) {
			began, servers := h.sessions(prober, since)
			i := slices.IndexFunc(servers, func(s string) bool { return s != datacenter })
			if i < 0 {
				return false, fmt.Sprint(servers)
			}
			took = append(took, began[i].Sub(since))
			return true, ""
		})
	}
	return took
}

// watchVotes looks at a check all the time and returns a function that ends this and tells what was wrong: a vote that was stale, a verdict other than UP.
func (h *homes) watchVotes(check string) func() []string {
	var wrong []string
	ctx, cancel := context.WithCancel(h.t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for ctx.Err() == nil {
			s, err := h.c.statuses.GetStatus(ctx, &meshv1.GetStatusRequest{Check: "checks/" + check})
			if err == nil && s.GetVerdict() != meshv1.CheckStatus_UP {
				wrong = append(wrong, s.GetSummary())
			}
			for _, v := range s.GetVotes() {
				if v.GetRank() >= 0 && !v.GetFresh() {
					wrong = append(wrong, fmt.Sprintf("the vote of %s of %s is stale", v.GetProber(), v.GetStartTime().AsTime().Format(time.TimeOnly)))
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	return func() []string {
		cancel()
		group.Wait()
		return wrong
	}
}

// A server that is killed, or stands still, loses its probers to the others at once; no vote goes stale for it, and they come home when it is back.
func TestProbersLeaveADeadServerAtOnceAndComeHome(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nine processes and waits for two minutes; run without -short")
	}
	t.Parallel()
	h := startHomes(t)
	begin := time.Now()
	h.awaitHome(limit)
	t.Logf("all probers were at home %s after the mesh was ready", time.Since(begin).Round(10*time.Millisecond))
	target := startWebTarget(t, nil)
	h.c.apply(fmt.Sprintf(`checks: [{name: shop, uri: "http://%s/", interval: 5s, timeout: 1s, probers: 3, quorum: 2}]`, target.address))
	h.c.awaitVerdict("shop", meshv1.CheckStatus_UP, 3)
	time.Sleep(6 * time.Second) // a look of the standbys' health, every 5 s: there is no condition to wait for from outside
	wrong := h.watchVotes("shop")

	paused := time.Now()
	if err := h.m.Server("b").Pause(); err != nil {
		t.Fatal(err)
	}
	t.Logf("after server b stood still, its probers had sessions elsewhere after %s", h.awaitMoved("b", paused))
	if err := h.m.Server("b").Resume(); err != nil {
		t.Fatal(err)
	}

	killed := time.Now()
	if err := h.m.Server("a").Kill(); err != nil {
		t.Fatal(err)
	}
	took := h.awaitMoved("a", killed)
	t.Logf("after server a was killed, its probers had sessions elsewhere after %s", took)
	if worst := slices.Max(took); worst > 5*time.Second {
		t.Errorf("a prober was without a server for %s; what is promised is below 0.1 s on a machine that is not busy", worst)
	}
	until(t, "get probers shows where they are", func() (bool, string) {
		out, errs, _ := h.c.cli("", "get", "probers")
		moved := 0
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			// NAME DATACENTER STATE SINCE CHECKS REFUSED SERVER
			if len(f) > 6 && strings.HasPrefix(f[0], "a-") && f[2] == "ONLINE" && (f[6] == "b" || f[6] == "c") {
				moved++
			}
		}
		return moved == 2, out + errs
	})
	if err := h.m.Server("a").Start(); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	h.awaitHome(comeHome)
	t.Logf("all were at home again %s after server a was started again", time.Since(back).Round(time.Second))
	if list := wrong(); len(list) > 0 {
		t.Errorf("%d looks at the check went wrong, the first: %s", len(list), list[0])
	}
	for _, p := range h.m.Probers() {
		if began, servers := h.sessions(p.Name, begin.Add(-time.Minute)); len(began) > 5 {
			t.Errorf("%s had %d sessions, at %v: it does not settle", p.Name, len(began), servers)
		}
	}
}
