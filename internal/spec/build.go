package spec

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// BuildPolicyFaults are the faults of a policy of builds, whose path is given.
func BuildPolicyFaults(path string, p *meshv1.BuildPolicy) []fault.Violation {
	f := &faults{path: path}
	if n := p.GetName(); n != "" && n != "policies/builds" {
		f.add("name", "is %q; there is one policy of builds, policies/builds; leave the name out", n)
	}
	for _, d := range []struct {
		field string
		value *durationpb.Duration
	}{{"shadow_time", p.GetShadowTime()}, {"canary_time", p.GetCanaryTime()}} {
		if d.value == nil {
			continue
		}
		if err := d.value.CheckValid(); err != nil || d.value.AsDuration() < 0 || d.value.AsDuration() > 720*time.Hour {
			f.add(d.field, "%s is not 0s to 720h", d.value.AsDuration())
		}
	}
	for _, n := range []struct {
		field string
		value int32
		most  int32
	}{{"shadow_comparisons", p.GetShadowComparisons(), 1_000_000}, {"canary_comparisons", p.GetCanaryComparisons(), 1_000_000}, {"canary_percent", p.GetCanaryPercent(), 50}} {
		if n.value < 0 || n.value > n.most {
			f.add(n.field, "%d is not 1 to %d; leave it out for the default", n.value, n.most)
		}
	}
	return f.list
}
