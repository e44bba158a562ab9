package scheduler

import (
	"strings"
	"testing"
	"time"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/credibility"
)

func TestAMistypedDatacenterIsSaidUntilSomebodyIsEnrolledThere(t *testing.T) {
	r := newRig(t)
	r.probers("ams", "fra")
	c := tcpCheck("shop", 1)
	c.Probers, c.Datacenters = 2, []string{"ams", "frra"}
	r.check(c)
	warnings := func() []string {
		st, _ := r.s.Status("checks/shop", r.now, false)
		return st.GetWarnings()
	}
	if got := warnings(); len(got) != 1 || got[0] != `datacenters[1] is "frra", where no prober is enrolled; did you mean "fra"?` {
		t.Errorf("warnings %q", got)
	}
	r.wantText("shop", "\nWarnings\n  datacenters[1] is \"frra\"")
	r.probers("frra")
	if got := warnings(); got != nil {
		t.Errorf("still warned of: %q", got)
	}
	r.apply(EnrolmentGone{Name: "probers/frra-1"})
	if got := warnings(); len(got) != 1 {
		t.Errorf("nobody is enrolled there any more: %q", got)
	}
}

func TestWhatTheCallerWarnsOfIsExplained(t *testing.T) {
	r := newRig(t)
	r.probers("ams")
	r.check(tcpCheck("shop", 1))
	e, _ := r.s.Explain("checks/shop", r.now, "ams-1 refuses to run it: no")
	if w := e.GetStatus().GetWarnings(); len(w) != 1 || !strings.Contains(e.GetText(), "\nWarnings\n  ams-1 refuses to run it: no\n") {
		t.Errorf("warnings %q in\n%s", w, e.GetText())
	}
	if got := r.s.Runners("checks/shop"); len(got) != 1 || got[0] != "ams-1" {
		t.Errorf("runners %q", got)
	}
}

func TestAnEmptyPlaceNamesWhoCannotFillItAndWhy(t *testing.T) {
	r := newRig(t)
	r.probers("ams", "fra")
	r.apply(EnrolmentPut{&statev1.Enrolment{Name: "probers/iad-1", Datacenter: "iad", Build: "1.0", Capabilities: []string{"icmp", "ipv4"}}}, ProberOnline{Name: "iad-1", Server: "servers/a"})
	c := tcpCheck("shop", 1)
	c.Uri, c.Probers = "icmp://shop.example.com", 3
	r.check(c)
	r.after(2 * time.Second)
	r.wantText("shop", "2 of 3 places are empty")
	r.wantText("shop", "ams-1, fra-1 cannot run it for want of icmp; allow the prober's group in net.ipv4.ping_group_range, or give it CAP_NET_RAW")
}

func TestTheIncidentOfASetAsideProberKeepsWhatItSaidBesideTheOthers(t *testing.T) {
	r, places := suspectRig(t)
	round(r, places, func(string, int) meshv1.Result_Outcome { return ok })
	for range 8 {
		round(r, places, func(d string, n int) meshv1.Result_Outcome {
			if d == "nrt" && n != 0 {
				return fail
			}
			return ok
		})
	}
	x := r.s.suspects[suspectKey(credibility.Domain{Dimension: "prober", Value: "nrt-1"})]
	if x == nil || x.incident == nil {
		t.Fatalf("set aside: %q", asideOf(r))
	}
	list := x.incident.GetIncident().GetSetAside().GetComparisons()
	if len(list) < 3 || len(list) > 10 {
		t.Fatalf("%d comparisons: %v", len(list), list)
	}
	for _, c := range list {
		if c.GetCheck() == "checks/c0" || !strings.HasPrefix(c.GetUri(), "tcp://host") {
			t.Errorf("compared on %s, %s", c.GetCheck(), c.GetUri())
		}
		if in := c.GetInside(); len(in) != 1 || in[0].GetProber() != "probers/nrt-1" || in[0].GetOutcome() != fail || in[0].GetError() != "connection refused" {
			t.Errorf("inside: %v", in)
		}
		if len(c.GetOutside()) != 4 {
			t.Errorf("outside: %v", c.GetOutside())
		}
		for _, out := range c.GetOutside() {
			if out.GetOutcome() != ok || out.GetProber() == "probers/nrt-1" {
				t.Errorf("outside: %v", out)
			}
		}
	}
}

func TestAVoteSaysThatItsProberIsSilent(t *testing.T) {
	r := newRig(t)
	r.probers("ams", "fra")
	r.check(tcpCheck("shop", 1))
	r.votes("shop", ok, "ams")
	r.votes("shop", fail, "fra")
	r.apply(ProberOffline{Name: "fra-1"})
	r.after(90 * time.Second)
	r.wantText("shop", "does not count: stale; the prober has had no session for 1m30s\n    connection refused")
	if e, _ := r.s.Explain("checks/shop", r.now); strings.Count(e.GetText(), "no session") != 1 {
		t.Errorf("said of others too:\n%s", e.GetText())
	}
}
