package verdict

import (
	"testing"
	"time"
)

// history casts probes a gap apart, F for one that failed, E for the prober's own error, anything else for an answer, the last of them at noon.
func history(datacenter, said string, gap time.Duration) Vote {
	v := Vote{Prober: datacenter + "-1", Datacenter: datacenter}
	for i, c := range said {
		out := OK
		switch c {
		case 'F':
			out = Fail
		case 'E':
			out = Fault
		}
		v = Cast(v, out, false, noon.Add(-gap*time.Duration(len(said)-1-i)))
	}
	return v
}

func TestAFailureSoonAfterAnAnswerIsARelapse(t *testing.T) {
	for _, c := range []struct {
		said                     string
		relapses, failed, probes int
	}{
		{"", 0, 0, 0},
		{"....", 0, 0, 0},
		{"FFFFFFFFFF", 0, 10, 10},            // an outage
		{"..FFF..FFF", 1, 6, 8},              // a service that stumbles as it starts
		{"F......F......F......F", 0, 4, 22}, // outages of their own: it answered more often than five times in between
		{"F.F.F.F", 3, 4, 7},                 // every second request
		{"F.....F.....F.....F", 3, 4, 19},    // every sixth
		{"FEFEFEF", 0, 4, 4},                 // the prober's own errors are no answers
		{"F.F.F.F..........", 0, 0, 0},       // ten answers in a row
		{"F.F.F.F.........", 3, 4, 16},       // nine
		{"F.F.F.F..........F.F", 1, 2, 3},    // from the beginning
		{"F.F.F.FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", 3, 32, 32}, // no more than 32 are remembered
	} {
		v := history("fra", c.said, time.Minute)
		if failed, probes := v.Failed(); int(v.Relapses) != c.relapses || failed != c.failed || probes != c.probes {
			t.Errorf("%q: %d relapses, %d of %d failed; want %d, %d of %d", c.said, v.Relapses, failed, probes, c.relapses, c.failed, c.probes)
		}
		if v.Unsteady() != (c.relapses >= 3) {
			t.Errorf("%q: unsteady %t", c.said, v.Unsteady())
		}
	}
}

func TestAProberThatProbesOftenMustAnswerForLongerToBeSteady(t *testing.T) {
	if v := history("fra", "F.F.F.F..............", time.Second); !v.Unsteady() {
		t.Error("steady after 14 answers in 13 seconds")
	}
	if v := history("fra", "F.F.F.F................", time.Second); v.Unsteady() {
		t.Error("unsteady after 16 answers in 15 seconds")
	}
}

func TestAQuorumOfUnsteadyDatacentersIsIntermittent(t *testing.T) {
	const bad, good, down = "F.F.F.F.", "........", "F.F.F.FF"
	p := Policy{Quorum: 2, Fresh: time.Hour, Distinct: []string{"provider"}}
	with := func(v Vote, key, value string) Vote { v.Domains = map[string]string{key: value}; return v }
	in := func(d, said string) Vote { return history(d, said, time.Minute) }
	for name, c := range map[string]struct {
		votes []Vote
		want  string
	}{
		"two of three":                {[]Vote{in("fra", bad), in("iad", bad), in("nrt", good)}, "DEGRADED INTERMITTENT"},
		"one of three":                {[]Vote{in("fra", bad), in("iad", good), in("nrt", good)}, "UP QUORUM_UP"},
		"one of them fails now":       {[]Vote{in("fra", bad), in("iad", bad+"F"), in("nrt", good)}, "DEGRADED INTERMITTENT"},
		"two fail now, all twice":     {[]Vote{in("fra", down), in("iad", down), in("nrt", bad)}, "DOWN QUORUM_DOWN"},
		"two probers of one place":    {[]Vote{in("fra", bad), in("fra", bad), in("nrt", good)}, "UP QUORUM_UP"},
		"one place of two minds":      {[]Vote{in("fra", bad), in("iad", bad), in("iad", good)}, "UP QUORUM_UP"},
		"all of them of one provider": {[]Vote{with(in("fra", bad), "provider", "x"), with(in("iad", bad), "provider", "x"), with(in("nrt", good), "provider", "y")}, "UP QUORUM_UP"},
	} {
		if got := Fold(p, c.votes, noon); got.Verdict.String()+" "+got.Reason.String() != c.want {
			t.Errorf("%s: %s %s, want %s", name, got.Verdict, got.Reason, c.want)
		}
	}
}

func TestATargetThatFailsByChanceHasNotRecoveredWhereItAnswersTwice(t *testing.T) {
	p := Policy{Quorum: 2, Fresh: time.Hour}
	in := func(d, said string) Vote { return history(d, said, time.Minute) }
	for name, c := range map[string]struct {
		votes []Vote
		want  bool
	}{
		"an outage is over, one place lags behind":       {[]Vote{in("fra", "FFF.."), in("iad", "FFF.."), in("nrt", "FFFFF")}, true},
		"two have relapsed, one of them fails still":     {[]Vote{in("fra", "F.F.."), in("iad", "FFF.."), in("nrt", "F.F.F")}, false},
		"two have relapsed, one has answered once":       {[]Vote{in("fra", "F.F.."), in("iad", "FFF.."), in("nrt", "FF.F.")}, false},
		"two have relapsed, both have answered twice":    {[]Vote{in("fra", "F.F.."), in("iad", "FFF.."), in("nrt", "F.F..")}, true},
		"one alone relapses, which keeps nobody from it": {[]Vote{in("fra", "FFF.."), in("iad", "FFF.."), in("nrt", "F.F.F")}, true},
	} {
		if got := Recovered(p, c.votes, noon, 30*time.Second); got != c.want {
			t.Errorf("%s: recovered %t, want %t", name, got, c.want)
		}
	}
}
