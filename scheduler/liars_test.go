package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// said is what a prober says of a probe.
type said struct {
	outcome meshv1.Result_Outcome
	shift   time.Duration // of its start time
	old     bool          // it ran another revision of the check
}

// liar is how a prober tells of what is true.
type liar func(truth meshv1.Result_Outcome, chance *rand.Rand) []said

// theatre plays a mesh minute by minute: five datacenters with a prober each, twelve checks on hosts of their own, every prober in its place in the minute, confirmations
// answered after 50 ms.
type theatre struct {
	*rig
	places []string
	chance *rand.Rand
	lies   map[string]liar // by datacenter
	down   map[int]bool    // checks that really fail
	from   map[int]string  // checks that fail from one datacenter only
	paged  map[string]time.Time
}

func newTheatre(t *testing.T) *theatre {
	r, places := suspectRig(t)
	r.owed = nil
	p := &theatre{rig: r, places: places, chance: rand.New(rand.NewPCG(7, 7)), lies: map[string]liar{}, down: map[int]bool{}, from: map[int]string{}, paged: map[string]time.Time{}}
	p.enrol("nrt", "1.0", nil)
	return p
}

// enrol has a prober come back as something else.
func (p *theatre) enrol(place, build string, labels map[string]string) {
	e := proto.CloneOf(p.s.roster.probers[place+"-1"].enrolled)
	e.Build, e.Labels = build, labels
	p.apply(EnrolmentPut{Enrolment: e})
}

// probe has a prober probe, for a run if one was asked for.
func (p *theatre) probe(check int, place, run string) {
	truth := ok
	if p.down[check] || p.from[check] == place {
		truth = fail
	}
	list := []said{{outcome: truth}}
	if lie := p.lies[place]; lie != nil {
		list = lie(truth, p.chance)
	}
	c := p.s.checks[fmt.Sprint("checks/c", check)]
	for _, s := range list {
		revision := c.workHash
		if s.old {
			revision++
		}
		p.apply(Cast{Prober: place + "-1", Result: &meshv1.Result{Check: c.name, StartTime: timestamppb.New(p.now.Add(s.shift)), Outcome: s.outcome, CheckRevision: revision, RunId: run,
			Duration: durationpb.New(time.Millisecond)}})
	}
	p.note()
}

// note takes down when people were told of what, and answers confirmations.
func (p *theatre) note() {
	for _, o := range p.owed {
		if about, opened := strings.CutPrefix(o, "OPENED "); opened {
			if _, told := p.paged[about]; !told {
				p.paged[about] = p.now
			}
		}
	}
	p.owed = nil
	asked := p.asked
	p.asked = nil
	for _, a := range asked {
		p.after(50 * time.Millisecond)
		var i int
		_, err := fmt.Sscanf(a.Run.GetCheck(), "checks/c%d", &i)
		if err != nil {
			p.t.Fatal(err)
		}
		p.probe(i, strings.TrimSuffix(a.Prober, "-1"), a.Run.GetRunId())
	}
}

// play lets time pass.
func (p *theatre) play(d time.Duration) {
	begin := p.now.Truncate(time.Minute)
	type scene struct {
		at    time.Time
		check int
		place string
	}
	var all []scene
	for m := time.Duration(0); m <= d; m += time.Minute {
		for i := range 12 {
			for k, place := range p.places {
				at := begin.Add(m + (time.Duration(i)*4900*time.Millisecond+time.Duration(k)*12*time.Second)%time.Minute)
				if at.After(p.now) && at.Before(p.now.Add(d)) {
					all = append(all, scene{at, i, place})
				}
			}
		}
	}
	end := p.now.Add(d)
	slices.SortFunc(all, func(a, b scene) int { return a.at.Compare(b.at) })
	for _, s := range all {
		if s.at.After(p.now) {
			p.after(s.at.Sub(p.now))
			p.note()
		}
		p.probe(s.check, s.place, "")
	}
	if end.After(p.now) {
		p.after(end.Sub(p.now))
	}
	p.note()
}

// falseAlerts are the checks that somebody was told of although they do not fail.
func (p *theatre) falseAlerts() (list []string) {
	for about := range p.paged {
		var i int
		if n, _ := fmt.Sscanf(about, "checks/c%d", &i); n == 1 && !p.down[i] {
			list = append(list, about)
		}
	}
	slices.Sort(list)
	return list
}

func just(o meshv1.Result_Outcome) liar {
	return func(meshv1.Result_Outcome, *rand.Rand) []said { return []said{{outcome: o}} }
}

func TestLiarsPageNobodyAndHideNoOutage(t *testing.T) {
	clone := 0
	for name, x := range map[string]struct {
		lie   liar
		build string
		aside bool
		bound time.Duration // of the outages meanwhile
	}{
		"always FAIL": {just(fail), "1.0", true, 30 * time.Second},
		"always OK":   {just(ok), "1.0", true, 75 * time.Second},
		// Its answers look as if only the other build failed, until it has been found out.
		"always OK, alone of its build": {just(ok), "2.0", true, 4 * time.Minute},
		"random": {func(_ meshv1.Result_Outcome, chance *rand.Rand) []said {
			return []said{{outcome: []meshv1.Result_Outcome{ok, fail}[chance.IntN(2)]}}
		}, "1.0", true, 30 * time.Second},
		"inverted": {func(truth meshv1.Result_Outcome, _ *rand.Rand) []said {
			if truth == ok {
				return []said{{outcome: fail}}
			}
			return []said{{outcome: ok}}
		}, "1.0", true, 30 * time.Second},
		"slow": {func(truth meshv1.Result_Outcome, _ *rand.Rand) []said {
			return []said{{outcome: meshv1.Result_SLOW, shift: -9 * time.Second}, {outcome: truth, shift: -9 * time.Second}}
		}, "1.0", false, 30 * time.Second},
		"clock an hour ahead":  {func(meshv1.Result_Outcome, *rand.Rand) []said { return []said{{outcome: fail, shift: time.Hour}} }, "1.0", false, 30 * time.Second},
		"clock an hour behind": {func(meshv1.Result_Outcome, *rand.Rand) []said { return []said{{outcome: fail, shift: -time.Hour}} }, "1.0", false, 30 * time.Second},
		"old build":            {func(meshv1.Result_Outcome, *rand.Rand) []said { return []said{{outcome: fail, old: true}} }, "1.0", false, 30 * time.Second},
		"cloned identity": {func(truth meshv1.Result_Outcome, _ *rand.Rand) []said {
			clone++
			if clone%2 == 0 {
				return []said{{outcome: fail}}
			}
			return []said{{outcome: truth}}
		}, "1.0", true, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTheatre(t)
			p.play(3 * time.Minute)
			p.enrol("nrt", x.build, nil)
			p.lies["nrt"] = x.lie
			p.play(10*time.Minute + 7*time.Second)
			began := p.now
			for _, i := range []int{2, 5, 8, 10} {
				p.down[i] = true
			}
			p.play(6 * time.Minute)
			if f := p.falseAlerts(); len(f) > 0 {
				t.Errorf("people were told of %v", f)
			}
			worst := time.Duration(0)
			for i := range p.down {
				at, told := p.paged[fmt.Sprint("checks/c", i)]
				if !told {
					t.Errorf("the outage of c%d was never opened: %s", i, p.verdict(fmt.Sprint("c", i)))
				}
				worst = max(worst, at.Sub(began))
			}
			if worst > x.bound {
				t.Errorf("an outage was opened after %s, later than %s", worst, x.bound)
			}
			got := asideOf(p.rig)
			if x.aside && (len(got) != 1 || got[0] != "nrt-1 for prober=nrt-1 QUARANTINED") || !x.aside && len(got) > 0 {
				t.Errorf("set aside: %q", got)
			}
			t.Logf("worst outage opened after %s; set aside: %v", worst, got)
		})
	}
}

func TestTargetThatFailsFromOneDatacenterIsDegradedNamingItForEachInTurn(t *testing.T) {
	for _, place := range []string{"ams", "fra", "iad", "nrt", "syd"} {
		p := newTheatre(t)
		p.play(3 * time.Minute)
		p.from[4] = place
		began := p.now
		var took time.Duration
		for p.now.Sub(began) < 3*time.Minute && took == 0 {
			p.play(time.Second)
			if st, _ := p.s.Status("checks/c4", p.now, false); st.GetVerdict() == meshv1.CheckStatus_DEGRADED {
				took = p.now.Sub(began)
				if f := st.GetFailingDatacenters(); len(f) != 1 || f[0] != place {
					t.Errorf("%s: it names %v", place, f)
				}
			}
		}
		// Its prober probes once a minute, and the others are asked at once.
		if took == 0 || took > 65*time.Second {
			t.Errorf("from %s alone: DEGRADED after %s", place, took)
		}
		p.play(20 * time.Minute)
		if len(p.paged) > 0 || len(asideOf(p.rig)) > 0 {
			t.Errorf("from %s alone: told %v, set aside %q", place, p.paged, asideOf(p.rig))
		}
		t.Logf("%s: DEGRADED after %s", place, took)
	}
}

func TestPacketLossOfFortyPercentOfTheProbersIsOneIncidentOfTheMesh(t *testing.T) {
	// Two of five datacenters lose 15 % of their packets on one upstream: a probe that needs no packet again fails in about that share, a repetition likewise.
	domains := 0
	for seed := range uint64(20) {
		p := newTheatre(t)
		p.chance = rand.New(rand.NewPCG(seed, 1))
		for _, place := range []string{"ams", "fra"} {
			p.enrol(place, "1.0", map[string]string{"upstream": "transit-9"})
		}
		p.play(3 * time.Minute)
		lossy := func(truth meshv1.Result_Outcome, chance *rand.Rand) []said {
			if chance.Float64() < 0.15 {
				return []said{{outcome: fail}}
			}
			return []said{{outcome: truth}}
		}
		p.lies["ams"], p.lies["fra"] = lossy, lossy
		p.play(15 * time.Minute)
		if f := p.falseAlerts(); len(f) > 0 {
			t.Errorf("seed %d: people were told of %v", seed, f)
		}
		got := strings.Join(asideOf(p.rig), ", ")
		if got != "ams-1 for upstream=transit-9 QUARANTINED, fra-1 for upstream=transit-9 QUARANTINED" {
			domains++
			t.Logf("seed %d: set aside %q, told %v", seed, got, p.paged)
		}
		if len(p.paged) != 1 {
			t.Errorf("seed %d: told of %v, want one incident of the mesh", seed, p.paged)
		}
	}
	if domains > 0 {
		t.Errorf("%d of 20 did not name the domain", domains)
	}
}
