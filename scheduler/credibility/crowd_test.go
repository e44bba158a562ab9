package credibility

import (
	"fmt"
	"testing"
	"time"
)

// A big mesh: 5,000 checks on fifty hosts, all of which agreed for long. Then what two probers of one datacenter see of all of them differs, hundreds of times a second: the datacenter is named, within half a minute, although of each
// host only a few dissents count, and although both had agreed tens of thousands of times before.
func TestDomainOfABigMeshIsNamedHoweverLongItHasAgreed(t *testing.T) {
	b := New(Config{})
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, d := range []string{"ams", "fra", "nrt"} {
		for i := 1; i <= 2; i++ {
			b.Put(fmt.Sprint(d, "-", i), d, map[string]string{"datacenter": d, "build": "1.0"})
		}
	}
	second := func(sick bool) []Change {
		for _, d := range []string{"ams", "fra", "nrt"} {
			for i := 1; i <= 2; i++ {
				for k := range 125 {
					if name := fmt.Sprint(d, "-", i); sick && d == "nrt" {
						b.Dissent(now, Dissent{Prober: name, Check: fmt.Sprint("c", k), Subject: fmt.Sprint("host", (k+i)%50), Kind: "http", Failed: true})
					} else {
						b.Agree(name)
					}
				}
			}
		}
		now = now.Add(time.Second)
		return b.Judge(now)
	}
	for range 600 {
		if ch := second(false); len(ch) > 0 {
			t.Fatalf("without reason: %+v", ch)
		}
	}
	for s := range 30 {
		if ch := second(true); len(ch) > 0 {
			if got := ch[0].Finding.Domain; got != (Domain{"datacenter", "nrt"}) {
				t.Errorf("after %d s: %s", s, got)
			}
			return
		}
	}
	t.Error("nothing is set aside after 30 s")
}
