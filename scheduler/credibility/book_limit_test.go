package credibility

import (
	"testing"
	"time"
)

// Of three datacenters one is set aside. A single prober of another is not set aside besides: a check with a prober in each would have one vote left.
func TestNobodyElseIsSetAsideWhereChecksCouldNotBeJudgedThen(t *testing.T) {
	for places, want := range map[string]bool{"abc": false, "abcde": true} {
		b := New(Config{})
		for _, d := range places {
			for _, n := range []string{"1", "2"} {
				b.Put(string(d)+n, string(d), map[string]string{"datacenter": string(d)})
			}
		}
		b.SetAside(Domain{"datacenter", "c"}, time.Unix(1000, 0))
		one := Finding{Domain: Domain{ProberDimension, "b1"}, Probers: []string{"b1"}}
		if why := b.Limit(one); (why == "") != want {
			t.Errorf("%d datacenters: %q", len(places), why)
		}
	}
}
