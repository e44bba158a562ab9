package controller

import (
	"net/netip"
	"testing"
	"time"
)

func TestObservedDomainsAreEnrolledOverClaimsAndNotWrittenWithEachNewAddress(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		attach := func(address string) map[string]string {
			h := w.hello("p1")
			h.Labels = map[string]string{"provider": "hetzner", "network": "10.0.0.0/8"}
			h.Machine = map[string]string{"resolver": "192.0.2.53"}
			s := &fakeSession{boot: h.BootId, since: time.Now(), from: netip.MustParseAddr(address)}
			if err := w.c.Attach(t.Context(), h, s); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			p, ok := w.c.Prober("p1")
			if !ok {
				t.Fatal("it is not known")
			}
			return p.GetDomains()
		}
		mod := func() int64 {
			e, err := w.store.GetEnrolment(t.Context(), "probers/p1")
			if err != nil {
				t.Fatal(err)
			}
			return e.ModRevision
		}
		d := attach("192.0.2.7")
		for k, want := range map[string]string{"provider": "hetzner", "claimed.network": "10.0.0.0/8", "network": "192.0.2.0/24", "address": "192.0.2.7", "resolver": "192.0.2.53",
			"families": "ipv4", "build": "b-p1", "datacenter": "dc-p1"} {
			if d[k] != want {
				t.Errorf("%s is %q, want %q, in %v", k, d[k], want, d)
			}
		}
		first := mod()
		for _, a := range []string{"198.51.100.1", "198.51.100.2", "192.0.2.7", "198.51.100.3"} {
			attach(a)
		}
		if mod() != first {
			t.Error("a new address was written within ten minutes of the one before")
		}
		time.Sleep(observeEvery + 2*lookEvery)
		p, _ := w.c.Prober("p1")
		if got := p.GetDomains()["address"]; got != "198.51.100.3" || mod() == first {
			t.Errorf("after a while the address is %q; want the newest, without a new session", got)
		}
	})
}
