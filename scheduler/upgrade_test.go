package scheduler

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Where most datacenters run a build on trial already, no check must be left to that build while others could look at it too.
func TestUpgradeOfMostDatacentersLeavesNoCheckToABuildOnTrial(t *testing.T) {
	r := newRig(t)
	r.trying = true
	for i, g := range []meshv1.Build_Stage{meshv1.Build_SETTLED, meshv1.Build_SHADOW} {
		b := fmt.Sprint(i + 1)
		r.apply(BuildPut{Build: &meshv1.Build{Name: BuildName(b), Build: b, Stage: g, StageTime: timestamppb.New(r.now)}, ModRevision: 1})
	}
	for d := range 6 {
		name := fmt.Sprintf("dc%d-1", d)
		r.apply(EnrolmentPut{Enrolment: &statev1.Enrolment{Name: "probers/" + name, Datacenter: fmt.Sprint("dc", d), Build: fmt.Sprint(1 + min(1, d/2)), Capabilities: []string{"tcp", "ipv4"}}},
			ProberOnline{Name: name, Server: "servers/a"})
	}
	r.after(2 * time.Second)
	compared := 0
	for i := range 40 {
		c := tcpCheck(fmt.Sprintf("c%04d", i), 2)
		c.Probers = 3
		r.check(c)
		r.after(time.Second)
		trusted := 0
		for _, v := range r.s.checks[c.Name].votes {
			r.vote(fmt.Sprintf("c%04d", i), v.Prober, fail)
			if v.Trial == 0 {
				trusted++
			} else {
				compared++
			}
		}
		r.after(3 * time.Second)
		if trusted < 2 {
			t.Errorf("%s: %d trusted, %s", c.Name, trusted, r.verdict(fmt.Sprintf("c%04d", i)))
		}
	}
	if compared < 20 {
		t.Errorf("the build on trial is compared %d times only", compared)
	}
}
