package canary

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	resolveEvery = time.Minute
	resolveMax   = 3 * time.Second
	serversMax   = 3
)

// resolution is what a host name stood for.
type resolution struct {
	at        time.Time
	addresses []netip.Addr
}

// refresh makes the targets what they are to be now. What was seen of one that stays, stays.
func (c *Canary) refresh(ctx context.Context) {
	var servers []string
	if c.cfg.Servers != nil {
		servers = c.cfg.Servers()
	}
	servers = servers[:min(len(servers), serversMax)]
	named := c.cfg.Named[:min(len(c.cfg.Named), NamedMax)]
	all := slices.Concat(named, servers)
	c.resolve(ctx, all)

	c.mu.Lock()
	defer c.mu.Unlock()
	before := map[netip.AddrPort]*target{}
	for _, f := range c.families {
		for _, t := range f.targets {
			before[t.address] = t
		}
		f.targets = nil
	}
	seen := map[netip.AddrPort]bool{}
	for i, name := range all {
		host, port, ok := split(name)
		if !ok {
			continue
		}
		for _, a := range c.resolved[host].addresses {
			address := netip.AddrPortFrom(a, port)
			own := i < len(named)
			if seen[address] || !own && c.cfg.Own(a) {
				continue
			}
			seen[address] = true
			t := before[address]
			if t == nil {
				t = &target{name: name, address: address, named: own}
			} else if t.name != name || t.named != own {
				// A round that runs reads the old one.
				t = &target{name: name, address: address, named: own, ever: t.ever, last: t.last}
			}
			f := c.families[familyOf(a)]
			f.targets = append(f.targets, t)
		}
	}
}

// resolve looks up the names that were not looked up within a minute. One that cannot be keeps its addresses.
func (c *Canary) resolve(ctx context.Context, all []string) {
	ctx, cancel := context.WithTimeout(ctx, resolveMax)
	defer cancel()
	var group sync.WaitGroup
	hosts := map[string]bool{}
	now := time.Now()
	for _, name := range all {
		host, _, ok := split(name)
		if !ok || hosts[host] {
			continue
		}
		hosts[host] = true
		c.mu.Lock()
		old, known := c.resolved[host]
		c.mu.Unlock()
		if known && now.Sub(old.at) < resolveEvery {
			continue
		}
		group.Go(func() {
			r := resolution{at: now, addresses: old.addresses}
			if a, err := netip.ParseAddr(host); err == nil {
				r.addresses = []netip.Addr{a.Unmap()}
			} else if found, err := c.cfg.Lookup(ctx, host); err == nil && len(found) > 0 {
				r.addresses = nil
				// One of each family is enough of one name.
				for _, family := range []string{IPv4, IPv6} {
					if i := slices.IndexFunc(found, func(a netip.Addr) bool { return familyOf(a) == family }); i >= 0 {
						r.addresses = append(r.addresses, found[i].Unmap())
					}
				}
			}
			c.mu.Lock()
			c.resolved[host] = r
			c.mu.Unlock()
		})
	}
	group.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for host := range c.resolved {
		if !hosts[host] {
			delete(c.resolved, host)
		}
	}
}

func split(name string) (host string, port uint16, ok bool) {
	host, p, err := net.SplitHostPort(name)
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(p, 10, 16)
	return host, uint16(n), err == nil && n > 0
}

// ownAddress tells whether an address is one of this machine.
func ownAddress(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(list, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr().Unmap() == a
	})
}
