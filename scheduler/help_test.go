package scheduler

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// rig is a State with a store that does at once what the State wishes for, and a clock.
type rig struct {
	t   testing.TB
	s   *State
	now time.Time
	rev int64
	// acted are all actions since the last take; held: effects are not carried out.
	acted  []Action
	held   bool
	owed   []string
	asked  []Confirm
	silent map[string]bool
	// trying: how far builds are trusted is stored.
	trying bool
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, s: New(Config{Crowd: 5}), now: epoch, silent: map[string]bool{}}
	r.apply(Leadership{Leading: true, Term: 1})
	return r
}

func (r *rig) apply(events ...Event) {
	for n := 0; n < 100; n++ {
		actions := append([]Action(nil), r.s.Apply(r.now, events...)...)
		r.acted = append(r.acted, actions...)
		if events = r.effects(actions); len(events) == 0 {
			return
		}
	}
	r.t.Fatal("the mind wishes for ever")
}

func (r *rig) effects(actions []Action) (events []Event) {
	for n := 0; n < len(actions); n++ {
		if t, ok := actions[n].(Together); ok {
			actions = append(actions, t.Actions...)
		}
	}
	for _, a := range actions {
		switch a := a.(type) {
		case Confirm:
			r.asked = append(r.asked, a)
		case MoveRows:
			r.rev++
			events = append(events, TablePut{Table: a.Table, ModRevision: r.rev})
		}
		if r.held {
			continue
		}
		switch a := a.(type) {
		case Open:
			r.owe(a.Outbox)
			r.rev++
			events = append(events, IncidentPut{Key: a.Key, Incident: a.Incident, ModRevision: r.rev})
		case Escalate:
			r.owe(a.Outbox)
			r.rev++
			events = append(events, IncidentPut{Key: a.Key, Incident: a.Incident, ModRevision: r.rev})
		case PutBuild:
			if r.trying {
				r.rev++
				events = append(events, BuildPut{Build: a.Build, ModRevision: r.rev})
			}
		case DropBuild:
			events = append(events, BuildGone{Name: a.Name})
		case Resolve:
			r.owe(a.Outbox)
			events = append(events, IncidentGone{Key: a.Key})
		}
	}
	return events
}

func (r *rig) owe(out []*statev1.OutboxEntry) {
	for _, o := range out {
		r.owed = append(r.owed, o.GetNotification().GetTransition().String()+" "+o.GetNotification().GetCheck())
	}
}

// after lets time pass, calling Apply whenever it is due.
func (r *rig) after(d time.Duration) {
	end := r.now.Add(d)
	for {
		due := r.s.Due()
		if due.After(end) {
			r.now = end
			return
		}
		if due.After(r.now) {
			r.now = due
		} else {
			r.now = r.now.Add(time.Millisecond)
		}
		r.apply()
	}
}

func (r *rig) prober(name, datacenter string) Event {
	return EnrolmentPut{&statev1.Enrolment{Name: "probers/" + name, Datacenter: datacenter, Build: "1.0", Capabilities: []string{"tcp", "http", "ipv4"}}}
}

// probers enrols one prober in each datacenter, named like it, and brings it online.
func (r *rig) probers(datacenters ...string) {
	for _, d := range datacenters {
		r.apply(r.prober(d+"-1", d), ProberOnline{Name: d + "-1", Server: "servers/a"})
	}
	r.after(2 * time.Second)
}

func tcpCheck(name string, quorum int32) *meshv1.Check {
	return &meshv1.Check{
		Name: "checks/" + name, Uri: "tcp://" + name + ".example.com:80", Interval: durationpb.New(time.Minute), Timeout: durationpb.New(10 * time.Second),
		Quorum: quorum, Receivers: []string{"receivers/ops"},
	}
}

func (r *rig) check(c *meshv1.Check) {
	r.rev++
	r.apply(CheckPut{Check: c, ModRevision: r.rev})
}

func (r *rig) vote(check, prober string, outcome meshv1.Result_Outcome) {
	c := r.s.checks["checks/"+check]
	if c == nil {
		r.t.Fatalf("no check %s", check)
	}
	r.apply(Cast{Prober: prober, Result: &meshv1.Result{
		Check: c.name, StartTime: timestamppb.New(r.now), Outcome: outcome, CheckRevision: c.workHash, Duration: durationpb.New(time.Millisecond),
		Error: map[bool]string{true: "connection refused"}[outcome == meshv1.Result_FAIL],
	}})
	r.now = r.now.Add(time.Millisecond)
}

// votes casts one vote from each datacenter's prober.
func (r *rig) votes(check string, outcome meshv1.Result_Outcome, datacenters ...string) {
	for _, d := range datacenters {
		r.vote(check, d+"-1", outcome)
	}
}

func (r *rig) verdict(check string) string {
	st, ok := r.s.Status("checks/"+check, r.now, true)
	if !ok {
		return "no such check"
	}
	if _, ok := r.s.Explain("checks/"+check, r.now); !ok {
		r.t.Fatal("a check with a status cannot be explained")
	}
	return st.GetVerdict().String() + " " + st.GetReason().String()
}

func (r *rig) want(check, verdict string) {
	r.t.Helper()
	if got := r.verdict(check); got != verdict {
		r.t.Fatalf("%s: verdict %s, want %s", check, got, verdict)
	}
}

func (r *rig) wantOwed(want ...string) {
	r.t.Helper()
	if got := fmt.Sprint(r.owed); got != fmt.Sprint(want) {
		r.t.Fatalf("owed %s, want %s", got, fmt.Sprint(want))
	}
}
