package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/credibility"
)

// massRig is a mesh of five datacenters, all but the first two of site q, with n checks that everybody sees answer.
func massRig(t testing.TB, n int, edit func(int, *meshv1.Check)) (*rig, []string) {
	r := newRig(t)
	r.apply(ReceiverPut{Receiver: &meshv1.Receiver{Name: "receivers/mesh", MeshIncidents: true}})
	places := []string{"ams", "fra", "iad", "nrt", "syd"}
	for i, d := range places {
		p := "p"
		if i >= 2 {
			p = "q"
		}
		r.apply(EnrolmentPut{Enrolment: &statev1.Enrolment{Name: "probers/" + d + "-1", Datacenter: d, Build: "1.0", Labels: map[string]string{"site": p}, Capabilities: []string{"tcp", "ipv4"}}},
			ProberOnline{Name: d + "-1", Server: "servers/a"})
	}
	r.after(2 * time.Second)
	var puts []Event
	for i := range n {
		c := tcpCheck(fmt.Sprintf("c%04d", i), 3)
		c.Uri, c.Probers = fmt.Sprintf("tcp://host%d.example.com:80", i), 5
		edit(i, c)
		puts = append(puts, CheckPut{Check: c, ModRevision: int64(i + 1)})
	}
	r.apply(puts...)
	r.after(2 * time.Second)
	r.everybody(ok, places...)
	r.after(20 * time.Second)
	r.owed, r.asked, r.acted = nil, nil, nil
	r.s.Counters = Counters{}
	return r, places
}

// everybody has the probers of the datacenters vote alike on every check, one after the other.
func (r *rig) everybody(outcome meshv1.Result_Outcome, places ...string) {
	r.some(func(int) meshv1.Result_Outcome { return outcome }, places...)
}

func (r *rig) some(says func(int) meshv1.Result_Outcome, places ...string) {
	for _, d := range places {
		for i, n := range r.s.Names() {
			c := r.s.checks[n]
			r.apply(Cast{Prober: d + "-1", Result: &meshv1.Result{
				Check: n, StartTime: timestamppb.New(r.now), Outcome: says(i), CheckRevision: c.workHash, Duration: durationpb.New(time.Millisecond),
				RemoteAddress: fmt.Sprintf("192.0.%d.%d:80", i/200, i%200),
			}})
			r.now = r.now.Add(20 * time.Microsecond)
		}
	}
}

// written are the transactions that were wished for, by what they do.
func (r *rig) written() map[string]int {
	n := map[string]int{}
	for _, a := range r.acted {
		switch a := a.(type) {
		case Open:
			if IsGroup(a.Key) {
				n["open group"]++
			} else if IsMesh(a.Key) {
				n["open mesh"]++
			} else {
				n["open"]++
			}
		case Resolve:
			if IsGroup(a.Key) || IsMesh(a.Key) {
				n["resolve group"]++
			} else {
				n["resolve"]++
			}
		case Together:
			n["together"]++
		case Escalate:
			n["change"]++
		}
	}
	return n
}

func (r *rig) openGroups() (list []*meshv1.Incident) {
	for _, k := range sortedKeys(r.s.mass.groups) {
		list = append(list, r.s.mass.groups[k].incident.GetIncident())
	}
	return list
}

func TestHostThatDiesIsOneNotificationAndItsReturnAnother(t *testing.T) {
	r, places := massRig(t, 200, func(_ int, c *meshv1.Check) { c.Uri = "tcp://db1.example.com:" + fmt.Sprint(1000+len(c.Name)) })
	r.everybody(fail, places...)
	r.after(4 * time.Second)
	r.wantOwed("OPENED ")
	g := r.openGroups()
	if len(g) != 1 || !strings.HasPrefix(g[0].GetSummary(), "200 checks with host=db1.example.com") {
		t.Fatalf("%v", g)
	}
	t.Log(g[0].GetSummary())
	st, _ := r.s.Status("checks/c0007", r.now, false)
	if st.GetGroup() != g[0].GetName() || st.GetIncident() == "" || st.GetVerdict() != meshv1.CheckStatus_DOWN {
		t.Errorf("%v", st)
	}
	w := r.written()
	if w["open"] != 0 || w["together"] != 6 || w["open group"] != 1 {
		t.Errorf("written: %v", w)
	}
	for range 5 {
		r.after(20 * time.Second)
		r.everybody(ok, places...)
	}
	r.after(40 * time.Second)
	r.wantOwed("OPENED ", "RESOLVED ")
	if len(r.openGroups()) != 0 {
		t.Errorf("open: %v", r.openGroups())
	}
}

func TestLoneOutageIsNeverHeld(t *testing.T) {
	r, places := massRig(t, 50, func(_ int, c *meshv1.Check) { c.Labels = map[string]string{"env": "prod"} })
	r.votes("c0003", fail, places...)
	for n := range r.othersAsked("c0003") {
		r.vote(n, "ams-1", ok)
	}
	r.after(lookAgain)
	r.wantOwed("OPENED checks/c0003")
	// Nor is one whose siblings say nothing for long.
	r, places = massRig(t, 50, func(_ int, c *meshv1.Check) { c.Labels = map[string]string{"env": "prod"} })
	r.votes("c0003", fail, places...)
	r.wantOwed()
	r.after(soundFor + lookAgain)
	r.wantOwed("OPENED checks/c0003")
	// Nor is one among many of a host that answer for the others.
	r, places = massRig(t, 50, func(i int, c *meshv1.Check) { c.Uri = fmt.Sprint("tcp://db1.example.com:", 1000+i) })
	r.vote("c0003", "ams-1", fail)
	for _, a := range r.asked {
		if a.Run.GetCheck() != "checks/c0003" {
			r.vote(strings.TrimPrefix(a.Run.GetCheck(), "checks/"), a.Prober, ok)
		}
	}
	r.votes("c0003", fail, places[1:]...)
	r.wantOwed("OPENED checks/c0003")
	if n := len(r.asked); n > 12 {
		t.Errorf("%d runs were asked for because of one check", n)
	}
}

func TestHostIsSoundedSoThatTheFirstOfManyWaitsForTheOthers(t *testing.T) {
	r, places := massRig(t, 30, func(i int, c *meshv1.Check) { c.Uri = fmt.Sprint("tcp://db1.example.com:", 1000+i) })
	r.vote("c0003", "ams-1", fail)
	var siblings []string
	for _, a := range r.asked {
		if n := strings.TrimPrefix(a.Run.GetCheck(), "checks/"); n != "c0003" {
			siblings = append(siblings, n)
		}
	}
	if len(siblings) != 5 {
		t.Fatalf("asked about %q", siblings)
	}
	r.votes("c0003", fail, places[1:]...)
	r.wantOwed()
	for _, n := range siblings {
		r.votes(n, fail, places...)
	}
	r.after(3 * time.Second)
	r.wantOwed("OPENED ")
	if g := r.openGroups(); len(g) != 1 || g[0].GetShared().GetValue() != "db1.example.com" {
		t.Errorf("%v", g)
	}
	// One that fails later is added without a word.
	r.votes("c0029", fail, places...)
	r.after(time.Second)
	r.wantOwed("OPENED ")
	if st, _ := r.s.Status("checks/c0029", r.now, false); st.GetGroup() == "" {
		t.Errorf("%v", st)
	}
}

func TestLabelExplainsAndOthersOpenByThemselves(t *testing.T) {
	r, places := massRig(t, 40, func(i int, c *meshv1.Check) { c.Labels = map[string]string{"rack": fmt.Sprint(i % 4), "env": "prod"} })
	r.some(func(i int) meshv1.Result_Outcome {
		if i%4 == 2 || i == 5 {
			return fail
		}
		return ok
	}, places...)
	r.after(4 * time.Second)
	slices.Sort(r.owed)
	r.wantOwed("OPENED ", "OPENED checks/c0005")
	if g := r.openGroups(); len(g) != 1 || g[0].GetShared().GetDimension() != "label.rack" || g[0].GetShared().GetValue() != "2" || len(g[0].GetAffectedChecks()) != 10 {
		t.Errorf("%v", g)
	}
}

func TestEachReceiverIsToldOfAGroupOnceAndOfItsOwnChecks(t *testing.T) {
	r, places := massRig(t, 30, func(i int, c *meshv1.Check) {
		c.Labels = map[string]string{"rack": "1"}
		c.Receivers = []string{fmt.Sprint("receivers/r", i%2)}
		if i >= 20 {
			c.Receivers = []string{"receivers/late"}
		}
	})
	r.some(func(i int) meshv1.Result_Outcome {
		if i < 20 {
			return fail
		}
		return meshv1.Result_SLOW // nothing is known of it yet
	}, places...)
	r.after(3 * time.Second)
	r.everybody(fail, places...)
	r.after(4 * time.Second)
	told := map[string]string{}
	for _, a := range r.acted {
		var out []*statev1.OutboxEntry
		switch a := a.(type) {
		case Open:
			out = a.Outbox
		case Escalate:
			out = a.Outbox
		}
		for _, o := range out {
			n := o.GetNotification()
			told[n.GetReceiver()] += fmt.Sprintf("%s %d %s;", n.GetTransition(), n.GetAffectedCount(), append(n.GetAffectedChecks(), "-")[0])
		}
	}
	want := map[string]string{"receivers/r0": "OPENED 10 checks/c0000;", "receivers/r1": "OPENED 10 checks/c0001;"}
	for k, v := range want {
		if told[k] != v {
			t.Errorf("%s was told %q, want %q", k, told[k], v)
		}
	}
	if !strings.HasPrefix(told["receivers/late"], "OPENED ") || strings.Count(told["receivers/late"], ";") != 1 || len(told) != 3 {
		t.Errorf("told %q", told)
	}
}

func TestCheckThatStaysDownAfterItsGroupIsToldOfByItself(t *testing.T) {
	r, places := massRig(t, 30, func(i int, c *meshv1.Check) { c.Labels = map[string]string{"rack": "1"} })
	r.everybody(fail, places...)
	r.after(4 * time.Second)
	for range 12 {
		r.some(func(i int) meshv1.Result_Outcome {
			if i == 3 {
				return fail
			}
			return ok
		}, places...)
		r.after(20 * time.Second)
	}
	r.wantOwed("OPENED ", "OPENED checks/c0003", "RESOLVED ")
	for range 6 {
		r.everybody(ok, places...)
		r.after(20 * time.Second)
	}
	r.wantOwed("OPENED ", "OPENED checks/c0003", "RESOLVED ", "RESOLVED checks/c0003")
}

func TestNothingSharedIsToldOneByOneUpToTheBudgetAndTheRestTogether(t *testing.T) {
	r, places := massRig(t, 110, func(int, *meshv1.Check) {})
	// Spread over networks, so that nothing is shared.
	for i, n := range r.s.Names() {
		for _, d := range places {
			r.apply(Cast{Prober: d + "-1", Result: &meshv1.Result{Check: n, StartTime: timestamppb.New(r.now), Outcome: ok, CheckRevision: r.s.checks[n].workHash, RemoteAddress: fmt.Sprintf("10.0.%d.7:80", i)}})
		}
	}
	r.after(time.Second)
	for _, d := range places {
		for i := range 90 {
			n := fmt.Sprintf("checks/c%04d", i)
			r.apply(Cast{Prober: d + "-1", Result: &meshv1.Result{Check: n, StartTime: timestamppb.New(r.now), Outcome: fail, CheckRevision: r.s.checks[n].workHash, RemoteAddress: fmt.Sprintf("10.0.%d.7:80", i)}})
		}
	}
	r.after(4 * time.Second)
	group := 0
	for _, o := range r.owed {
		if o == "OPENED " {
			group++
		}
	}
	if len(r.owed) != toldBurst+1 || group != 1 {
		t.Fatalf("%d owed, %d of them a group's: %q", len(r.owed), group, r.owed)
	}
	g := r.openGroups()
	t.Log(g[0].GetSummary())
	if g[0].GetShared().GetSide() != meshv1.SharedCause_NOTHING || g[0].GetAffectedCount() != 90-toldBurst {
		t.Errorf("%v", g)
	}
}

func TestSiteOfProbersThatSeesEverythingFailPagesNobody(t *testing.T) {
	// Credibility, which would set the site aside before anything opens, is made to take no notice: grouping must hold alone.
	r, places := massRig(t, 60, func(_ int, c *meshv1.Check) { c.Quorum = 2 })
	r.s.book = credibility.New(credibility.Config{Threshold: 1e9})
	for range 4 {
		r.everybody(fail, places[:2]...)
		r.everybody(ok, places[2:]...)
		r.after(4 * time.Second)
	}
	if len(r.owed) != 1 || r.owed[0] != "OPENED " {
		t.Fatalf("owed %q", r.owed)
	}
	for k, b := range r.s.mass.blames {
		t.Log(k, b.incident.GetIncident().GetSummary())
	}
	r.want("c0004", "DEGRADED NOT_DISTINCT")
	// A target that fails for everybody opens all the same.
	r.votes("c0011", fail, places...)
	r.after(3 * time.Second)
	r.wantOwed("OPENED ", "OPENED checks/c0011")
	// The next leader knows who is to blame.
	r.apply(Leadership{Term: 1})
	r.apply(Leadership{Leading: true, Term: 2})
	r.after(10 * time.Second)
	r.wantOwed("OPENED ", "OPENED checks/c0011")
	for range 5 {
		r.some(func(i int) meshv1.Result_Outcome {
			if i == 11 {
				return fail
			}
			return ok
		}, places...)
		r.after(20 * time.Second)
	}
	r.wantOwed("OPENED ", "OPENED checks/c0011", "RESOLVED ")
}

// A leader that dies after the group was opened, before its members were, loses none of them and tells nobody twice.
func TestLeaderThatDiesBetweenAGroupAndItsMembersLosesNothing(t *testing.T) {
	r, places := massRig(t, 100, func(i int, c *meshv1.Check) { c.Labels = map[string]string{"rack": "1"} })
	r.everybody(fail, places...)
	r.held = true
	r.after(1900 * time.Millisecond)
	var open *Open
	for n := 0; n < 20 && open == nil; n++ {
		r.after(100 * time.Millisecond)
		for _, a := range r.acted {
			if o, is := a.(Open); is && IsGroup(o.Key) {
				open = &o
			}
		}
	}
	if open == nil {
		t.Fatal("no group was wished for")
	}
	// The store took it, and the next leader starts from the store alone.
	next := newRig(t)
	next.now = r.now
	next.apply(Leadership{Term: 1})
	events := []Event{Reset{}, ReceiverPut{Receiver: &meshv1.Receiver{Name: "receivers/mesh", MeshIncidents: true}}}
	for i, n := range r.s.Names() {
		events = append(events, CheckPut{Check: r.s.checks[n].spec, ModRevision: int64(i + 1)})
	}
	events = append(events, IncidentPut{Key: open.Key, Incident: open.Incident, ModRevision: 7})
	for _, d := range places {
		events = append(events, next.prober(d+"-1", d), ProberOnline{Name: d + "-1", Server: "servers/a"})
	}
	next.apply(events...)
	next.after(2 * time.Second)
	next.apply(Leadership{Leading: true, Term: 2})
	next.everybody(fail, places...)
	next.after(12 * time.Second)
	next.wantOwed()
	if n := len(next.s.mass.groups[open.Key].members); n != 100 {
		t.Errorf("%d members", n)
	}
}

func TestMemberOfAGroupThatIsGoneIsToldOfByItself(t *testing.T) {
	r, places := massRig(t, 30, func(i int, c *meshv1.Check) { c.Labels = map[string]string{"rack": "1"} })
	r.everybody(fail, places...)
	r.after(4 * time.Second)
	r.owed = nil
	for k := range r.s.mass.groups {
		r.apply(IncidentGone{Key: k})
	}
	r.after(2 * time.Second)
	if len(r.owed) != 30 {
		t.Errorf("%d of 30 were told of", len(r.owed))
	}
}

// 5,000 checks that fail together for one shared cause, on either side. The figures are in docs/benchmarks.md.
func TestFiveThousandChecksFailTogether(t *testing.T) {
	for _, side := range []string{"host", "label", "site"} {
		r, places := massRig(t, 5000, func(i int, c *meshv1.Check) {
			switch side {
			case "host":
				c.Uri = fmt.Sprint("tcp://db1.example.com:", 1000+i)
			case "label":
				c.Labels = map[string]string{"rack": "1"}
			case "site":
				c.Quorum = 2
			}
		})
		begin, spent := r.now, time.Now()
		r.everybody(fail, map[bool][]string{true: places[:2], false: places}[side == "site"]...)
		if side == "site" {
			r.everybody(ok, places[2:]...)
			r.after(2 * time.Second)
			r.everybody(fail, places[:2]...)
		}
		r.after(5 * time.Second)
		cpu := time.Since(spent)
		w, took := r.written(), r.now.Sub(begin)
		n := 0
		for _, k := range w {
			n += k
		}
		if len(r.owed) != 1 {
			t.Errorf("%s: %d notifications: %.300q", side, len(r.owed), r.owed)
		}
		if n > 140 {
			t.Errorf("%s: %d transactions: %v", side, n, w)
		}
		// Five probers are asked for 200 runs at once and 50 a second each at most.
		if most := 5 * (200 + int(50*took.Seconds()) + 1); len(r.asked) > most {
			t.Errorf("%s: %d runs, the budget is %d", side, len(r.asked), most)
		}
		t.Logf("%s: %d notifications, %d transactions %v, %d runs asked for in %s (%d refused by budgets), %s of CPU", side, len(r.owed), n, w, len(r.asked), took,
			r.s.Counters.ConfirmationsRefused, cpu.Round(time.Millisecond))
	}
}
