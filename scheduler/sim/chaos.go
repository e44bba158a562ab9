package sim

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Report is what became of a schedule of faults.
type Report struct {
	Violations []string
	Opened     int
	Detected   []time.Duration
	Effects    int
	Repeats    int
	Runs       int
	Faults     int
	// Joined are the incidents that were opened as part of a group.
	Joined int
}

// PutCheck creates or changes a check.
func (w *World) putCheck(c *meshv1.Check) {
	w.truthOf(c.GetName()).edited = w.now
	w.store.putCheck(c)
}

func (w *World) deleteCheck(name string) {
	w.truthOf(name).edited = w.now
	w.store.deleteCheck(name)
}

func newCheck(name string, interval, timeout time.Duration, probers, quorum int) *meshv1.Check {
	return &meshv1.Check{
		Name: "checks/" + name, Uri: "tcp://" + name + ".example.com:443", Interval: durationpb.New(interval), Timeout: durationpb.New(timeout), Probers: int32(probers),
		Quorum: int32(quorum), Receivers: []string{"receivers/ops"},
	}
}

// Chaos runs a mixed schedule of faults for the time, mends everything, and lets it settle: everything is chosen by the seed.
func Chaos(o Options, d time.Duration) Report {
	w, faults := newChaos(o), 0
	for end := w.now.Add(d); w.now.Before(end) && len(w.violations) == 0; {
		w.Run(time.Duration(w.rng.Int64N(int64(40 * time.Second))))
		w.fault()
		faults++
	}
	w.mend()
	w.Run(6 * time.Minute)
	w.settled()
	r := Report{Violations: w.violations, Effects: len(w.hook.effects), Repeats: w.hook.repeats, Runs: w.runs, Faults: faults}
	for _, n := range sorted(w.truth) {
		r.Opened += len(w.truth[n].openedAt)
		r.Detected = append(r.Detected, w.truth[n].detected...)
	}
	return r
}

// newChaos is a mesh of a size that the seed chooses.
func newChaos(o Options) *World {
	o.Lossy = true
	o.Servers = 3
	w := NewWorld(o)
	w.store.putReceiver(&meshv1.Receiver{Name: "receivers/ops", MeshIncidents: true})
	places := []string{"ams", "fra", "iad", "nrt", "syd"}[:1+w.rng.IntN(5)]
	for _, d := range places {
		for i := range 1 + w.rng.IntN(2) {
			w.AddProber(fmt.Sprintf("%s-%d", d, i+1), d, fmt.Sprint("1.", w.rng.IntN(2)))
		}
	}
	for i := range 2 + w.rng.IntN(4) {
		w.putCheck(w.randomCheck(fmt.Sprint("c", i), len(places)))
	}
	w.Run(90 * time.Second)
	return w
}

func (w *World) randomCheck(name string, places int) *meshv1.Check {
	interval := []time.Duration{5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute}[w.rng.IntN(4)]
	n := 1 + w.rng.IntN(places)
	c := newCheck(name, interval, min(interval, 10*time.Second), n, 1+w.rng.IntN(n))
	c.AlertOnDegraded = w.chance(0.2)
	return c
}

func (w *World) anyProber() *prober {
	names := sorted(w.probers)
	return w.probers[names[w.rng.IntN(len(names))]]
}

func (w *World) anyCheck() *meshv1.Check {
	names := sorted(w.store.checks)
	if len(names) == 0 {
		return nil
	}
	return w.store.checks[names[w.rng.IntN(len(names))]].value
}

// fault breaks or mends one thing.
func (w *World) fault() {
	c := w.anyCheck()
	switch n := w.rng.IntN(20); {
	case n < 7 && c != nil:
		w.turnTarget(c)
	case n < 10:
		w.turnServer(w.servers[w.rng.IntN(len(w.servers))])
	case n < 16:
		w.turnProber(w.anyProber(), n)
	case n < 18:
		w.hook.broken = w.chance(0.2)
	default:
		w.turnCheck(c)
	}
}

func (w *World) turnTarget(c *meshv1.Check) {
	m := []mode{modeUp, modeUp, modeUp, modeDown, modeDown, modeBlackhole, modeSlow, modeFlaky}[w.rng.IntN(8)]
	if m != modeUp && w.chance(0.3) {
		w.setTarget(c.GetUri(), m, w.anyProber().datacenter)
		return
	}
	w.setTarget(c.GetUri(), m)
}

func (w *World) turnServer(s *server) {
	switch {
	case !s.alive:
		w.log("server %s starts", s.name)
		s.start()
	case s.paused:
		s.resume()
	case w.chance(0.5):
		s.kill()
	default:
		s.pause()
	}
}

func (w *World) turnProber(p *prober, n int) {
	switch n {
	case 10, 11:
		if p.alive {
			w.log("%s dies", p.name)
			p.die()
		} else {
			w.log("%s starts", p.name)
			p.start()
		}
	case 12:
		p.lying = !p.lying
		w.log("%s sees everything fail: %t", p.name, p.lying)
	case 13:
		p.mute = !p.mute
		w.log("%s has stopped probing: %t", p.name, p.mute)
	case 14:
		if p.cut = !p.cut; p.cut {
			p.detach("it is cut off")
		} else {
			w.log("%s is reachable again", p.name)
			p.attach()
		}
	case 15:
		switch w.rng.IntN(3) {
		case 0:
			p.clock = []time.Duration{0, 0, time.Hour, -time.Hour, 20 * time.Second, -20 * time.Second}[w.rng.IntN(6)]
			w.log("the clock of %s is off by %s", p.name, p.clock)
		default:
			p.drained = !p.drained
			w.log("%s is drained: %t", p.name, p.drained)
			p.enrol()
		}
	}
}

func (w *World) turnCheck(c *meshv1.Check) {
	places := w.datacenters()
	if c == nil || w.chance(0.2) {
		w.log("a check is created")
		w.putCheck(w.randomCheck(fmt.Sprint("c", w.rng.IntN(6)), places))
		return
	}
	switch w.rng.IntN(4) {
	case 0:
		w.log("%s is deleted", c.GetName())
		w.deleteCheck(c.GetName())
	case 1:
		e := proto.CloneOf(c)
		e.Paused = !e.Paused
		w.log("%s is paused: %t", c.GetName(), e.Paused)
		w.putCheck(e)
	default:
		e := w.randomCheck(c.GetName()[len("checks/"):], places)
		w.log("%s is edited: interval %s, %d probers, quorum %d", c.GetName(), e.GetInterval().AsDuration(), e.GetProbers(), e.GetQuorum())
		w.putCheck(e)
	}
}

// mend ends every fault of the mesh. The targets stay as they are.
func (w *World) mend() {
	w.log("everything is mended, except the targets")
	w.Calm()
	w.hook.broken = false
	for _, s := range w.servers {
		switch {
		case !s.alive:
			s.start()
		case s.paused:
			s.resume()
		}
	}
	for _, n := range sorted(w.probers) {
		p := w.probers[n]
		p.lying, p.mute, p.cut, p.clock = false, false, false, 0
		if p.drained {
			p.drained = false
			p.enrol()
		}
		if !p.alive {
			p.start()
		} else {
			p.attach()
		}
	}
}

// settled checks what must hold when nothing has been broken for a long time.
func (w *World) settled() {
	if len(w.violations) > 0 {
		return
	}
	w.auditAssignments()
	for _, id := range sorted(w.store.outbox) {
		// A target that is flaky even now may have made news a moment ago.
		if since := w.store.outbox[id].GetCreateTime().AsTime(); w.now.Sub(since) > 30*time.Second {
			w.violate("%s is still owed at the end", id)
		}
	}
	for _, st := range w.store.closed {
		i := st.GetIncident()
		for _, r := range i.GetReceivers() {
			told := w.hook.told[i.GetName()+" "+r]
			if w.now.Sub(i.GetResolveTime().AsTime()) < 30*time.Second {
				continue
			}
			if i.GetGroup() != "" && len(told) == 0 {
				continue // its group was told of, see joined
			}
			if len(told) < 2 || told[0] != "OPENED" || told[len(told)-1] != "RESOLVED" {
				w.violate("%s was told %v of %s", r, told, i.GetName())
			}
		}
	}
	// Every mind that thinks shows the same.
	for _, n := range sorted(w.store.checks) {
		want := ""
		for _, s := range w.servers {
			st, _ := s.mind.Status(n, w.now, false)
			got := st.GetVerdict().String()
			if g := w.targetOf(w.store.checks[n].value.GetUri()); g.mode != modeUp && g.mode != modeDown {
				continue
			}
			if want != "" && got != want {
				w.violate("server %s shows %s as %s, another as %s", s.name, n, got, want)
			}
			want = got
		}
	}
}
