package scheduler

import (
	"slices"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// fence has the probers of datacenters say that they may not connect to the target.
func (r *rig) fence(check string, datacenters ...string) {
	for _, d := range datacenters {
		r.result(check, d, func(m *meshv1.Result) {
			m.Outcome, m.ErrorClass, m.Error = meshv1.Result_ERROR, meshv1.Result_PROBER, "this prober may not connect to 169.254.169.254, which --deny-networks forbids."
		})
	}
}

func TestACheckThatProbersMayNotProbeDoesNotPageTheMeshsOnCall(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.apply(ReceiverPut{&meshv1.Receiver{Name: "receivers/oncall", MeshIncidents: true}})
	r.check(tcpCheck("meta", 2))
	for range 20 {
		r.votes("shop", ok, "ams", "fra", "iad")
		r.fence("meta", "ams", "fra", "iad")
		r.after(30 * time.Second)
	}
	r.want("meta", "UNKNOWN PROBER_ERRORS")
	r.wantOwed()
	u := r.s.Unjudged(r.now)
	if len(u.Blind) != 0 || !slices.Equal(u.Forbidden, []string{"checks/meta"}) || !strings.HasSuffix(u.ForbiddenBy, "-1: this prober may not connect to 169.254.169.254, which --deny-networks forbids") {
		t.Errorf("%+v", u)
	}
}

// Two of three may not: the third alone is no quorum of two, whether it is heard or not. One of three: it is the silence of another that blinds the check.
func TestOnlyRefusalsThatLeaveNoQuorumExcuseTheMesh(t *testing.T) {
	for _, c := range []struct {
		refusing, silent string
		pages            bool
	}{{"ams fra", "iad", false}, {"ams fra", "", false}, {"ams", "iad", true}} {
		t.Run(c.refusing+"/"+c.silent, func(t *testing.T) {
			r := up(t, tcpCheck("shop", 2))
			r.apply(ReceiverPut{&meshv1.Receiver{Name: "receivers/oncall", MeshIncidents: true}})
			if c.silent != "" {
				r.apply(ProberOffline{Name: c.silent + "-1"})
			}
			for range 20 {
				for _, d := range []string{"ams", "fra", "iad"} {
					switch {
					case strings.Contains(c.refusing, d):
						r.fence("shop", d)
					case d != c.silent:
						r.votes("shop", ok, d)
					}
				}
				r.after(30 * time.Second)
			}
			if got := r.s.mesh.incident != nil; got != c.pages {
				t.Errorf("%s: the mesh's incident is open: %t, want %t; %+v", r.verdict("shop"), got, c.pages, r.s.Unjudged(r.now))
			}
		})
	}
}

// A prober whose own network fails reports errors of the same class: that is the mesh's to mend.
func TestErrorsOfProbersThatAreNoRefusalPageTheMeshsOnCall(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.apply(ReceiverPut{&meshv1.Receiver{Name: "receivers/oncall", MeshIncidents: true}})
	for range 20 {
		for _, d := range []string{"ams", "fra", "iad"} {
			r.result("shop", d, func(m *meshv1.Result) {
				m.Outcome, m.ErrorClass, m.Error = meshv1.Result_ERROR, meshv1.Result_PROBER, "no canary answers over IPv4"
			})
		}
		r.after(30 * time.Second)
	}
	r.wantOwed("OPENED ")
	if u := r.s.Unjudged(r.now); !slices.Equal(u.Blind, []string{"checks/shop"}) || len(u.Forbidden) != 0 || len(u.Silent)+len(u.Aside) != 0 {
		t.Errorf("%+v", u)
	}
}

func TestOnlyProbersThatRunBlindChecksAreNamedAsMissing(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.probers("syd") // runs nothing of shop
	r.check(&meshv1.Check{Name: "checks/shop", Uri: "tcp://shop.example.com:80", Interval: tcpCheck("shop", 2).Interval, Timeout: tcpCheck("shop", 2).Timeout, Quorum: 2,
		Datacenters: []string{"ams", "fra", "iad"}})
	r.apply(ReceiverPut{&meshv1.Receiver{Name: "receivers/oncall", MeshIncidents: true}})
	r.votes("shop", ok, "ams", "fra", "iad")
	// What an incident sets aside is told in suspects_test.go; here it is enough that the roster says so.
	r.s.roster.probers["ams-1"].aside, r.s.roster.probers["iad-1"].aside = "provider=x", "provider=x"
	c := r.s.checks["checks/shop"]
	for i := range c.votes {
		c.votes[i].Aside = c.votes[i].Prober != "fra-1"
	}
	r.apply(ProberOffline{Name: "syd-1"})
	for range 20 {
		r.votes("shop", ok, "ams", "fra", "iad")
		r.after(30 * time.Second)
	}
	u := r.s.Unjudged(r.now)
	if !slices.Equal(u.Blind, []string{"checks/shop"}) || !slices.Equal(u.Aside, []string{"probers/ams-1", "probers/iad-1"}) || len(u.Silent) != 0 {
		t.Fatalf("%s %+v", r.verdict("shop"), u)
	}
	r.apply(ProberOffline{Name: "iad-1"})
	u = r.s.Unjudged(r.now)
	if !slices.Equal(u.Aside, []string{"probers/ams-1"}) || !slices.Equal(u.Silent, []string{"probers/iad-1"}) {
		t.Errorf("%+v", u)
	}
}

func TestTheMeshsIncidentNamesWhoIsSetAside(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	for _, p := range []string{"ams-1", "fra-1"} {
		r.s.roster.probers[p].aside = "datacenter=a"
	}
	if got := r.s.blindSentence([]string{"checks/shop"}); got != "The mesh is blind: 1 check cannot be judged for want of votes; 2 probers are set aside (datacenter=a)." {
		t.Error(got)
	}
}
