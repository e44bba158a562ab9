package scheduler

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/credibility"
)

// suspectRig is a mesh of five datacenters with one prober each and twelve checks of different hosts, everywhere up.
func suspectRig(t *testing.T) (*rig, []string) {
	r := newRig(t)
	r.apply(ReceiverPut{Receiver: &meshv1.Receiver{Name: "receivers/mesh", MeshIncidents: true}})
	places := []string{"ams", "fra", "iad", "nrt", "syd"}
	for i, d := range places {
		build := "1.0"
		if i == 3 {
			build = "2.0"
		}
		r.apply(EnrolmentPut{Enrolment: &statev1.Enrolment{Name: "probers/" + d + "-1", Datacenter: d, Build: build, Capabilities: []string{"tcp", "ipv4"}}},
			ProberOnline{Name: d + "-1", Server: "servers/a"})
	}
	r.after(2 * time.Second)
	for i := range 12 {
		c := tcpCheck(fmt.Sprint("c", i), 3)
		c.Uri, c.Probers = fmt.Sprintf("tcp://host%d.example.com:80", i), 5
		r.check(c)
	}
	return r, places
}

// round has everybody vote on every check; says what a prober of the datacenter sees.
func round(r *rig, places []string, says func(datacenter string, check int) meshv1.Result_Outcome) {
	for i := range 12 {
		for _, d := range places {
			r.votes(fmt.Sprint("c", i), says(d, i), d)
		}
		r.after(100 * time.Millisecond)
	}
	r.after(2 * time.Second)
}

func asideOf(r *rig) (list []string) {
	for _, p := range r.s.Probers() {
		if m, _ := r.s.Prober(p); m.GetSetAside() != "" {
			list = append(list, p+" for "+m.GetSetAside()+" "+m.GetState().String())
		}
	}
	return list
}

func TestProberThatSeesEverythingFailIsSetAsideAndNobodyIsPagedForChecks(t *testing.T) {
	r, places := suspectRig(t)
	round(r, places, func(string, int) meshv1.Result_Outcome { return ok })
	r.owed = nil
	for range 8 {
		round(r, places, func(d string, _ int) meshv1.Result_Outcome {
			if d == "nrt" {
				return fail
			}
			return ok
		})
	}
	if got := asideOf(r); len(got) != 1 || got[0] != "nrt-1 for prober=nrt-1 QUARANTINED" {
		t.Fatalf("set aside: %q", got)
	}
	if len(r.owed) != 1 || !strings.HasPrefix(r.owed[0], "OPENED") {
		t.Fatalf("owed %q, want one incident of the mesh and none of a check", r.owed)
	}
	x := r.s.suspects[suspectKey(credibility.Domain{Dimension: "prober", Value: "nrt-1"})]
	if x == nil || x.incident.GetIncident().GetReason() != meshv1.CheckStatus_SUSPECT_PROBERS || x.incident.GetIncident().GetSetAside().GetFailedShare() != 1 {
		t.Fatalf("%+v", x)
	}
	t.Log(x.incident.GetIncident().GetSummary())
	if m, _ := r.s.Prober("nrt-1"); !m.GetStateTime().AsTime().Equal(x.incident.GetIncident().GetOpenTime().AsTime()) {
		t.Errorf("it is set aside since %v, and the incident is open since %v", m.GetStateTime().AsTime(), x.incident.GetIncident().GetOpenTime().AsTime())
	}
	st, _ := r.s.Status("checks/c0", r.now, true)
	for _, v := range st.GetVotes() {
		if aside := v.GetSetAside() != ""; aside != (v.GetDatacenter() == "nrt") || aside && v.GetFresh() {
			t.Errorf("vote of %s: set aside %q, fresh %t", v.GetProber(), v.GetSetAside(), v.GetFresh())
		}
	}
	// A real outage is opened without it.
	r.votes("c5", fail, "ams", "fra", "iad", "syd")
	r.after(2 * patience)
	if len(r.owed) != 2 || r.owed[1] != "OPENED checks/c5" {
		t.Fatalf("owed %q", r.owed)
	}
}

func TestProberThatSeesEverythingAnswerIsSetAsideToo(t *testing.T) {
	r, places := suspectRig(t)
	for range 4 {
		round(r, places, func(string, int) meshv1.Result_Outcome { return ok })
		// Four targets fail, and one prober does not see it.
		for range 8 {
			round(r, places, func(d string, i int) meshv1.Result_Outcome {
				if i < 5 && d != "syd" {
					return fail
				}
				return ok
			})
		}
	}
	if got := asideOf(r); len(got) != 1 || !strings.HasPrefix(got[0], "syd-1") {
		t.Fatalf("set aside: %q", got)
	}
}

func TestWhatIsSetAsideComesBackAndTheNextLeaderKnowsIt(t *testing.T) {
	r, places := suspectRig(t)
	round(r, places, func(string, int) meshv1.Result_Outcome { return ok })
	for range 8 {
		round(r, places, func(d string, _ int) meshv1.Result_Outcome {
			if d == "nrt" {
				return fail
			}
			return ok
		})
	}
	if len(asideOf(r)) != 1 {
		t.Fatalf("set aside: %q", asideOf(r))
	}
	r.apply(Leadership{Term: 1})
	r.apply(Leadership{Leading: true, Term: 2})
	for i := 0; len(asideOf(r)) > 0; i++ {
		if i == 400 {
			t.Fatal("it does not come back")
		}
		round(r, places, func(string, int) meshv1.Result_Outcome { return ok })
	}
	if away := r.now.Sub(epoch); away < 5*time.Minute {
		t.Errorf("it was back after %s", away)
	}
	if last := r.owed[len(r.owed)-1]; !strings.HasPrefix(last, "RESOLVED") {
		t.Errorf("owed %q", r.owed)
	}
}

func TestRealOutageSeenFromSomePlacesOnlySetsNobodyAside(t *testing.T) {
	r, places := suspectRig(t)
	for range 30 {
		round(r, places, func(d string, i int) meshv1.Result_Outcome {
			if i < 2 && (d == "nrt" || d == "syd") {
				return fail
			}
			return ok
		})
	}
	if got := asideOf(r); len(got) != 0 {
		t.Fatalf("set aside: %q", got)
	}
}

// Every target goes down and comes back, again and again, each time just after one and the same prober has probed it: what that one says last is what the others
// said before, so it is nobody's fault.
func TestProberThatProbesJustBeforeTargetsChangeIsNotSetAside(t *testing.T) {
	r, places := suspectRig(t)
	round(r, places, func(string, int) meshv1.Result_Outcome { return ok })
	was := ok
	for range 6 {
		now := fail
		if was == fail {
			now = ok
		}
		// The first of each round still sees what was; the others come after the change.
		round(r, append([]string{"nrt"}, "ams", "fra", "iad", "syd"), func(d string, _ int) meshv1.Result_Outcome {
			if d == "nrt" {
				return was
			}
			return now
		})
		round(r, places, func(string, int) meshv1.Result_Outcome { return now })
		was = now
	}
	if got := asideOf(r); len(got) != 0 {
		t.Errorf("set aside: %q", got)
	}
}

// The same, but what that prober saw arrives last: a result that has not changed waits up to a second for company, and all others' failures, asked for at once, do not.
func TestProberWhoseLastAnswersArriveAfterAllOthersFailuresIsNotSetAside(t *testing.T) {
	r, places := suspectRig(t)
	others := []string{"ams", "fra", "iad", "syd"}
	was := ok
	round(r, places, func(string, int) meshv1.Result_Outcome { return ok })
	for range 6 {
		now := fail
		if was == fail {
			now = ok
		}
		probed := r.now
		r.after(50 * time.Millisecond)
		round(r, others, func(string, int) meshv1.Result_Outcome { return now })
		for i := range 12 {
			name := fmt.Sprint("checks/c", i)
			r.apply(Cast{Prober: "nrt-1", Result: &meshv1.Result{Check: name, StartTime: timestamppb.New(probed), Outcome: was, CheckRevision: r.s.checks[name].workHash}})
		}
		for range 2 {
			round(r, places, func(string, int) meshv1.Result_Outcome { return now })
		}
		was = now
	}
	if got := asideOf(r); len(got) != 0 || r.s.Counters.Dissents != 0 {
		t.Errorf("set aside: %q after %d dissents", got, r.s.Counters.Dissents)
	}
}

// Outages that are shorter than the interval, seen by one datacenter before the prober and by one after it: both have seen the same.
func TestProberThatSawAShortOutageBetweenTwoOthersIsNotSetAside(t *testing.T) {
	r, _ := suspectRig(t)
	for i := range 12 {
		c := tcpCheck(fmt.Sprint("c", i), 2)
		c.Uri, c.Probers, c.Datacenters = fmt.Sprintf("tcp://host%d.example.com:80", i), 3, []string{"ams", "fra", "nrt"}
		r.check(c)
	}
	places := []string{"ams", "nrt", "fra"}
	for range 6 {
		for _, seen := range []meshv1.Result_Outcome{ok, fail} {
			for i := range 12 {
				for _, d := range places {
					r.votes(fmt.Sprint("c", i), seen, d)
					r.after(50 * time.Millisecond)
				}
			}
			r.after(time.Second)
		}
	}
	if got := asideOf(r); len(got) != 0 {
		t.Errorf("set aside: %q", got)
	}
}

// A prober that was cut off brings failures back that nobody else has seen: they were those of its connection.
func TestAProberThatWasCutOffIsNotSuspectForWhatItSawThen(t *testing.T) {
	r, places := suspectRig(t)
	allOK := func(string, int) meshv1.Result_Outcome { return ok }
	round(r, places, allOK)
	for range 3 {
		r.apply(ProberOffline{Name: "nrt-1", Unheard: true})
		round(r, places[:3], allOK)
		probed := r.now
		r.after(time.Second)
		r.apply(ProberOnline{Name: "nrt-1", Server: "servers/a"})
		for i := range 12 {
			name := fmt.Sprint("checks/c", i)
			r.apply(Cast{Prober: "nrt-1", Result: &meshv1.Result{Check: name, StartTime: timestamppb.New(probed), Outcome: fail, CheckRevision: r.s.checks[name].workHash}})
		}
		round(r, []string{"ams", "fra", "iad", "syd"}, allOK)
		round(r, places, allOK)
	}
	if got := asideOf(r); len(got) != 0 || r.s.Counters.Dissents != 0 {
		t.Errorf("set aside: %q after %d dissents", got, r.s.Counters.Dissents)
	}
}

// The same, seen from the server that was cut off with the prober: it hears the others' votes again, and they contradict all that its own prober has seen.
func TestAServerThatWasCutOffDoesNotSuspectItsOwnProber(t *testing.T) {
	r, places := suspectRig(t)
	allOK := func(string, int) meshv1.Result_Outcome { return ok }
	round(r, places, allOK)
	others := []string{"ams", "fra", "iad", "syd"}
	for range 3 {
		for _, d := range others {
			r.apply(ProberOffline{Name: d + "-1", Unheard: true})
		}
		round(r, []string{"nrt"}, func(string, int) meshv1.Result_Outcome { return fail })
		for _, d := range others {
			r.apply(ProberOnline{Name: d + "-1", Server: "servers/a"})
		}
		round(r, others, allOK)
		round(r, places, allOK)
	}
	if got := asideOf(r); len(got) != 0 || r.s.Counters.Dissents != 0 {
		t.Errorf("set aside: %q after %d dissents", got, r.s.Counters.Dissents)
	}
}

// Thirty names are aliases of one target, which answers every second request, by chance. That is one target, however many names it has: no prober and no datacenter is doubted for it.
func TestManyNamesOfOneFlakyTargetSetNobodyAside(t *testing.T) {
	r, places := sharedRig(t, 30, aliasOf(edge))
	dice := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		for _, place := range places {
			for i, n := range r.s.Names() {
				outcome, class := ok, meshv1.Result_ErrorClass(0)
				if dice.IntN(2) == 0 {
					outcome, class = fail, meshv1.Result_EXPECTATION
				}
				r.apply(Cast{Prober: place + "-1", Result: r.said(i, n, outcome, class, aliasOf(edge))})
				r.now = r.now.Add(10 * time.Millisecond)
			}
		}
		r.after(time.Second)
	}
	if r.s.Counters.Dissents == 0 {
		t.Error("nobody ever dissented")
	}
	for key := range r.s.suspects {
		t.Errorf("%s is set aside", key)
	}
	for _, i := range r.acted {
		if o, is := i.(Open); is && o.Incident.GetIncident().GetSetAside() != nil {
			t.Errorf("%s", o.Incident.GetIncident().GetSummary())
		}
	}
}

// A mesh may watch nothing but the ports of one machine, written as its address. A prober behind a bad line is found there too.
func TestAProberIsComparedOnThePortsOfASingleAddress(t *testing.T) {
	if got, dissents := asideAfterFailuresOnPorts(t, 12); len(got) != 1 || got[0] != "nrt-1 for prober=nrt-1 QUARANTINED" {
		t.Fatalf("set aside: %q after %d dissents", got, dissents)
	}
}

// Where others are watched too, one machine may have a reason of its own: a firewall that took an address for an attacker.
func TestOneMachineThatDoesNotLikeAProberSetsNobodyAside(t *testing.T) {
	if got, dissents := asideAfterFailuresOnPorts(t, 6); len(got) != 0 || dissents == 0 {
		t.Fatalf("set aside: %q after %d dissents", got, dissents)
	}
}

// asideAfterFailuresOnPorts has a prober fail now and then on checks of ports of one address; the other ones of twelve are of hosts of their own.
func asideAfterFailuresOnPorts(t *testing.T, ports int) (aside []string, dissents int64) {
	r, places := suspectRig(t)
	for i := range ports {
		c := tcpCheck(fmt.Sprint("c", i), 3)
		c.Uri, c.Probers = fmt.Sprintf("tcp://192.0.2.7:%d", 8000+i), 5
		r.check(c)
	}
	dice := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		for i := range 12 {
			for _, place := range places {
				outcome := ok
				if i < ports && place == "nrt" && dice.IntN(4) == 0 {
					outcome = fail
				}
				check := fmt.Sprint("checks/c", i)
				r.apply(Cast{Prober: place + "-1", Result: &meshv1.Result{Check: check, StartTime: timestamppb.New(r.now), Outcome: outcome, CheckRevision: r.s.checks[check].workHash,
					RemoteAddress: addressOfPort(i, ports)}})
			}
			r.after(100 * time.Millisecond)
		}
		r.after(2 * time.Second)
	}
	return asideOf(r), int64(r.s.Counters.Dissents)
}

func addressOfPort(check, ports int) string {
	if check < ports {
		return fmt.Sprintf("192.0.2.7:%d", 8000+check)
	}
	return fmt.Sprintf("198.51.100.%d:80", check)
}
