package sim

import (
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// server is a control-plane process: a mind, a watch on the store, and sessions of probers.
type server struct {
	w        *World
	name     string
	alive    bool
	ready    bool // the snapshot has come
	paused   bool
	boot     int
	mind     *scheduler.State
	leading  bool
	term     int64
	inbox    []scheduler.Event // of a paused one
	last     time.Time         // when the watch's newest event arrives
	wake     time.Time
	delivers map[string]bool // outbox entries under way
	heard    map[string]map[string]*meshv1.Result
}

// start boots it: an empty mind, then the snapshot, then what its peers know of sessions and votes.
func (s *server) start() {
	s.boot++
	s.alive, s.ready, s.paused, s.leading, s.inbox = true, false, false, false, nil
	s.mind, s.wake = scheduler.New(s.w.opt.Mind), time.Time{}
	s.delivers, s.heard = map[string]bool{}, map[string]map[string]*meshv1.Result{}
	s.w.after(s.w.delay(), s.guarded(func() {
		s.ready, s.last = true, s.w.now
		events := s.w.store.snapshot()
		for _, n := range sorted(s.w.probers) {
			if p := s.w.probers[n]; p.session != nil {
				events = append(events, scheduler.ProberOnline{Name: n, Server: "servers/" + p.session.name})
			}
		}
		s.apply(events...)
		for _, n := range sorted(s.w.probers) {
			if p := s.w.probers[n]; p.session != nil {
				s.cast(p, p.state()...)
			}
		}
	}))
}

// guarded makes a callback void when the server has died meanwhile.
func (s *server) guarded(do func()) func() {
	boot := s.boot
	return func() {
		if s.alive && s.boot == boot {
			do()
		}
	}
}

// watch brings a change of the store, after a delay, in order.
func (s *server) watch(e scheduler.Event) {
	if !s.alive || !s.ready {
		return
	}
	if at := s.w.now.Add(s.w.delay()); at.After(s.last) {
		s.last = at
	}
	s.w.at(s.last, s.guarded(func() { s.apply(e) }))
}

func (s *server) cast(p *prober, results ...*meshv1.Result) {
	for _, r := range results {
		s.apply(scheduler.Cast{Prober: p.name, Result: r})
	}
}

// hear keeps what the mind was told, for the audit to count it again.
func (s *server) hear(e scheduler.Cast) {
	r := e.Result
	start := r.GetStartTime().AsTime()
	if r.GetOutcome() == meshv1.Result_SLOW || start.After(s.w.now.Add(5*time.Second)) {
		return // no vote, or from a clock that is wrong
	}
	if s.heard[r.GetCheck()] == nil {
		s.heard[r.GetCheck()] = map[string]*meshv1.Result{}
	}
	if old := s.heard[r.GetCheck()][e.Prober]; old == nil || start.After(old.GetStartTime().AsTime()) {
		s.heard[r.GetCheck()][e.Prober] = r
	}
}

func (s *server) apply(events ...scheduler.Event) {
	if s.paused {
		s.inbox = append(s.inbox, events...)
		return
	}
	for _, e := range events {
		if v, ok := e.(scheduler.Cast); ok {
			s.hear(v)
		}
	}
	for _, a := range s.mind.Apply(s.w.now, s.w.told(events)...) {
		s.act(a)
	}
	due := s.mind.Due()
	if !due.After(s.w.now) {
		due = s.w.now.Add(time.Millisecond)
	}
	if s.wake.IsZero() || due.Before(s.wake) || !s.wake.After(s.w.now) {
		s.wake = due
		s.w.at(due, s.guarded(func() {
			if s.wake.Equal(due) && !s.paused {
				s.apply()
			}
		}))
	}
}

// told is what minds are told of what happened: the truth, unless a mutation has it otherwise.
func (w *World) told(events []scheduler.Event) []scheduler.Event {
	if !w.opt.ProbersAsDomains {
		return events
	}
	for i, e := range events {
		if p, ok := e.(scheduler.EnrolmentPut); ok {
			lie := proto.CloneOf(p.Enrolment)
			lie.Datacenter = lie.GetName()[len("probers/"):]
			events[i] = scheduler.EnrolmentPut{Enrolment: lie}
		}
	}
	return events
}

func (s *server) act(a scheduler.Action) {
	switch a := a.(type) {
	case scheduler.Assign:
		if p := s.w.probers[a.Prober]; p != nil && p.session == s {
			s.assign(p)
		}
	case scheduler.StatusChanged:
		if s.leading && a.Before != a.After {
			s.w.log("%s: %s -> %s (%s)", a.Check, a.Before, a.After, a.Reason)
		}
	case scheduler.Confirm:
		if s.leading {
			s.confirm(a)
		}
	case scheduler.Open:
		s.w.checkEvidence(s, a)
		s.effect(a.Key, a)
	case scheduler.Together:
		// All of them are one transaction; here each may be lost by itself, which is worse.
		for _, x := range a.Actions {
			s.act(x)
		}
	case scheduler.Escalate:
		s.effect(a.Key, a)
	case scheduler.Resolve:
		s.effect(a.Key, a)
	case scheduler.MoveRows:
		s.effect(scheduler.TableKey(a.Table.GetDatacenter()), a)
	}
}

func (s *server) confirm(a scheduler.Confirm) {
	s.w.runs++
	s.w.log("%s is asked to probe %s at once", a.Prober, a.Run.GetCheck())
	p := s.w.probers[a.Prober]
	if p == nil || p.session == nil || s.w.lost(0.05) {
		return
	}
	session := p.session
	s.w.after(s.w.delay()+s.w.delay(), func() {
		if p.session == session {
			p.runNow(a.Run)
		}
	})
}

// effect takes an action to the store and brings the answer back. The way there, or the answer, may get lost; then nobody knows what became of it.
func (s *server) effect(key string, a scheduler.Action) {
	term := s.term
	if s.w.lost(0.03) {
		s.w.after(2*time.Second, s.guarded(func() { s.failed(key, time.Second) }))
		return
	}
	s.w.after(s.w.delay(), func() {
		// The request is on its way whether or not the server still lives.
		err := s.w.store.effect(term, a)
		if s.w.lost(0.03) {
			err = errors.New("no answer")
		}
		if err == nil {
			return
		}
		s.w.after(s.w.delay(), s.guarded(func() { s.failed(key, 500*time.Millisecond) }))
	})
}

func (s *server) failed(key string, retry time.Duration) {
	s.apply(scheduler.EffectFailed{Key: key, Retry: retry})
}

// assign sends a prober of this server what it should run now.
func (s *server) assign(p *prober) {
	held := map[string]*meshv1.Assignment{}
	for n, a := range s.mind.Assignments(p.name) {
		held[n] = a
	}
	if at := s.w.now.Add(s.w.delay()); at.After(p.lastAssign) {
		p.lastAssign = at
	}
	s.w.at(p.lastAssign, func() {
		if p.session == s {
			p.hold(held)
		}
	})
}

// kill ends the process. Its sessions break, and if it led, another is elected.
func (s *server) kill() {
	s.w.log("server %s is killed", s.name)
	s.alive, s.ready = false, false
	s.dropSessions()
	s.unlead()
}

func (s *server) dropSessions() {
	for _, n := range sorted(s.w.probers) {
		if p := s.w.probers[n]; p.session == s {
			p.detach("its server is gone")
		}
	}
}

// pause stops it like a debugger would; it does not notice, and believes itself leader when it wakes.
func (s *server) pause() {
	s.w.log("server %s is paused", s.name)
	s.paused = true
	s.dropSessions()
	if s.w.leader == s {
		s.w.leader, s.w.leaderSince = nil, time.Time{}
		s.w.after(time.Second+s.w.delay(), func() {
			if s.w.leaderSince.IsZero() {
				s.w.elect()
			}
		})
	}
}

func (s *server) resume() {
	s.w.log("server %s goes on", s.name)
	s.paused = false
	events := s.inbox
	s.inbox = nil
	for _, e := range events {
		s.apply(e)
	}
	s.apply()
	if s.leading && s.term != s.w.store.term {
		// It acts in good faith until it hears that its reign is over.
		over := s.term
		s.w.after(200*time.Millisecond, s.guarded(func() {
			if s.term == over {
				s.leading = false
				s.apply(scheduler.Leadership{})
			}
		}))
	}
}

func (s *server) unlead() {
	s.leading = false
	if s.w.leader != s {
		return
	}
	s.w.leader, s.w.leaderSince = nil, time.Time{}
	s.w.after(600*time.Millisecond+10*s.w.delay(), func() {
		if s.w.leaderSince.IsZero() {
			s.w.elect()
		}
	})
}

// elect makes a server that lives the leader of a new term.
func (w *World) elect() {
	var candidates []*server
	for _, s := range w.servers {
		if s.alive && !s.paused {
			candidates = append(candidates, s)
		}
	}
	if len(candidates) == 0 {
		w.after(time.Second, func() {
			if w.leaderSince.IsZero() {
				w.elect()
			}
		})
		return
	}
	s := candidates[w.rng.IntN(len(candidates))]
	w.store.term++
	term := w.store.term
	w.leader, w.leaderSince = s, w.now
	w.after(w.delay(), s.guarded(func() {
		if term != w.store.term {
			return
		}
		s.leading, s.term = true, term
		w.log("server %s leads, term %d", s.name, term)
		s.apply(scheduler.Leadership{Leading: true, Term: term})
	}))
}
