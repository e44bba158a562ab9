package scheduler

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A prober of an older build would refuse the check, or run a part of it: it is given to others.
func TestACheckWithANewOptionGoesToProbersThatKnowIt(t *testing.T) {
	const option = "HttpProbe.send_body_to_other_hosts"
	r := newRig(t)
	prober := func(name string, capabilities ...string) {
		r.apply(EnrolmentPut{&statev1.Enrolment{Name: "probers/" + name, Datacenter: "ams", Build: "1.0", Capabilities: append(capabilities, "http", "ipv4")}},
			ProberOnline{Name: name, Server: "servers/a"})
		r.after(2 * time.Minute)
	}
	check := func(name string, o *meshv1.HttpProbe) {
		r.check(&meshv1.Check{Name: "checks/" + name, Uri: "http://a.example", Http: o, Interval: durationpb.New(10 * time.Second), Probers: 2, Quorum: 1})
	}
	prober("old-1")
	prober("old-2")
	check("plain", &meshv1.HttpProbe{Body: "x"})
	check("new", &meshv1.HttpProbe{Body: "x", SendBodyToOtherHosts: true})
	r.after(time.Minute)
	if len(r.s.Assignments("old-1")) != 1 || len(r.s.Assignments("old-2")) != 1 {
		t.Errorf("the old probers run %v and %v, want checks/plain each", r.s.Assignments("old-1"), r.s.Assignments("old-2"))
	}
	r.wantText("new", "2 of 2 places are empty: no other prober that is in service there can run kind http with "+option)
	prober("new-1", option)
	r.after(time.Minute)
	if a := r.s.Assignments("new-1"); a["checks/new"] == nil {
		t.Errorf("the prober that knows the option runs %v", a)
	}
	r.wantText("new", "1 of 2 places is empty")
}
