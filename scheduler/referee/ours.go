package referee

import (
	"container/heap"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// way is how long a message takes between a prober and the server.
const way = 30 * time.Millisecond

// lateAfter is when a prober says that a probe is abnormally late: a tenth of the timeout, where targets usually answer in less than a quarter of that (package prober).
const lateAfter = Timeout / 10

// epoch is when simulated time begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// settleIn is how long the mind runs before a round begins: tables are written, everybody has voted.
const settleIn = 15 * time.Minute

// mind drives the product's own scheduler with probes of the truth.
type mind struct {
	w         *Truth
	state     *scheduler.State
	places    map[string]*Place
	index     map[string]int // of checks
	now       time.Duration
	queue     queue
	serial    int64
	revision  int64
	schedule  map[seat]int64 // the number of the run that is planned next
	repeats   map[seat]int
	failed    map[seat]bool // whether the last result was a failure
	incidents map[string]time.Duration
	alerts    []Alert
	probes    int
	interval  time.Duration
}

type seat struct {
	prober, check string
}

func newMind(w *Truth, interval time.Duration, probers, quorum int) *mind {
	m := &mind{
		w: w, state: scheduler.New(scheduler.Config{}), places: map[string]*Place{}, index: map[string]int{}, now: -settleIn, schedule: map[seat]int64{},
		repeats: map[seat]int{}, failed: map[seat]bool{}, incidents: map[string]time.Duration{}, interval: interval,
	}
	events := []scheduler.Event{scheduler.Reset{}}
	for i := range w.Places {
		p := &w.Places[i]
		m.places[p.Name] = p
		events = append(events, scheduler.EnrolmentPut{Enrolment: &statev1.Enrolment{
			Name: "probers/" + p.Name, Datacenter: p.Datacenter, Build: p.Build, Capabilities: []string{"http", "ipv4", "ipv6"},
			Labels: map[string]string{"provider": p.Provider, "region": p.Region}, Observed: map[string]string{"resolver": p.Resolver},
		}})
	}
	for c := range w.Checks {
		name := fmt.Sprintf("checks/c%d", c)
		m.index[name] = c
		events = append(events, scheduler.CheckPut{ModRevision: int64(c + 1), Check: &meshv1.Check{
			Name: name, Uri: fmt.Sprintf("http://host%d.example/", c), Interval: durationpb.New(interval), Timeout: durationpb.New(Timeout),
			Probers: int32(probers), Quorum: int32(quorum),
		}})
	}
	for n := range m.places {
		events = append(events, scheduler.ProberOnline{Name: n, Server: "servers/a"})
	}
	m.revision = int64(w.Checks)
	m.apply(append(events, scheduler.Leadership{Leading: true, Term: 1})...)
	return m
}

func (m *mind) clock() time.Time { return epoch.Add(m.now) }

// play lets time pass and gives what was decided.
func (m *mind) play() ([]Alert, int) {
	for {
		due := max(m.now, m.state.Due().Sub(epoch))
		if len(m.queue) > 0 && m.queue[0].at <= due {
			it := heap.Pop(&m.queue).(item)
			m.now = max(m.now, it.at)
			if m.now >= m.w.Length {
				break
			}
			it.do()
			continue
		}
		m.now = due
		if m.now >= m.w.Length {
			break
		}
		m.apply()
		if m.now == due {
			m.now++
		}
	}
	for check, since := range m.incidents {
		m.alerts = append(m.alerts, Alert{m.index[check], since, m.w.Length})
	}
	return m.alerts, m.probes
}

// apply gives events to the mind and carries out its actions, each of which succeeds.
func (m *mind) apply(events ...scheduler.Event) {
	var back []scheduler.Event
	actions := m.state.Apply(m.clock(), events...)
	for n := 0; n < len(actions); n++ {
		if t, ok := actions[n].(scheduler.Together); ok {
			actions = append(actions, t.Actions...)
		}
	}
	for _, a := range actions {
		m.revision++
		switch a := a.(type) {
		case scheduler.Open:
			back = append(back, scheduler.IncidentPut{Key: a.Key, Incident: a.Incident, ModRevision: m.revision})
			if _, ok := m.index[a.Key]; ok {
				m.incidents[a.Key] = m.now
			}
		case scheduler.Escalate:
			back = append(back, scheduler.IncidentPut{Key: a.Key, Incident: a.Incident, ModRevision: m.revision})
		case scheduler.Resolve:
			back = append(back, scheduler.IncidentGone{Key: a.Key})
			if since, ok := m.incidents[a.Key]; ok {
				m.alerts = append(m.alerts, Alert{m.index[a.Key], since, m.now})
				delete(m.incidents, a.Key)
			}
		case scheduler.MoveRows:
			back = append(back, scheduler.TablePut{Table: a.Table, ModRevision: m.revision})
		case scheduler.Assign:
			m.plan(a.Prober)
		case scheduler.Confirm:
			m.confirm(a)
		}
	}
	if back != nil {
		m.apply(back...)
	}
}

// plan puts what a prober should run into its timetable.
func (m *mind) plan(prober string) {
	for check, a := range m.state.Assignments(prober) {
		s := seat{prober, check}
		m.serial++
		m.schedule[s] = m.serial
		interval, phase := a.GetCheck().GetInterval().AsDuration(), a.GetPhase().AsDuration()
		since := time.Duration((m.clock().UnixNano() - int64(phase)) % int64(interval))
		m.next(s, m.serial, m.now+interval-since, interval)
	}
}

// next is the run at a time, and those after it, until the seat is planned anew.
func (m *mind) next(s seat, serial int64, at, interval time.Duration) {
	m.at(at, func() {
		a := m.state.Assignments(s.prober)[s.check]
		if m.schedule[s] != serial || a == nil {
			return
		}
		m.probe(s, a, "", 0)
		m.next(s, serial, at+interval, interval)
	})
}

// confirm is a run that the mind asks for.
func (m *mind) confirm(a scheduler.Confirm) {
	s := seat{a.Prober, a.Run.GetCheck()}
	m.at(m.now+way, func() {
		work := m.state.Assignments(s.prober)[s.check]
		if work == nil {
			work = a.Run.GetAssignment()
		}
		if work == nil {
			return
		}
		m.repeats[s]++
		m.probe(s, work, a.Run.GetRunId(), m.repeats[s])
	})
}

func (m *mind) probe(s seat, a *meshv1.Assignment, run string, repeat int) {
	if m.now >= 0 {
		m.probes++
	}
	began := m.now
	answer := m.w.Answer(m.places[s.prober], m.index[s.check], began, repeat)
	r := &meshv1.Result{
		Check: s.check, Prober: "probers/" + s.prober, StartTime: timestamppb.New(m.clock()), Duration: durationpb.New(answer.Takes), Outcome: meshv1.Result_OK,
		RunId: run, CheckRevision: a.GetCheck().GetRevision(),
	}
	if !answer.OK {
		r.Outcome, r.ErrorClass, r.Error = meshv1.Result_FAIL, meshv1.Result_TIMEOUT, "no answer"
	}
	if answer.Takes > lateAfter && !m.failed[s] && run == "" {
		m.at(began+lateAfter+way, func() {
			m.apply(scheduler.Cast{Prober: s.prober, Result: &meshv1.Result{
				Check: s.check, Prober: r.Prober, StartTime: r.StartTime, Duration: durationpb.New(lateAfter), Outcome: meshv1.Result_SLOW, CheckRevision: r.CheckRevision,
			}})
		})
	}
	m.failed[s] = !answer.OK
	m.at(began+answer.Takes+way, func() { m.apply(scheduler.Cast{Prober: s.prober, Result: r}) })
}

// at plans something. What is planned for one moment is done in the order of planning.
func (m *mind) at(t time.Duration, do func()) {
	m.serial++
	heap.Push(&m.queue, item{t, m.serial, do})
}

type item struct {
	at     time.Duration
	serial int64
	do     func()
}

type queue []item

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].serial < q[j].serial
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(item)) }
func (q *queue) Pop() any {
	old := *q
	it := old[len(old)-1]
	*q = old[:len(old)-1]
	return it
}
