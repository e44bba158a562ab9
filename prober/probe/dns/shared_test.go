package dns

import (
	"testing"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestRulesAreSharedByChecksThatDemandTheSame(t *testing.T) {
	env := probetest.Env()
	env.Shared = probe.NewShared()
	compiled := func(uri string, o *meshv1.DnsProbe) *rules {
		target, err := spec.ParseURI(uri)
		if err != nil {
			t.Fatal(err)
		}
		r, err := rulesOf(o, target, env)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	plain := compiled("dns://192.0.2.1/a.example?type=A", &meshv1.DnsProbe{})
	values := func() *meshv1.DnsProbe { return &meshv1.DnsProbe{Answers: []string{"192.0.2.7"}} }
	for _, c := range []struct {
		name  string
		other *rules
		same  bool
	}{
		{"of another server and name", compiled("dns://192.0.2.2/b.example?type=A", &meshv1.DnsProbe{}), true},
		{"of another type", compiled("dns://192.0.2.1/a.example?type=AAAA", &meshv1.DnsProbe{}), false},
		{"with another demand", compiled("dns://192.0.2.1/a.example?type=A", &meshv1.DnsProbe{Rcodes: []string{"NXDOMAIN"}}), false},
	} {
		if (c.other == plain) != c.same {
			t.Errorf("rules %s are shared: %t, want %t", c.name, !c.same, c.same)
		}
	}
	one, two := compiled("dns://192.0.2.1/a.example?type=A", values()), compiled("dns://192.0.2.1/b.example?type=A", values())
	if one.values[0].Header().Name == two.values[0].Header().Name {
		t.Errorf("values of two names are those of %s", one.values[0].Header().Name)
	}
}
