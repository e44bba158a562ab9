package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// Whatever is going on among the probers, an outage that everybody sees is told of, or the mesh says that it cannot judge the check.
func TestWhateverGoesOnAnOutageForAllIsToldOf(t *testing.T) {
	run := func(x matrix) {
		if int(x.quorum) <= x.dcs {
			t.Run(fmt.Sprintf("%+v", x), x.run)
		}
	}
	for _, dcs := range []int{1, 2, 4} {
		for _, checks := range []int{1, 20} {
			for quorum := range int32(3) {
				for _, aside := range []string{"", "datacenter=dc0"} {
					run(matrix{dcs: dcs, checks: checks, quorum: quorum, aside: aside, builds: 1})
					for _, builds := range []int{1, 2} {
						for _, stage := range []meshv1.Build_Stage{meshv1.Build_SHADOW, meshv1.Build_CANARY, meshv1.Build_HALTED} {
							run(matrix{dcs: dcs, checks: checks, quorum: quorum, aside: aside, builds: builds, stage: stage})
						}
					}
				}
				for _, open := range []string{"", blamePrefix + "site=p", groupPrefix + "label.rack=1"} {
					for _, meanwhile := range []string{"", "another leader", "no etcd"} {
						for _, builds := range []int{1, 2} {
							run(matrix{dcs: dcs, checks: checks, quorum: quorum, open: open, meanwhile: meanwhile, builds: builds, stage: meshv1.Build_SHADOW})
						}
					}
				}
			}
		}
	}
}

// matrix is one case: so many datacenters with a prober each, the last of them with the newest of the builds; what is set aside, which incident is open before the outage,
// and what happens in the middle of it.
type matrix struct {
	dcs, checks, builds    int
	quorum                 int32
	stage                  meshv1.Build_Stage
	aside, open, meanwhile string
}

func (x matrix) run(t *testing.T) {
	r := newRig(t)
	r.s.cfg.Crowd = 20
	r.trying = true
	r.apply(ReceiverPut{Receiver: &meshv1.Receiver{Name: "receivers/mesh", MeshIncidents: true}})
	stages := []meshv1.Build_Stage{meshv1.Build_SETTLED, x.stage}
	if x.stage != 0 {
		for i, g := range stages {
			b := fmt.Sprint(i + 1)
			r.apply(BuildPut{Build: &meshv1.Build{Name: BuildName(b), Build: b, Stage: g, StageTime: timestamppb.New(r.now)}, ModRevision: 1})
		}
	}
	var probers []string
	for d := range x.dcs {
		place, build, site := fmt.Sprint("dc", d), "2", "q"
		if x.builds == 2 && d%2 == 0 {
			build = "1"
		}
		if d < 2 {
			site = "p"
		}
		probers = append(probers, place+"-1")
		r.apply(EnrolmentPut{Enrolment: &statev1.Enrolment{Name: "probers/" + place + "-1", Datacenter: place, Build: build,
			Labels: map[string]string{"site": site, "provider": "x"}, Capabilities: []string{"tcp", "ipv4"}}}, ProberOnline{Name: place + "-1", Server: "servers/a"})
	}
	r.after(2 * time.Second)
	for i := range x.checks {
		c := tcpCheck(fmt.Sprintf("c%04d", i), x.quorum)
		c.Labels = map[string]string{"rack": "1"}
		r.check(c)
	}
	r.after(2 * time.Second)
	all := func(o meshv1.Result_Outcome) {
		for _, p := range probers {
			for _, n := range r.s.Names() {
				if r.s.checks[n].seatOf(p) >= 0 {
					r.vote(strings.TrimPrefix(n, "checks/"), p, o)
				}
			}
		}
	}
	all(ok)
	r.after(20 * time.Second)
	mesh := &meshv1.Incident{Name: "incidents/a", Kind: meshv1.Incident_MESH, State: meshv1.Incident_OPEN, OpenTime: timestamppb.New(r.now), StartTime: timestamppb.New(r.now)}
	if dimension, value, is := strings.Cut(x.aside, "="); is && x.dcs > 1 {
		mesh.Reason, mesh.SetAside = meshv1.CheckStatus_SUSPECT_PROBERS, &meshv1.SetAside{Dimension: dimension, Value: value}
		r.apply(IncidentPut{Key: suspectPrefix + x.aside, Incident: &statev1.StoredIncident{Incident: mesh}, ModRevision: 1})
	}
	all(ok)
	r.after(20 * time.Second)
	if x.open != "" {
		what := x.open[strings.LastIndexAny(x.open, "-_")+1:]
		dimension, value, _ := strings.Cut(what, "=")
		mesh.Reason, mesh.Receivers, mesh.OpenTime = meshv1.CheckStatus_SHARED_CAUSE, []string{"receivers/ops"}, timestamppb.New(r.now)
		mesh.Shared = &meshv1.SharedCause{Dimension: dimension, Value: value, Members: 20}
		r.apply(IncidentPut{Key: x.open, Incident: &statev1.StoredIncident{Incident: mesh}, ModRevision: 1})
	}
	r.owed = nil
	for n := range 10 {
		all(fail)
		if n == 0 {
			r.after(300 * time.Millisecond)
			switch x.meanwhile {
			case "another leader":
				r.apply(Leadership{Term: 1})
				r.after(time.Second)
				r.apply(Leadership{Leading: true, Term: 2})
			case "no etcd":
				r.held = true
				r.apply(Store{Lost: true, Since: r.now})
				r.after(12 * time.Second)
				r.held = false
				r.apply(Store{})
			}
		}
		r.after(15 * time.Second)
	}
	for _, n := range r.s.Names() {
		c := r.s.checks[n]
		grouped := c.incident.GetIncident().GetGroup() != "" && (x.open != "" || slices.Contains(r.owed, "OPENED "))
		if !grouped && !slices.Contains(r.owed, "OPENED "+n) && (r.s.mesh.incident == nil || c.shown != verdict.Unknown) {
			t.Fatalf("%s: %s, blind %v, owed %q", n, r.verdict(strings.TrimPrefix(n, "checks/")), r.s.mesh.incident != nil, r.owed)
		}
	}
	seen := map[string]int{}
	for _, o := range r.owed {
		if seen[o]++; seen[o] > 1 && o != "OPENED " && o != "RESOLVED " {
			t.Fatalf("told twice: %q", r.owed)
		}
	}
}
