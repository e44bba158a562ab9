package probe

import (
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Fence says where the probes of a prober may go, whoever writes the checks: a prober reaches what the writers of checks do not, such as networks behind it, and the metadata service
// of its cloud, which hands out credentials. It is asked with the address that is about to be connected to, after names are resolved, so that neither redirects nor a name that changes its
// address lead around it. What the prober itself is configured with, its resolver, servers and canaries, does not pass it; what a proxy connects to is for the proxy to allow. The nil fence
// allows everything. It does not change, and several goroutines may ask it at once.
type Fence struct {
	allow, deny []netip.Prefix
	sockets     []string
}

// none in place of a list is the empty one, which environment variables have no other words for.
const none = "none"

// DenyNetworksDefault are the addresses by which clouds hand out metadata and credentials to their machines, which hardly any check is meant for: of AWS, Azure, Google Cloud, OpenStack,
// Oracle and others (169.254.169.254), of containers at AWS (169.254.170.0/24, fd00:ec2::/32), of Google over IPv6 (fd20:ce::254), of Azure's agent (168.63.129.16) and of Alibaba (100.100.100.200).
func DenyNetworksDefault() []string {
	return []string{"169.254.169.254", "169.254.170.0/24", "fd00:ec2::/32", "fd20:ce::254", "168.63.129.16", "100.100.100.200"}
}

// Networks reads networks, such as 10.0.0.0/8, and single addresses. The error names the first that is neither.
func Networks(texts []string) ([]netip.Prefix, error) {
	if slices.Equal(texts, []string{none}) {
		return nil, nil
	}
	var out []netip.Prefix
	for _, t := range texts {
		t = strings.TrimSpace(t)
		p, err := netip.ParsePrefix(t)
		if addr, failed := netip.ParseAddr(t); failed == nil && addr.Zone() == "" {
			p, err = addr.Prefix(addr.BitLen())
		}
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is neither a network nor an address; write for example 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7", t)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// SocketPaths checks entries of a list of Unix sockets: absolute paths, globs of them, and directories with a slash at the end. The error names the first that is none of these.
func SocketPaths(texts []string) ([]string, error) {
	if slices.Equal(texts, []string{none}) {
		return nil, nil
	}
	var out []string
	for _, t := range texts {
		t = strings.TrimSpace(t)
		if _, err := path.Match(t, ""); err != nil || !strings.HasPrefix(t, "/") {
			return nil, fmt.Errorf("%q is not the absolute path of a socket; write for example /run/app.sock, /run/php/*.sock, or /run/app/ for all below it", t)
		}
		out = append(out, t)
	}
	return out, nil
}

// NewFence makes a fence. allow are the networks that may be connected to, empty for all; deny those that may not, even if they are allowed; sockets the Unix sockets that may be, empty for
// none: see [Networks] and [SocketPaths] for how they are written.
func NewFence(allow, deny, sockets []string) (*Fence, error) {
	f := &Fence{}
	var err error
	if f.allow, err = Networks(allow); err != nil {
		return nil, err
	}
	if f.deny, err = Networks(deny); err != nil {
		return nil, err
	}
	f.sockets, err = SocketPaths(sockets)
	return f, err
}

// Permits is nil when the prober may connect to an address, else a [*Failure] in phase CONNECT that names the flag.
func (f *Fence) Permits(addr netip.Addr) error {
	if f == nil {
		return nil
	}
	for _, x := range meanings(addr) {
		if !x.IsValid() {
			continue
		}
		for _, p := range f.deny {
			if p.Contains(x) {
				return fenced("%s, which is in %s of its --deny-networks; take that out there if the check is meant to", addr, p)
			}
		}
		if len(f.allow) > 0 && !slices.ContainsFunc(f.allow, func(p netip.Prefix) bool { return p.Contains(x) }) {
			return fenced("%s, which is in none of its --allow-networks; add it there if the check is meant to", addr)
		}
	}
	return nil
}

// meanings are the addresses that connecting to one may lead to: itself without a zone, the machine's own in place of the unspecified one, and the IPv4 address within an IPv6 one.
func meanings(addr netip.Addr) [2]netip.Addr {
	nat64 := [12]byte{0, 0x64, 0xff, 0x9b} // 64:ff9b::/96, by which gateways lead from IPv6 to IPv4 (RFC 6052)
	x := addr.Unmap().WithZone("")
	switch {
	case x == netip.IPv4Unspecified():
		return [2]netip.Addr{x, netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	case x == netip.IPv6Unspecified():
		return [2]netip.Addr{x, netip.IPv6Loopback()}
	case x.Is6():
		if bytes := x.As16(); [12]byte(bytes[:12]) == nat64 {
			return [2]netip.Addr{x, netip.AddrFrom4([4]byte(bytes[12:]))}
		}
	}
	return [2]netip.Addr{x}
}

// PermitsSocket is nil when the prober may connect to a Unix socket, else a [*Failure] in phase CONNECT that names the flag.
func (f *Fence) PermitsSocket(name string) error {
	if f == nil {
		return nil
	}
	if filepath.Clean(name) == name { // another spelling may lead out of a directory
		for _, s := range f.sockets {
			if matched, _ := path.Match(s, name); matched || strings.HasSuffix(s, "/") && strings.HasPrefix(name, s) {
				return nil
			}
		}
	}
	return fenced("the Unix socket %s, which is not among its --unix-sockets; add it there if the check is meant to", name)
}

// Control is what [net.Dialer.Control] wants: it lets connections through the fence that are made to names, each address as it is tried.
func (f *Fence) Control(network, address string, _ syscall.RawConn) error {
	if f == nil {
		return nil
	}
	if strings.HasPrefix(network, "unix") {
		return f.PermitsSocket(address)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return f.Permits(to.Addr())
}

func fenced(format string, args ...any) *Failure {
	return &Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT, Fenced: true, Sentence: spec.Forbidden + fmt.Sprintf(format, args...)}
}
