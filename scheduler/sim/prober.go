package sim

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/assignment"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// spoolLimit is how many results a prober keeps for the history while it has no server; the oldest are dropped and counted.
const spoolLimit = 10_000

// prober probes what it was told to, whether or not a server hears it.
type prober struct {
	labels     map[string]string
	w          *World
	name       string
	datacenter string
	build      string
	drained    bool
	alive      bool
	lying      bool          // sees everything fail
	mute       bool          // has a session and does not probe
	cut        bool          // cannot reach any server
	clock      time.Duration // its clock minus the mesh's, uncorrected
	session    *server
	held       map[string]*meshv1.Assignment
	plan       map[string]int // generation of the timetable of a check
	newest     map[string]*meshv1.Result
	spool      []*meshv1.Result
	dropped    int
	lastSend   time.Time
	lastAssign time.Time
	backoff    bool
}

// AddProber enrols a prober, which attaches at once.
func (w *World) AddProber(name, datacenter, build string) {
	p := &prober{w: w, name: name, datacenter: datacenter, build: build, held: map[string]*meshv1.Assignment{}, plan: map[string]int{}, newest: map[string]*meshv1.Result{}}
	w.probers[name] = p
	p.enrol()
	p.start()
}

func (p *prober) enrol() {
	p.w.store.enrol(&statev1.Enrolment{
		Name: "probers/" + p.name, Datacenter: p.datacenter, Build: p.build, Drained: p.drained, Labels: p.labels, Capabilities: []string{"tcp", "http", "ipv4"},
	})
}

// start begins the process: what it held is on its disk.
func (p *prober) start() {
	p.alive = true
	held := p.held
	p.held = map[string]*meshv1.Assignment{}
	p.hold(held)
	p.attach()
}

// die ends the process. Its session is missed after three seconds.
func (p *prober) die() {
	p.alive = false
	for n := range p.held {
		p.plan[n]++
	}
	p.detach("it is gone")
}

// attach looks for a server that lives.
func (p *prober) attach() {
	if !p.alive || p.cut || p.session != nil || p.backoff {
		return
	}
	var live []*server
	for _, s := range p.w.servers {
		if s.alive && s.ready && !s.paused {
			live = append(live, s)
		}
	}
	if len(live) == 0 {
		p.backoff = true
		p.w.after(time.Second, func() { p.backoff = false; p.attach() })
		return
	}
	s := live[p.w.rng.IntN(len(live))]
	p.session = s
	p.w.rosterAt = p.w.now
	p.w.log("%s attaches to server %s", p.name, s.name)
	p.broadcast(func(v *server) { v.apply(scheduler.ProberOnline{Name: p.name, Server: "servers/" + s.name}) })
	p.w.after(2*p.w.delay(), func() {
		if p.session == s {
			s.assign(p)
		}
	})
	p.send(p.state()...)
	if n := len(p.spool); n > 0 {
		p.w.log("%s hands over %d results that waited", p.name, n)
		p.spool = nil // for the history, not for the mind
	}
}

// detach ends the session; the servers miss it after three seconds, and so does the prober.
func (p *prober) detach(why string) {
	if p.session == nil {
		return
	}
	p.w.log("%s loses its session: %s", p.name, why)
	p.session = nil
	p.w.rosterAt = p.w.now
	p.w.after(3*time.Second, func() {
		if p.session == nil {
			for _, s := range p.w.servers {
				if s.alive && s.ready {
					s.apply(scheduler.ProberOffline{Name: p.name})
				}
			}
		}
	})
	p.w.after(3*time.Second+time.Duration(p.w.rng.Int64N(int64(time.Second))), p.attach)
}

// broadcast does something at every server: at its own after one delay, at the others after two. Order is kept.
func (p *prober) broadcast(do func(*server)) {
	at := p.w.now.Add(p.w.delay())
	if !at.After(p.lastSend) {
		at = p.lastSend
	}
	p.lastSend = at
	for _, s := range p.w.servers {
		when := at
		if s != p.session {
			when = at.Add(3 * time.Millisecond)
		}
		if s.alive && s.ready {
			p.w.at(when, s.guarded(func() { do(s) }))
		}
	}
}

func (p *prober) send(results ...*meshv1.Result) {
	if len(results) > 0 {
		p.broadcast(func(s *server) { s.cast(p, results...) })
	}
}

// state is the newest result of every assignment.
func (p *prober) state() []*meshv1.Result {
	var list []*meshv1.Result
	for _, n := range sorted(p.newest) {
		if p.held[n] != nil {
			list = append(list, p.newest[n])
		}
	}
	return list
}

// hold takes a whole set of assignments.
func (p *prober) hold(next map[string]*meshv1.Assignment) {
	for _, n := range sorted(p.held) {
		if next[n] == nil {
			p.plan[n]++
			delete(p.newest, n)
		}
	}
	before := p.held
	p.held = next
	for _, n := range sorted(next) {
		if before[n] == nil || before[n].GetFingerprint() != next[n].GetFingerprint() {
			p.plan[n]++
			p.schedule(n)
		}
	}
}

// schedule plans the next probe of a check, at its phase on the prober's own clock.
func (p *prober) schedule(check string) {
	a, plan := p.held[check], p.plan[check]
	mine := p.w.now.Add(p.clock + time.Millisecond)
	at := assignment.Next(mine, a.GetCheck().GetInterval().AsDuration(), a.GetPhase().AsDuration()).Add(-p.clock)
	p.w.at(at, func() {
		if p.plan[check] == plan && p.alive {
			p.probe(p.held[check].GetCheck(), "")
			p.schedule(check)
		}
	})
}

func (p *prober) runNow(r *meshv1.RunNow) {
	if !p.alive || p.mute || p.w.now.After(r.GetDeadline().AsTime()) {
		return
	}
	check := r.GetAssignment().GetCheck()
	if a := p.held[r.GetCheck()]; a != nil {
		check = a.GetCheck()
	}
	if check == nil {
		p.broadcast(func(s *server) {
			s.apply(scheduler.RunRefused{Prober: p.name, RunID: r.GetRunId(), Reason: "it is not assigned"})
		})
		return
	}
	p.probe(check, r.GetRunId())
}

// probe asks the target, and reports when it is known; a probe that takes long is reported as slow before.
func (p *prober) probe(a *meshv1.Check, run string) {
	if p.mute {
		return
	}
	check := a.GetName()
	timeout := a.GetTimeout().AsDuration()
	outcome, took, why := p.w.targetOf(a.GetUri()).answer(p, timeout)
	r := &meshv1.Result{
		Check: check, Prober: "probers/" + p.name, StartTime: timestamppb.New(p.w.now.Add(p.clock)), Duration: durationpb.New(took), Outcome: outcome, Error: why,
		RunId: run, CheckRevision: a.GetRevision(),
	}
	boot := p.plan[check]
	if late := min(2*time.Second, timeout/2); took > late {
		p.w.after(late, func() {
			if p.session != nil && p.alive {
				p.send(&meshv1.Result{Check: check, StartTime: r.StartTime, Outcome: meshv1.Result_SLOW, CheckRevision: r.CheckRevision, RunId: run})
			}
		})
	}
	p.w.after(took, func() {
		if p.alive && (p.held[check] != nil || run != "") && (p.plan[check] == boot || run != "") {
			p.report(r)
		}
	})
}

// report sends a result: at once when it says something new or was asked for, else within a second.
func (p *prober) report(r *meshv1.Result) {
	old := p.newest[r.GetCheck()]
	if p.held[r.GetCheck()] != nil && (old == nil || r.GetStartTime().AsTime().After(old.GetStartTime().AsTime())) {
		p.newest[r.GetCheck()] = r
	}
	if p.session == nil {
		p.spool = append(p.spool, r)
		if len(p.spool) > spoolLimit {
			p.spool = p.spool[1:]
			p.dropped++
		}
		return
	}
	if r.GetRunId() != "" || old == nil || old.GetOutcome() != r.GetOutcome() {
		p.send(r)
		return
	}
	session := p.session
	p.w.after(time.Duration(p.w.rng.Int64N(int64(time.Second))), func() {
		if p.session == session {
			p.send(r)
		}
	})
}

// correct tells whether the prober sees what is there and is heard.
func (p *prober) correct() bool {
	return p.alive && p.session != nil && !p.lying && !p.mute && !p.drained && p.clock.Abs() < time.Second
}
