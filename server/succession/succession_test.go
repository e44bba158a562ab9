package succession

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/store"
)

// settle lets a mesh run quietly, and gives its leader.
func settle(m *mesh) win {
	w := m.next(5 * time.Second)
	time.Sleep(10 * time.Second)
	if len(m.reigns) > 0 {
		m.t.Fatalf("leadership moved in a quiet mesh: %v", <-m.reigns)
	}
	return w
}

func TestKilledLeaderIsReplacedInAThirdOfASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b", "c")
		first := settle(m)
		killed := time.Now()
		m.kill(first.server)
		w := m.next(10 * time.Second)
		if took := time.Since(killed); took > 500*time.Millisecond || w.server == first.server || w.Term != first.Term+1 {
			t.Fatalf("%s leads term %d after %s", w.server, w.Term, took)
		}
		t.Logf("%s after the kill, %s leads", time.Since(killed), w.server)
	})
}

func TestUnassistedMeshWaitsForTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		for _, n := range []string{"a", "b", "c"} {
			m.start(n, n+"1", Config{Unassisted: true})
		}
		first := settle(m)
		killed := time.Now()
		m.kill(first.server)
		m.next(10 * time.Second)
		if took := time.Since(killed); took < 3*time.Second || took > 6*time.Second {
			t.Fatalf("another leads after %s, want the lease of 5s less its last renewal", took)
		}
	})
}

func TestFrozenLeaderIsReplacedWithinASecondAndComesBackAsAFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b", "c")
		first := settle(m)
		frozen := time.Now()
		m.freeze(first.server, true)
		w := m.next(10 * time.Second)
		if took := time.Since(frozen); took > 1200*time.Millisecond {
			t.Fatalf("another leads after %s", took)
		}
		time.Sleep(20 * time.Second)
		m.freeze(first.server, false)
		time.Sleep(20 * time.Second)
		if len(m.reigns) > 0 {
			t.Fatalf("leadership moved again: %v", <-m.reigns)
		}
		if rec, ok := m.node(first.server).elect.Leader(); !ok || rec.GetServer() != "servers/"+w.server {
			t.Fatalf("the former leader sees %v", rec)
		}
	})
}

// One server that does not hear the leader, in one direction or both, changes nothing while another hears it.
func TestOneServerAloneDoesNotEvict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b", "c")
		first := settle(m)
		m.mu.Lock()
		m.cut[[2]string{first.server, m.first(first.server)}] = true
		m.mu.Unlock()
		time.Sleep(time.Minute)
		if len(m.reigns) > 0 {
			t.Fatalf("leadership moved: %v", <-m.reigns)
		}
	})
}

// first is some server that is not the one named; m.mu is held.
func (m *mesh) first(not string) string {
	for _, n := range []string{"a", "b"} {
		if n != not {
			return n
		}
	}
	return ""
}

func TestOfTwoServersTheOtherEvicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		first := settle(m)
		killed := time.Now()
		m.kill(first.server)
		m.next(10 * time.Second)
		if took := time.Since(killed); took > 700*time.Millisecond {
			t.Fatalf("the other leads after %s", took)
		}
	})
}

// Without etcd nobody evicts, and nobody who leads goes on by his own clock.
func TestServersThatLostEtcdEvictNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		first := settle(m)
		m.etcd.SetLeaderless(true)
		m.mu.Lock()
		m.cut[[2]string{"a", "b"}], m.cut[[2]string{"b", "a"}] = true, true
		m.mu.Unlock()
		time.Sleep(time.Minute)
		if len(m.reigns) > 0 || m.node(first.server).elect.Leading() != 0 {
			t.Fatal("somebody leads without etcd")
		}
		m.etcd.SetLeaderless(false)
		if w := m.next(10 * time.Second); w.Term != first.Term+1 {
			t.Fatalf("term %d", w.Term)
		}
	})
}

// Two servers that reach etcd and not each other must not take leadership from each other for ever.
func TestOneWayLinksDoNotMakeLeadershipGoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		settle(m)
		m.mu.Lock()
		m.cut[[2]string{"a", "b"}], m.cut[[2]string{"b", "a"}] = true, true
		m.mu.Unlock()
		time.Sleep(time.Hour)
		if n := len(m.reigns); n < 1 || n > 50 {
			t.Fatalf("%d reigns in an hour", n)
		}
		t.Logf("%d reigns in an hour in which two servers did not hear each other", len(m.reigns))
	})
}

func TestDeafLeaderHandsOverToOneThatHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b", "c")
		first := settle(m)
		deaf := m.node(first.server)
		deaf.mu.Lock()
		deaf.hears = 2
		deaf.mu.Unlock()
		half := m.others(first.server)[0]
		half.mu.Lock()
		half.hears = 2
		half.mu.Unlock()
		begun := time.Now()
		w := m.next(10 * time.Second)
		if took := time.Since(begun); w.server == first.server || w.server == half.name || took < deafAfter || took > deafAfter+time.Second {
			t.Fatalf("%s leads after %s", w.server, took)
		}
		if err := <-deaf.ended; !errors.Is(err, election.ErrResigned) {
			t.Fatalf("the reign ended because %v", err)
		}
		time.Sleep(time.Minute)
		if len(m.reigns) > 0 {
			t.Fatal("leadership moved again")
		}
	})
}

// A leader whose disk hangs acts no more at once, says so, is evicted, and does not stand again before the disk is well.
func TestLeaderWithAHangingDiskIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b", "c")
		first := settle(m)
		sick := m.node(first.server)
		sick.link.Cut() // its etcd member hangs with the same disk
		sick.succ.disk.note("data", time.Now())
		hung := time.Now()
		w := m.next(10 * time.Second)
		if took := time.Since(hung); w.server == first.server || took > 2500*time.Millisecond {
			t.Fatalf("%s leads after %s", w.server, took)
		}
		if sick.elect.Leading() != 0 {
			t.Fatal("the sick server still believes that it leads")
		}
		b := &peerv1.Beat{}
		sick.succ.Fill(b)
		if b.GetDiskStall().AsDuration() < StallAfter {
			t.Fatalf("its beat says %v", b)
		}
		sick.link.Mend()
		for _, n := range m.others(first.server) {
			n.stop()
		}
		time.Sleep(time.Minute)
		if len(m.reigns) > 0 && (<-m.reigns).server == first.server {
			t.Fatal("it leads with a disk that hangs")
		}
		sick.succ.disk.note("data", time.Time{})
		for w = m.next(10 * time.Second); w.server != first.server; w = m.next(10 * time.Second) {
		}
	})
}

func TestLeaderThatCannotCommitGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b", "c")
		first := settle(m)
		sick := m.node(first.server)
		sick.mu.Lock()
		sick.waiting = StallAfter
		sick.mu.Unlock()
		begun := time.Now()
		if w := m.next(10 * time.Second); w.server == first.server || time.Since(begun) > time.Second {
			t.Fatalf("%s leads after %s", w.server, time.Since(begun))
		}
	})
}

// Whatever is cut, lost and frozen, terms grow, and in the end one leads.
func TestLeadershipSettlesAfterAnyFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b", "c")
		m.next(5 * time.Second)
		names := []string{"a", "b", "c"}
		for i := range 60 {
			x, y := names[i%3], names[(i+1+i%2)%3]
			m.freeze(x, i%4 == 0)
			m.mu.Lock()
			m.cut[[2]string{x, y}] = i%5 < 2
			m.mu.Unlock()
			switch i % 6 {
			case 1:
				m.etcd.LoseAnswers(i % 4)
			case 3:
				m.etcd.RevokeLeaseOf(store.LeaderKey)
			case 5:
				m.etcd.BreakWatches()
			}
			time.Sleep(time.Duration(i%7) * 700 * time.Millisecond)
		}
		m.etcd.LoseAnswers(0)
		m.mu.Lock()
		clear(m.cut)
		m.mu.Unlock()
		for _, n := range names {
			m.freeze(n, false)
		}
		time.Sleep(time.Minute)
		last := int64(1)
		for len(m.reigns) > 0 {
			w := <-m.reigns
			if w.Term <= last {
				t.Fatalf("term %d after %d", w.Term, last)
			}
			last = w.Term
		}
		leading := 0
		for _, n := range names {
			if m.node(n).elect.Leading() != 0 {
				leading++
			}
		}
		if leading != 1 {
			t.Fatalf("%d servers lead", leading)
		}
	})
}

func TestDiskIsTriedAndAHangIsSeen(t *testing.T) {
	dir := t.TempDir()
	if err := writePulse(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, pulseFile)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := newDisk([]string{"x"})
		hang, tries := make(chan struct{}), make(chan struct{}, 100)
		d.write = func(string) error {
			tries <- struct{}{}
			<-hang
			return errors.New("it failed at last, which is not a hang")
		}
		go d.watch(t.Context(), "x", func() time.Duration { return time.Second })
		<-tries
		time.Sleep(900 * time.Millisecond)
		if s, _ := d.stall(time.Now()); s != 0 {
			t.Fatalf("a stall after 0.9s: %s", s)
		}
		time.Sleep(600 * time.Millisecond)
		if s, at := d.stall(time.Now()); s != 1500*time.Millisecond || at != "x" {
			t.Fatalf("%s at %q, want 1.5s at x", s, at)
		}
		close(hang)
		time.Sleep(time.Millisecond)
		if s, _ := d.stall(time.Now()); s != 0 {
			t.Fatalf("still a stall: %s", s)
		}
		time.Sleep(10 * time.Second)
		if len(tries) != 10 {
			t.Fatalf("%d tries in ten seconds", len(tries))
		}
	})
}
