package domain

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
)

func TestLabelsNeverOverrideWhatWasSeen(t *testing.T) {
	labels := map[string]string{"provider": "hetzner", "build": "9.9", "datacenter": "mars", "network": "10.0.0.0/24", "os": "mine"}
	got := Of("fra", "1.4.2", labels, map[string]string{"network": "192.0.2.0/24", "resolver": "192.0.2.53", "os": ""})
	want := map[string]string{
		"provider": "hetzner", "datacenter": "fra", "build": "1.4.2", "network": "192.0.2.0/24", "resolver": "192.0.2.53",
		"claimed.build": "9.9", "claimed.datacenter": "mars", "claimed.network": "10.0.0.0/24", "claimed.os": "mine",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := strings.Join(Claims(labels), " "); got != "build datacenter network os" {
		t.Errorf("claims %q", got)
	}
}

func TestObservedDomains(t *testing.T) {
	for _, x := range []struct{ from, address, network string }{
		{"192.0.2.7", "192.0.2.7", "192.0.2.0/24"},
		{"::ffff:192.0.2.7", "192.0.2.7", "192.0.2.0/24"},
		{"2001:db8:1:2::7", "2001:db8:1:2::7", "2001:db8:1::/48"},
		{"127.0.0.1", "", ""}, {"::1", "", ""}, {"fe80::1%eth0", "", ""}, {"", "", ""},
	} {
		var from netip.Addr
		if x.from != "" {
			from = netip.MustParseAddr(x.from)
		}
		seen := Observe(from, nil, nil)
		if seen["address"] != x.address || seen["network"] != x.network {
			t.Errorf("%s: %v", x.from, seen)
		}
	}
	seen := Observe(netip.Addr{}, map[string]string{"os": " debian-12\n ", "resolver": strings.Repeat("x", 300), "provider": "me", "address": "1.2.3.4"}, []string{"http", "ipv6", "ipv4"})
	if seen["os"] != "debian-12" || len(seen["resolver"]) != ValueMax || seen["families"] != "ipv4+ipv6" || len(seen) != 3 {
		t.Errorf("%v", seen)
	}
}
