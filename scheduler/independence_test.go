package scheduler

import (
	"strings"
	"testing"
	"time"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
)

func TestExplainSaysWhatTheProbersOfACheckHaveInCommon(t *testing.T) {
	r := newRig(t)
	for i, d := range []string{"ams", "fra", "iad"} {
		r.apply(EnrolmentPut{Enrolment: &statev1.Enrolment{Name: "probers/" + d + "-1", Datacenter: d, Build: []string{"1.0", "1.1", "1.0"}[i], Capabilities: []string{"tcp"},
			Labels:   map[string]string{"provider": "hetzner", "rack": d, "os": "claimed"},
			Observed: map[string]string{"resolver": "192.0.2.53", "network": []string{"10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/24"}[i], "address": "10.0.0." + d}}},
			ProberOnline{Name: d + "-1", Server: "servers/a"})
	}
	r.after(2 * time.Second)
	c := tcpCheck("x", 2)
	c.Probers, c.Spread, c.Distinct = 3, []string{"network", "storage"}, []string{"build"}
	r.check(c)
	e, ok := r.s.Explain("checks/x", r.now)
	if !ok {
		t.Fatal("no such check")
	}
	var got []string
	for _, x := range e.GetIndependence() {
		line := x.GetDimension()
		if x.GetWeak() {
			line += " weak: " + x.GetWarning()
		}
		got = append(got, line)
	}
	want := `datacenter
network weak: 3 probers share 2 values: there are no others to take
storage weak: no prober of it has a storage, so nothing is kept apart; label the probers
build
provider weak: all 3 probers share provider=hetzner: if that fails, all of them are wrong together
resolver weak: all 3 probers share resolver=192.0.2.53: if that fails, all of them are wrong together`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	if !strings.Contains(e.GetText(), "\nIndependence\n  datacenter: 3 values among 3 probers\n") {
		t.Error(e.GetText())
	}
}
