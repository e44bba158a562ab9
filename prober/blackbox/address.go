package blackbox

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// choose finds the one address of host to probe: the first of the preferred family, or, where that may be and there is none, the last of the other.
func (j *job) choose(ctx context.Context, a *probe.Attempt, f Family, host string) (*net.IPAddr, error) {
	a.Meeting(host)
	a.Enter(meshv1.Result_RESOLVE)
	for _, name := range []string{"probe_ip_protocol", "probe_dns_lookup_time_seconds", "probe_ip_addr_hash"} {
		j.out.set(name, 0)
	}
	begin := time.Now()
	ip, err := lookup(ctx, f, host)
	j.lookup = time.Since(begin)
	j.out.set("probe_dns_lookup_time_seconds", j.lookup.Seconds())
	if err != nil {
		return nil, err
	}
	version := 6.0
	if short := ip.IP.To4(); short != nil {
		version, ip.IP = 4, short
	}
	j.out.set("probe_ip_protocol", version)
	h := fnv.New32a()
	_, _ = h.Write(ip.IP)
	j.out.set("probe_ip_addr_hash", float64(h.Sum32()))
	j.log.Info("resolved target address", "host", host, "ip", ip.String())
	return ip, nil
}

func lookup(ctx context.Context, f Family, host string) (*net.IPAddr, error) {
	preferred := "ip6"
	if f.Preferred != "" && f.Preferred != "ip6" {
		preferred = "ip4"
	}
	resolver := net.Resolver{}
	if !f.Fallback {
		ips, err := resolver.LookupIP(ctx, preferred, host)
		if err != nil {
			return nil, err
		}
		if len(ips) == 0 {
			return nil, fmt.Errorf("no address of family %s", preferred)
		}
		return &net.IPAddr{IP: ips[0]}, nil
	}
	addrs, err := resolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	var other *net.IPAddr
	for _, x := range addrs {
		if (x.IP.To4() != nil) == (preferred == "ip4") {
			return &x, nil
		}
		other = &x
	}
	if other == nil {
		return nil, fmt.Errorf("%s has no address", host)
	}
	return other, nil
}

// source is the local address to connect from, nil for any.
func source(address, network string) (net.Addr, error) {
	ip := net.ParseIP(address)
	switch {
	case address == "":
		return nil, nil
	case ip == nil:
		return nil, fmt.Errorf("source_ip_address %q is not an IP address", address)
	case network == "udp":
		return &net.UDPAddr{IP: ip}, nil
	}
	return &net.TCPAddr{IP: ip}, nil
}

// dial connects to one address of a network, "tcp" or "udp", where the prober's fence permits it.
func (j *job) dial(ctx context.Context, a *probe.Attempt, network string, ip *net.IPAddr, port, from string) (net.Conn, error) {
	to := net.JoinHostPort(ip.String(), port)
	a.Enter(meshv1.Result_CONNECT)
	a.Connecting(to)
	if to, ok := netip.AddrFromSlice(ip.IP); ok {
		if err := j.exporter.options.Env.Fence.Permits(to); err != nil {
			return nil, err
		}
	}
	local, err := source(from, network)
	if err != nil {
		return nil, probe.Failf(a, meshv1.Result_PROBER, "%v", err)
	}
	dialer := net.Dialer{KeepAlive: -1, LocalAddr: local}
	if dialer.LocalAddr != nil {
		dialer.Control = probe.AddressOnly
	}
	if ip.IP.To4() != nil { // of one family: else the unspecified address is tried by both
		return dialer.DialContext(ctx, network+"4", to)
	}
	return dialer.DialContext(ctx, network+"6", to)
}
