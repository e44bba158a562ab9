package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// fallbackDelay is how long a connection attempt may hang before the next address is tried beside it (RFC 8305, section 5).
const fallbackDelay = 250 * time.Millisecond

// maxAttempts is how many addresses of one name are tried at most.
const maxAttempts = 8

// Dialer finds and connects to targets. The zero value prefers nothing. It may be used by several goroutines at once.
type Dialer struct {
	// Family is which addresses may be used.
	Family meshv1.IpFamily_Preference
	// Source is the address of this machine to connect from; the zero value leaves it to the system.
	Source netip.Addr
	// Own says that the host is one that the prober itself is configured with, and not a check: no [Fence] is asked.
	Own bool
}

// Resolve finds the addresses of a host that may be used, in the order in which to try them (RFC 6724), families alternating. A literal address is no work and no
// phase, nor is an address that the probe was given for the host ([Options.Pin]). The attempt is left in phase RESOLVE or, for a literal, where it was.
func (d *Dialer) Resolve(ctx context.Context, a *Attempt, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	if pin := a.options.Pin; pin.Host != "" && strings.EqualFold(host, pin.Host) {
		return []netip.Addr{pin.Addr}, nil
	}
	a.Enter(meshv1.Result_RESOLVE)
	network := "ip"
	switch d.Family {
	case meshv1.IpFamily_IPV4:
		network = "ip4"
	case meshv1.IpFamily_IPV6:
		network = "ip6"
	}
	addrs, names, err := a.options.Aliases.lookup(ctx, network, host)
	a.aliasOf(names)
	if err != nil {
		return nil, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	addrs = alternate(addrs)
	a.Resolved(addrs)
	return addrs, nil
}

// alternate keeps the order within each family and takes turns between them, beginning with the first address's.
func alternate(addrs []netip.Addr) []netip.Addr {
	if len(addrs) < 3 {
		return addrs
	}
	var first, second []netip.Addr
	for _, x := range addrs {
		if x.Is4() == addrs[0].Is4() {
			first = append(first, x)
		} else {
			second = append(second, x)
		}
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := 0; len(out) < len(addrs); i++ {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}

// Dial resolves the host and connects to it by "tcp" or "udp". When it has several addresses they are raced as RFC 8305 says. The attempt
// is left in phase CONNECT. The caller closes the connection.
func (d *Dialer) Dial(ctx context.Context, a *Attempt, network, host string, port uint16) (net.Conn, error) {
	a.Meeting(host)
	addrs, err := d.Resolve(ctx, a, host)
	if err != nil {
		return nil, err
	}
	a.Enter(meshv1.Result_CONNECT)
	if len(addrs) > maxAttempts {
		addrs = addrs[:maxAttempts]
	}
	if len(addrs) == 1 {
		return d.dialOne(ctx, a, network, netip.AddrPortFrom(addrs[0], port))
	}
	return d.race(ctx, a, network, addrs, port)
}

// dialOne connects to one address.
func (d *Dialer) dialOne(ctx context.Context, a *Attempt, network string, to netip.AddrPort) (net.Conn, error) {
	text := to.String()
	a.Connecting(text)
	return d.connect(ctx, a, network, to, text)
}

// connect connects by "tcp" or "udp" to an address and its port, also given as text, where the fence permits the address. The socket is bound to no port beforehand: connect chooses one that is free for the target, while bind, as by net.Dialer.DialTCP, needs one that is free for
// every target, and all of them would be taken for a minute after some 28,000 connections that the prober has closed.
func (d *Dialer) connect(ctx context.Context, a *Attempt, network string, to netip.AddrPort, text string) (net.Conn, error) {
	if fence := a.options.Fence; fence != nil && !d.Own {
		if err := fence.Permits(to.Addr()); err != nil {
			return nil, err
		}
	}
	if !d.Source.IsValid() && lean(network, to) {
		return open(ctx, network, to)
	}
	dialer := net.Dialer{KeepAlive: -1}
	if d.Source.IsValid() {
		dialer.LocalAddr, dialer.Control = local(network, d.Source), AddressOnly
	}
	return dialer.DialContext(ctx, network, text)
}

// local is an address of this machine to connect from, by any port.
func local(network string, from netip.Addr) net.Addr {
	if network == "udp" {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
}

// won is the end of one connection attempt.
type won struct {
	conn net.Conn
	to   string
	err  error
}

// race tries the addresses one after the other, each after the one before has failed or hung for fallbackDelay, and takes the first that connects.
func (d *Dialer) race(ctx context.Context, a *Attempt, network string, addrs []netip.Addr, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan won, len(addrs))
	started, pending := 0, 0
	next := func() {
		at := netip.AddrPortFrom(addrs[started], port)
		to := at.String()
		a.Connecting(to)
		started++
		pending++
		go func() {
			conn, err := d.connect(ctx, a, network, at, to)
			ended <- won{conn, to, err}
		}()
	}
	next()
	timer := time.NewTimer(fallbackDelay)
	defer timer.Stop()
	var failed []won
	for pending > 0 {
		select {
		case w := <-ended:
			pending--
			if w.err == nil {
				cancel()
				drain(ended, pending)
				a.Connecting(w.to)
				return w.conn, nil
			}
			failed = append(failed, w)
			if started < len(addrs) && ctx.Err() == nil {
				next()
				timer.Reset(fallbackDelay)
			}
		case <-timer.C:
			if started < len(addrs) {
				next()
				timer.Reset(fallbackDelay)
			}
		}
	}
	return nil, raceFailure(a, failed)
}

// drain waits for the attempts that lost, which end at once since their context has, and closes what they opened.
func drain(ended <-chan won, pending int) {
	for range pending {
		if w := <-ended; w.conn != nil {
			w.conn.Close()
		}
	}
}

// raceFailure is the failure of a race that nobody won. What the target did comes before what the prober itself lacks (such as IPv6), and a clear
// refusal before time that ran out.
func raceFailure(a *Attempt, failed []won) error {
	var chosen *Failure
	best, remote := 0, ""
	for _, w := range failed {
		a.Connecting(w.to)
		f := Classify(w.err, a)
		rank := 3
		switch {
		case f.Class == meshv1.Result_PROBER:
			rank = 1
		case f.Class == meshv1.Result_TIMEOUT || errors.Is(w.err, context.Canceled):
			rank = 2
		}
		if rank > best {
			best, chosen, remote = rank, f, w.to
		}
	}
	a.Connecting(remote)
	if len(failed) > 1 {
		chosen.Sentence += fmt.Sprintf(" (none of %d addresses could be connected to)", len(failed))
	}
	return chosen
}

// Watch bounds conn by ctx: its deadline becomes the deadline of conn, and when ctx is cancelled, reading and writing end at once. The function that
// it returns ends the watch and must be called.
func Watch(ctx context.Context, conn net.Conn) (stop func()) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if b, ok := ctx.(*bounded); ok {
		ctx = b.parent // its deadline is that of conn by now
	}
	cancel := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() { cancel() }
}
