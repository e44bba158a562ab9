package link

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func nine() (all []place) {
	for i := range 9 {
		all = append(all, place{Server: fmt.Sprint("servers/s", i), Datacenter: string(rune('a' + i%3)), Address: fmt.Sprint("s", i, ":1")})
	}
	return all
}

func TestHomeIsInTheProbersDatacenterAndProbersSpreadOverIt(t *testing.T) {
	homes, seconds := map[string]int{}, map[string]int{}
	for i := range 9000 {
		r := rank(fmt.Sprint("a-", i), "a", nine())
		if r[0].Datacenter != "a" {
			t.Fatalf("a-%d has its home in %s", i, r[0].Datacenter)
		}
		homes[r[0].Server]++
		if r[0].Server == "servers/s0" {
			seconds[r[1].Server]++
		}
	}
	if len(homes) != 3 {
		t.Errorf("homes: %v; want the three servers of a", homes)
	}
	for s, n := range homes {
		if n < 2800 || n > 3200 {
			t.Errorf("%s is home to %d of 9000 probers; want a third", s, n)
		}
	}
	// When s0 dies, each server of the two other datacenters gets about a sixth of its 3000 probers; those of a get less, because s0 came before them already.
	for s, n := range seconds {
		if local := s == "servers/s3" || s == "servers/s6"; !local && (n < 400 || n > 600) || local && n > 250 {
			t.Errorf("%s is second to %d of the %d probers of s0; want a sixth", s, n, homes["servers/s0"])
		}
	}
	if len(seconds) != 8 {
		t.Errorf("second: %v; want all eight others", seconds)
	}
}

func TestAServerThatGoesMovesOnlyItsOwnProbers(t *testing.T) {
	without := slices.DeleteFunc(nine(), func(p place) bool { return p.Server == "servers/s4" })
	for _, datacenter := range []string{"b", "nowhere"} {
		for i := range 1000 {
			name := fmt.Sprint("p-", i)
			before, after := rank(name, datacenter, nine()), rank(name, datacenter, without)
			if before[0].Server != "servers/s4" && before[0] != after[0] {
				t.Fatalf("%s moves from %s to %s because s4 has gone", name, before[0].Server, after[0].Server)
			}
			shuffled := slices.Clone(nine())
			slices.Reverse(shuffled)
			if !slices.Equal(before, rank(name, datacenter, shuffled)) {
				t.Fatal("the order in which servers are named matters")
			}
		}
	}
}

func TestAStandbyIsInAnotherDatacenterWherePossible(t *testing.T) {
	r := rank("p-1", "a", nine())
	list := standbys(r, r[0].Server)
	if len(list) != 8 || list[0].Datacenter == "a" || list[7].Datacenter != "a" {
		t.Errorf("%v: want those of other datacenters first", list)
	}
	away := standbys(r, r[3].Server)
	if away[len(away)-1] != r[0] {
		t.Errorf("%v: want the home last, as long as the prober is away from it", away)
	}
}

func TestAnOlderBuildsListOfAddressesIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers.json")
	if err := os.WriteFile(path, []byte(`["b:1","c:1"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := openBook(Config{Book: path, Servers: []string{"a:1"}}, quiet)
	var got []string
	for range 3 {
		a, _ := b.next()
		got = append(got, a)
	}
	if !slices.Equal(got, []string{"a:1", "b:1", "c:1"}) {
		t.Errorf("tried %v", got)
	}
}

func TestRefusalsGoInPieces(t *testing.T) {
	ack := &meshv1.AssignmentAck{Revision: 5, Digest: 7, Held: 3000}
	for i := range 3000 {
		ack.Refusals = append(ack.Refusals, &meshv1.AssignmentRefusal{Check: fmt.Sprint("checks/c", i), Reason: "raw ICMP needs CAP_NET_RAW"})
	}
	var together []*meshv1.AssignmentRefusal
	all := pieces(ack, frameBytes-frameRoom)
	for i, a := range all {
		if n := proto.Size(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_AssignmentAck{AssignmentAck: a}}); n > frameBytes {
			t.Errorf("a message of %d bytes", n)
		}
		if a.GetMore() != (i < len(all)-1) || a.GetDigest() != 7 || a.GetHeld() != 3000 || a.GetRevision() != 5 {
			t.Errorf("message %d of %d: more %v, %v", i+1, len(all), a.GetMore(), a.GetDigest())
		}
		together = append(together, a.GetRefusals()...)
	}
	if len(together) != 3000 || len(all) < 3 || len(pieces(&meshv1.AssignmentAck{}, 100)) != 1 {
		t.Errorf("%d refusals in %d messages", len(together), len(all))
	}
}

func TestAResultTooLargeForTheServerLosesItsEvidence(t *testing.T) {
	l := &Link{log: quiet}
	s := newSession(l, "a:1")
	s.limit = 64 << 10
	r := result(1)
	r.Evidence = &meshv1.Evidence{Body: make([]byte, 100<<10)}
	r.Http = &meshv1.HttpResult{Status: 503}
	m := s.within(batch(meshv1.ResultBatch_LIVE, []*meshv1.Result{r}))
	if got := m.GetResults().GetResults()[0]; proto.Size(m) > s.limit || got.GetHttp().GetStatus() != 503 || r.Evidence == nil {
		t.Errorf("sent: %d bytes, %v; the caller's own must be as it was", proto.Size(m), got.GetHttp())
	}
	r.Error = strings.Repeat("é", 100<<10)
	m = s.within(batch(meshv1.ResultBatch_BACKLOG, []*meshv1.Result{r}))
	if _, err := proto.Marshal(m); err != nil || proto.Size(m) > s.limit || m.GetResults().GetResults()[0].GetSequence() != 1 {
		t.Errorf("sent: %d bytes, %v", proto.Size(m), err)
	}
	if l.stats.Trimmed != 2 {
		t.Errorf("%d counted", l.stats.Trimmed)
	}
}
