package meshtest

import (
	"os"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TestMain has the files of servers and probers in memory where the system offers that, since they are flushed to their disk each second; and collects garbage seldom: the
// bubbles are small and short-lived.
func TestMain(m *testing.M) {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() && os.Getenv("TMPDIR") == "" {
		_ = os.Setenv("TMPDIR", "/dev/shm") // else they are on the disk
	}
	debug.SetGCPercent(1600)
	goleak.VerifyTestMain(m)
}

var once = []string{"OPENED", "RESOLVED"}

// long is d, and with -short a sixth of it: the race detector makes an hour of the mesh take minutes, and has seen in the first of it what there is to see.
func long(d time.Duration) time.Duration {
	if testing.Short() {
		return d / 6
	}
	return d
}

func TestAnUneventfulHour(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(100, "a")
		hour := long(time.Hour)
		time.Sleep(hour)
		if !m.allUp() || len(m.box.all()) != 0 {
			m.t.Errorf("%d notifications in an hour without an event\n%s", len(m.box.all()), m.describe())
		}
		if n := m.target.probes(); m.missing() != 0 || n < 100*3*(int(hour/(30*time.Second))-1) {
			m.t.Errorf("%d of %d probes are not in the history", m.missing(), n)
		}
	})
}

func TestATargetsOutageIsToldOnceAndFast(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(10, "a")
		for range 4 {
			m.target.set("checks/c3", true)
			before := len(m.box.of("checks/c3"))
			took := m.await("OPENED", time.Minute, func() bool { return len(m.box.of("checks/c3")) > before })
			// interval / n until somebody sees it, and a second for everything else.
			if took > 30*time.Second/3+time.Second {
				m.t.Errorf("told after %v", took)
			}
			m.target.set("checks/c3", false)
			m.await("RESOLVED", 3*time.Minute, m.allUp)
			time.Sleep(5 * time.Minute)
		}
		if d := m.box.of("checks/c3"); len(d) != 8 || len(m.box.all()) != 8 {
			m.t.Errorf("told %v, %d in all", d, len(m.box.all()))
		}
	})
}

func TestAMinorityOpensNoIncident(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(3, "a")
		m.target.set("checks/c0@fra", true)
		m.await("DEGRADED", time.Minute, func() bool { return m.verdict("c0") == meshv1.CheckStatus_DEGRADED })
		time.Sleep(time.Hour)
		if len(m.box.all()) != 0 {
			m.t.Errorf("told %v", m.box.of("checks/c0"))
		}
	})
}

func TestAServerKilledInTheMiddleOfAnOutage(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(5, "a")
		m.target.set("checks/c0", true)
		m.await("OPENED", time.Minute, func() bool { return len(m.box.of("checks/c0")) == 1 })
		m.kill("a")
		time.Sleep(2 * time.Minute)
		m.target.set("checks/c0", false)
		m.serve("a")
		m.await("all are UP", 3*time.Minute, m.allUp)
		time.Sleep(10 * time.Minute)
		if d := m.box.of("checks/c0"); !slices.Equal(d, once) || len(m.box.all()) != 2 {
			m.t.Errorf("told %v, %d in all", d, len(m.box.all()))
		}
		if n := m.missing(); n != 0 {
			m.t.Errorf("%d probes are not in the history", n)
		}
	})
}

func TestTheLeaderDiesAndTheStandbyTakesOver(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(5, "a", "b")
		first := m.leader().name
		m.await("all probers are heard by the leader", time.Minute, m.settled)
		m.target.set("checks/c0", true)
		m.await("OPENED", time.Minute, func() bool { return len(m.box.of("checks/c0")) == 1 })
		m.kill(first)
		m.target.set("checks/c1", true)
		m.await("the other leads", 20*time.Second, func() bool { return m.leader() != nil && m.leader().name != first })
		m.await("OPENED by the other", 2*time.Minute, func() bool { return len(m.box.of("checks/c1")) == 1 })
		m.target.set("checks/c0", false)
		m.target.set("checks/c1", false)
		m.serve(first)
		m.await("all are UP", 3*time.Minute, m.allUp)
		m.await("all probers are heard by the leader", time.Minute, m.settled)
		time.Sleep(10 * time.Minute)
		if c0, c1 := m.box.of("checks/c0"), m.box.of("checks/c1"); !slices.Equal(c0, once) || !slices.Equal(c1, once) || len(m.box.all()) != 4 {
			m.t.Errorf("told %v and %v, %d in all", c0, c1, len(m.box.all()))
		}
		if n := m.missing(); n != 0 {
			m.t.Errorf("%d probes are not in any history", n)
		}
	})
}

func TestALeaderCutOffFromTheStoreChangesNothing(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(5, "a", "b")
		old := m.leader()
		m.await("all probers are heard by the leader", time.Minute, m.settled)
		old.cutOff(true)
		m.target.set("checks/c0", true)
		m.await("OPENED by the other", 3*time.Minute, func() bool { return len(m.box.of("checks/c0")) == 1 })
		if old.c.Server().Leading {
			m.t.Error("the old leader still believes that it leads")
		}
		old.cutOff(false)
		m.target.set("checks/c0", false)
		m.await("all are UP", 3*time.Minute, m.allUp)
		time.Sleep(10 * time.Minute)
		if d := m.box.of("checks/c0"); !slices.Equal(d, once) {
			m.t.Errorf("told %v", d)
		}
	})
}

func TestFiveMinutesWithoutEtcd(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(5, "a")
		m.etcd.SetLeaderless(true)
		time.Sleep(time.Minute)
		m.target.set("checks/c0", true)
		time.Sleep(4 * time.Minute)
		m.etcd.SetLeaderless(false)
		m.await("OPENED", 2*time.Minute, func() bool { return len(m.box.of("checks/c0")) == 1 })
		m.target.set("checks/c0", false)
		m.await("all are UP", 3*time.Minute, m.allUp)
		time.Sleep(10 * time.Minute)
		if d := m.box.of("checks/c0"); !slices.Equal(d, once) || len(m.box.all()) != 2 {
			m.t.Errorf("told %v, %d in all", d, len(m.box.all()))
		}
		if n := m.missing(); n != 0 {
			m.t.Errorf("%d probes are not in the history", n)
		}
	})
}

func TestABacklogOfTwoHoursPagesNobody(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(20, "a")
		m.net.partition("fra-1", true)
		time.Sleep(long(10 * time.Minute))
		m.target.set("checks/c0@fra", true) // only the one that is cut off sees it
		time.Sleep(long(2 * time.Hour))
		m.target.set("checks/c0@fra", false)
		time.Sleep(2 * time.Minute)
		m.net.partition("fra-1", false)
		m.await("it is back", time.Minute, m.settled)
		m.await("its backlog is in the history", 5*time.Minute, func() bool { return m.missing() == 0 })
		time.Sleep(10 * time.Minute)
		if n := len(m.box.all()); n != 0 {
			m.t.Errorf("%d notifications, of c0: %v", n, m.box.of("checks/c0"))
		}
	})
}

func TestAProberRestartsUnnoticed(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(20, "a")
		for range 5 {
			m.stopProber("iad-1")
			time.Sleep(10 * time.Second)
			m.probe("iad-1", "iad")
			m.await("all run what they should", time.Minute, m.settled)
			time.Sleep(5 * time.Minute)
		}
		if !m.allUp() || len(m.box.all()) != 0 || m.missing() != 0 {
			m.t.Errorf("%d notifications, %d missing\n%s", len(m.box.all()), m.missing(), m.describe())
		}
	})
}

func TestACheckThatIsEditedPausedOrDeletedWhileDown(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(4, "a")
		for _, c := range []string{"c0", "c1", "c2"} {
			m.target.set("checks/"+c, true)
			m.await("OPENED", time.Minute, func() bool { return len(m.box.of("checks/"+c)) == 1 })
		}
		m.check("c0", func(k *meshv1.Check) { k.DisplayName = "the shop" })
		m.check("c1", func(k *meshv1.Check) { k.Paused = true })
		if err := m.admin.DeleteCheck(m.t.Context(), "checks/c2", ""); err != nil {
			m.t.Fatal(err)
		}
		m.await("RESOLVED", time.Minute, func() bool { return len(m.box.of("checks/c1")) == 2 && len(m.box.of("checks/c2")) == 2 })
		time.Sleep(10 * time.Minute)
		if d := m.box.of("checks/c0"); !slices.Equal(d, []string{"OPENED"}) {
			m.t.Errorf("after an edit: told %v", d)
		}
		m.target.set("checks/c0", false)
		m.await("RESOLVED", 3*time.Minute, func() bool { return len(m.box.of("checks/c0")) == 2 })
	})
}

func TestAHistoryThatStallsDelaysNoAlertAndLosesNothing(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(100, "a")
		m.leader().archive.stall(true)
		time.Sleep(20 * time.Minute)
		m.target.set("checks/c0", true)
		took := m.await("OPENED", time.Minute, func() bool { return len(m.box.of("checks/c0")) == 1 })
		if took > 11*time.Second {
			m.t.Errorf("told after %v", took)
		}
		m.leader().archive.stall(false)
		m.await("everything is in the history", 5*time.Minute, func() bool { return m.missing() == 0 })
	})
}

func TestASecondProcessOfANameIsHeardWhenTheFirstIsGone(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(5, "a")
		first := m.probers["fra-1"]
		delete(m.probers, "fra-1")
		m.probe("fra-1", "elsewhere") // same name, another process with its own data
		time.Sleep(10 * time.Minute)
		if p, _ := m.leader().c.Prober("probers/fra-1"); p.GetDatacenter() != "fra" || !m.allUp() {
			m.t.Errorf("the second process moved the first to %q\n%s", p.GetDatacenter(), m.describe())
		}
		first.cancel()
		<-first.done
		m.await("the second is enrolled", time.Minute, func() bool {
			p, _ := m.leader().c.Prober("probers/fra-1")
			return p.GetDatacenter() == "elsewhere" && p.GetState() == meshv1.Prober_ONLINE
		})
	})
}

// The servers' sessions are apart, and what they hold for true is the same.
func TestEveryServerHoldsTheSameForTrue(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(10, "a", "b", "c")
		m.await("probers are at home", time.Minute, func() bool { return m.settled() && m.spread() })
		m.await("all say the same", 10*time.Second, m.alike)
		m.target.set("checks/c0", true)
		m.target.set("checks/c1@fra", true)
		m.await("OPENED", time.Minute, func() bool { return len(m.box.of("checks/c0")) == 1 })
		time.Sleep(40 * time.Second)
		m.await("all say the same of an outage", 10*time.Second, m.alike)
		m.target.set("checks/c0", false)
		m.target.set("checks/c1@fra", false)
		m.await("all are UP", 3*time.Minute, m.allUp)
		m.await("all say the same after it", 10*time.Second, m.alike)
		m.await("every server has every result", time.Minute, func() bool { return m.lacking() == 0 })
		m.await("RESOLVED", time.Minute, func() bool { return len(m.box.of("checks/c0")) == 2 })
		if d := m.box.of("checks/c0"); !slices.Equal(d, once) || len(m.box.all()) != 2 {
			m.t.Errorf("told %v, %d in all", d, len(m.box.all()))
		}
	})
}

// The server that leads dies together with its session; the others know every vote, so the next leader opens what is down as soon as it leads.
func TestTheNextLeaderOpensAtOnceWhatIsDown(t *testing.T) {
	t.Parallel()
	inMesh(t, func(m *mesh) {
		m.begin(5, "a", "b", "c")
		m.await("probers are at home", time.Minute, func() bool { return m.settled() && m.spread() })
		first := m.leader().name
		m.kill(first)
		m.target.set("checks/c0", true)
		took := m.await("another leads", 20*time.Second, func() bool { return m.leader() != nil })
		opened := m.await("OPENED", time.Minute, func() bool { return len(m.box.of("checks/c0")) == 1 })
		// Somebody sees it within interval / n; whoever leads by then has nothing to learn first.
		if took+opened > 12*time.Second {
			m.t.Errorf("told %v after the outage began, %v after another led", took+opened, opened)
		}
		m.target.set("checks/c0", false)
		m.serve(first)
		m.await("all are UP", 3*time.Minute, m.allUp)
		m.await("every server has every result", 5*time.Minute, func() bool { return m.lacking() == 0 })
		m.await("RESOLVED", time.Minute, func() bool { return len(m.box.of("checks/c0")) == 2 })
		if d := m.box.of("checks/c0"); !slices.Equal(d, once) || len(m.box.all()) != 2 {
			m.t.Errorf("told %v, %d in all", d, len(m.box.all()))
		}
	})
}
