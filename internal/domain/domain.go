// Package domain names the failure domains that the mesh sees itself, and makes the domains of a prober of them and of its labels. What a prober claims in its labels never
// overrides what was seen: a label of such a key is kept as `claimed.KEY`.
//
//	d := domain.Of("fra", "1.4.2", map[string]string{"provider": "hetzner", "os": "mine"}, map[string]string{"os": "debian-12"})
//	// build=1.4.2 claimed.os=mine datacenter=fra os=debian-12 provider=hetzner
//
// Everything here is a pure function.
package domain

import (
	"net/netip"
	"slices"
	"strings"
)

// The dimensions that the mesh sees itself.
const (
	Datacenter = "datacenter" // as the prober was started; the first failure domain
	Build      = "build"      // version of the program
	Prober     = "prober"     // a single prober, where one is set aside
	Address    = "address"    // from which its session comes
	Network    = "network"    // the /24 (IPv4) or /48 (IPv6) of Address
	Resolver   = "resolver"   // its first name server that is not on the machine itself
	Families   = "families"   // `ipv4`, `ipv6` or `ipv4+ipv6`
	OS         = "os"         // distribution and kernel
)

// ValueMax is how many bytes of a value are kept.
const ValueMax = 200

// Reserved are the keys that no label can claim, sorted.
func Reserved() []string {
	return []string{Address, Build, Datacenter, Families, Network, OS, Prober, Resolver}
}

// Of gives all failure domains of a prober.
func Of(datacenter, build string, labels, observed map[string]string) map[string]string {
	all := make(map[string]string, len(labels)+len(observed)+2)
	reserved := Reserved()
	for k, v := range labels {
		if slices.Contains(reserved, k) {
			k = "claimed." + k
		}
		all[k] = v
	}
	for k, v := range observed {
		if v != "" {
			all[k] = v
		}
	}
	all[Datacenter] = datacenter
	delete(all, Build)
	if build != "" {
		all[Build] = build
	}
	return all
}

// Claims are the labels that claim a reserved key, sorted by key.
func Claims(labels map[string]string) (keys []string) {
	for _, k := range Reserved() {
		if _, ok := labels[k]; ok {
			keys = append(keys, k)
		}
	}
	return keys
}

// Observe gives what is seen of a prober: from is where its session comes from, machine what the program says of its machine, capabilities what it can do. Of machine
// only the keys that are meant for it are taken. An address of the machine itself or of its link (loopback, link-local) says nothing, and is left out.
func Observe(from netip.Addr, machine map[string]string, capabilities []string) map[string]string {
	seen := map[string]string{}
	from = from.Unmap().WithZone("")
	if from.IsValid() && !from.IsLoopback() && !from.IsLinkLocalUnicast() && !from.IsUnspecified() {
		seen[Address] = from.String()
		bits := 48
		if from.Is4() {
			bits = 24
		}
		if p, err := from.Prefix(bits); err == nil {
			seen[Network] = p.String()
		}
	}
	for _, k := range []string{Resolver, OS} {
		if v := clean(machine[k]); v != "" {
			seen[k] = v
		}
	}
	var families []string
	for _, f := range []string{"ipv4", "ipv6"} {
		if slices.Contains(capabilities, f) {
			families = append(families, f)
		}
	}
	if len(families) > 0 {
		seen[Families] = strings.Join(families, "+")
	}
	return seen
}

// clean makes a value of what a stranger sent.
func clean(v string) string {
	v = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.TrimSpace(v))
	if len(v) > ValueMax {
		v = strings.ToValidUTF8(v[:ValueMax], "")
	}
	return strings.ToValidUTF8(v, "")
}
