package meshtest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

var (
	seedFlag  = flag.Uint64("meshtest.seed", 0, "run TestMixedFaults with this seed only")
	seedsFlag = flag.Uint64("meshtest.seeds", 8, "how many seeds TestMixedFaults runs, from 1")
)

// TestMixedFaults lets everything go wrong for twenty minutes, then stops, and holds the mesh to what it promises.
func TestMixedFaults(t *testing.T) {
	t.Parallel()
	first, last := uint64(1), *seedsFlag
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			defer func() {
				if t.Failed() {
					t.Logf("replay: go test ./internal/meshtest -run TestMixedFaults -meshtest.seed=%d -v", seed)
				}
			}()
			inMesh(t, func(m *mesh) {
				m.begin(6, "a", "b", "c")
				s := &schedule{m: m, rand: rand.New(rand.NewPCG(seed, 0)), heal: map[string]func(){}}
				for end := time.Now().Add(20 * time.Minute); time.Now().Before(end); {
					s.step()
					m.oneIncidentACheck()
					time.Sleep(time.Duration(1+s.rand.IntN(20)) * time.Second)
				}
				s.healAll()
				m.promises()
			})
		})
	}
}

// schedule breaks and mends. Everything that it does follows from its seed, in one goroutine.
type schedule struct {
	m    *mesh
	rand *rand.Rand
	heal map[string]func() // what is broken, and how to mend it
}

func (s *schedule) note(format string, args ...any) {
	s.m.t.Logf("%s %s", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// step breaks something, or mends something that is broken.
func (s *schedule) step() {
	broken := make([]string, 0, len(s.heal))
	for n := range s.heal {
		broken = append(broken, n)
	}
	slices.Sort(broken)
	if len(broken) > 0 && s.rand.IntN(2) == 0 {
		n := broken[s.rand.IntN(len(broken))]
		s.note("mend: %s", n)
		s.heal[n]()
		delete(s.heal, n)
		return
	}
	s.fault()
}

// breaks makes a fault that lasts until it is mended; one that is there already is left alone.
func (s *schedule) breaks(name string, do, undo func()) {
	if s.heal[name] != nil {
		return
	}
	s.note("break: %s", name)
	do()
	s.heal[name] = undo
}

func (s *schedule) fault() {
	m := s.m
	prober := []string{"fra-1", "iad-1", "nrt-1"}[s.rand.IntN(3)]
	name := []string{"a", "b", "c"}[s.rand.IntN(3)]
	check := fmt.Sprint("c", s.rand.IntN(5)) // c5 is left alone
	switch s.rand.IntN(13) {
	case 0:
		s.breaks("server "+name+" is dead", func() { m.kill(name) }, func() { m.serve(name) })
	case 1:
		s.breaks("etcd has no leader", func() { m.etcd.SetLeaderless(true) }, func() { m.etcd.SetLeaderless(false) })
	case 2:
		s.breaks("server "+name+" is cut off from etcd", func() { m.servers[name].cutOff(true) }, func() {
			if !m.servers[name].dead {
				m.servers[name].cutOff(false)
			}
		})
	case 3:
		s.breaks("prober "+prober+" is cut off", func() { m.net.partition(prober, true) }, func() { m.net.partition(prober, false) })
	case 4:
		s.note("prober %s restarts", prober)
		m.stopProber(prober)
		m.probe(prober, prober[:3])
	case 5:
		s.breaks("history of "+name+" stalls", func() { m.servers[name].archive.stall(true) }, func() { m.servers[name].archive.stall(false) })
	case 6, 7:
		s.breaks("target of "+check+" is down", func() { m.target.set("checks/"+check, true) }, func() { m.target.set("checks/"+check, false) })
	case 8:
		s.breaks("target of "+check+" is down from fra", func() { m.target.set("checks/"+check+"@fra", true) }, func() { m.target.set("checks/"+check+"@fra", false) })
	case 9:
		n := 1 + s.rand.IntN(3)
		s.note("etcd loses %d answers", n)
		m.etcd.LoseAnswers(n)
	case 10:
		s.note("watches break, and what they missed is compacted")
		m.etcd.BreakWatches()
		m.etcd.Compact(0)
	case 12:
		s.breaks("server "+name+" is cut off from the others", func() { m.net.isolate(name, true) }, func() { m.net.isolate(name, false) })
	case 11:
		if s.heal["etcd has no leader"] == nil {
			s.note("edit of %s", check)
			paused := s.rand.IntN(3) == 0
			m.edit(check, paused)
			if paused {
				s.breaks(check+" is paused", func() {}, func() { m.edit(check, false) })
			}
		}
	}
}

// edit changes a check; etcd may lose answers meanwhile, so it is tried again.
func (m *mesh) edit(name string, paused bool) {
	for range 20 {
		k, err := m.admin.GetCheck(m.t.Context(), "checks/"+name)
		if err == nil {
			k.Paused, k.DisplayName = paused, fmt.Sprint("edited at ", time.Now().Unix())
			if _, err = m.admin.UpdateCheck(m.t.Context(), k, ""); err == nil {
				return
			}
		}
		time.Sleep(time.Second)
	}
}

func (s *schedule) healAll() {
	// etcd first: others need it to be mended.
	if undo := s.heal["etcd has no leader"]; undo != nil {
		undo()
		delete(s.heal, "etcd has no leader")
	}
	s.m.etcd.LoseAnswers(0)
	names := make([]string, 0, len(s.heal))
	for n := range s.heal {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		s.heal[n]()
	}
	s.note("everything is mended")
}

// oneIncidentACheck holds at any time: of two incidents of a check, one is resolved before the other opens.
func (m *mesh) oneIncidentACheck() {
	m.t.Helper()
	open, _, err := m.admin.ListOpenIncidents(m.t.Context())
	if err != nil {
		return // etcd is away; the next look tells
	}
	seen := map[string]string{}
	for _, v := range open {
		i := v.Value.GetIncident()
		if other := seen[i.GetCheck()]; other != "" {
			m.t.Errorf("%s and %s are both open for %q", other, i.GetName(), i.GetCheck())
		}
		seen[i.GetCheck()] = i.GetName()
		if i.GetVerdict() == meshv1.CheckStatus_DOWN && len(failingPlaces(i)) < 2 {
			m.t.Errorf("%s is DOWN by the votes of %v alone", i.GetName(), failingPlaces(i))
		}
	}
}

func failingPlaces(i *meshv1.Incident) map[string]bool {
	places := map[string]bool{}
	for _, v := range i.GetEvidence() {
		if v.GetOutcome() == meshv1.Result_FAIL && v.GetFresh() {
			places[v.GetDatacenter()] = true
		}
	}
	return places
}

// promises are what holds once nothing is wrong any more.
func (m *mesh) promises() {
	m.t.Helper()
	m.await("somebody leads, and every prober is there and runs what it should", time.Minute, m.settled)
	m.await("every check is UP and no incident is open", 10*time.Minute, func() bool {
		open, _, err := m.admin.ListOpenIncidents(m.t.Context())
		return err == nil && len(open) == 0 && m.allUp()
	})
	m.await("nothing is owed", time.Minute, func() bool {
		owed, _, err := m.admin.ListOutbox(m.t.Context())
		return err == nil && len(owed) == 0
	})
	m.await("every probe is in a history", 5*time.Minute, func() bool { return m.missing() == 0 })
	m.await("every probe is in every history", 5*time.Minute, func() bool { return m.lacking() == 0 })
	m.await("every server says the same", time.Minute, m.alike)
	m.told()
	if d := m.box.of("checks/c5"); len(d) != 0 {
		m.t.Errorf("c5 never failed, and was told of: %v", d)
	}
	// It still works: an outage is told once, and its end.
	before := len(m.box.of("checks/c5"))
	m.target.set("checks/c5", true)
	m.await("OPENED", time.Minute, func() bool { return len(m.box.of("checks/c5")) == before+1 })
	m.target.set("checks/c5", false)
	m.await("RESOLVED", 3*time.Minute, func() bool { return len(m.box.of("checks/c5")) == before+2 })
	m.told()
}

// told compares the inbox with the incidents: for each, OPENED came and then RESOLVED, once in effect, and nothing came of anything else.
func (m *mesh) told() {
	m.t.Helper()
	closed, _, err := m.admin.ListClosedIncidents(m.t.Context(), "", 0)
	if err != nil {
		m.t.Fatal(err)
	}
	want := map[string]bool{}
	for _, v := range closed {
		want[v.Value.GetIncident().GetName()] = true
	}
	got := map[string][]string{}
	for _, d := range m.box.all() {
		got[d.n.GetIncident()] = append(got[d.n.GetIncident()], d.n.GetTransition().String())
	}
	for name, d := range got {
		if !want[name] {
			m.t.Errorf("told of %s (%v), which is not in the store", name, d)
		}
		if d[0] != "OPENED" || d[len(d)-1] != "RESOLVED" {
			m.t.Errorf("of %s was told: %v", name, d)
		}
	}
	for name := range want {
		if got[name] == nil {
			m.t.Errorf("nobody was told of %s", name)
		}
	}
}
