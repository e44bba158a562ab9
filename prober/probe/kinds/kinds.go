// Package kinds is the one place that lists the kinds of probe: it makes a runner of a check, and says what this machine can do.
package kinds

import (
	"context"
	"fmt"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/dns"
	"github.com/probemesh/probemesh/prober/probe/each"
	"github.com/probemesh/probemesh/prober/probe/grpc"
	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/icmp"
	"github.com/probemesh/probemesh/prober/probe/tcp"
	"github.com/probemesh/probemesh/prober/probe/tls"
	"github.com/probemesh/probemesh/prober/probe/udp"
	"github.com/probemesh/probemesh/prober/probe/websocket"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Compile makes a runner of a check, whose defaults need not be resolved. The error is always a *probe.Refusal: this prober lacks what the check
// needs, or the check is not valid for this build. c must not change afterwards. The caller closes the runner.
func Compile(c *meshv1.Check, env probe.Env) (probe.Runner, error) {
	if path := unknown(c.ProtoReflect(), ""); path != "" {
		return nil, &probe.Refusal{Reason: fmt.Sprintf("this prober's build is older than the check: it does not know an option of %s, and would probe less than the check asks for; update the prober", path)}
	}
	target, err := spec.ParseURI(c.GetUri())
	if err != nil {
		return nil, &probe.Refusal{Reason: "this prober does not understand the URI: " + err.Error()}
	}
	e := spec.Effective(c, 1)
	if refusal := lacking(e, target, env); refusal != nil {
		return nil, refusal
	}
	shareOptions(e, env.Shared)
	runner, err := compile(e, target, env)
	if err == nil {
		if _, literal := target.Addr(); e.EachAddress != nil && target.Kind != spec.DNS && target.Host != "" && !literal {
			runner = each.Wrap(e, target.Host, family(e), runner)
		}
		if env.Fence != nil {
			runner = fenced{runner, env.Fence}
		}
		return runner, nil
	}
	if refusal, ok := err.(*probe.Refusal); ok { //nolint:errorlint // kinds return it unwrapped
		return nil, refusal
	}
	return nil, &probe.Refusal{Reason: fmt.Sprintf("this prober cannot compile %s: %s", c.GetName(), err)}
}

// shareOptions has a check, whose defaults are resolved, hold its options in common with all that have the same: they are most of a plain check.
func shareOptions(c *meshv1.Check, s *probe.Shared) {
	c.Http, c.Tcp, c.Tls, c.Dns = probe.ShareMessage(s, c.Http), probe.ShareMessage(s, c.Tcp), probe.ShareMessage(s, c.Tls), probe.ShareMessage(s, c.Dns)
	c.Icmp, c.Grpc, c.Udp, c.Websocket = probe.ShareMessage(s, c.Icmp), probe.ShareMessage(s, c.Grpc), probe.ShareMessage(s, c.Udp), probe.ShareMessage(s, c.Websocket)
}

// fenced is a runner whose probes go nowhere but where the prober's fence permits.
type fenced struct {
	probe.Runner
	fence *probe.Fence
}

// Probe implements probe.Runner.
func (r fenced) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	o.Fence = r.fence
	return r.Runner.Probe(ctx, o)
}

func compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	switch t.Kind {
	case spec.HTTP:
		return http.Compile(c, t, env)
	case spec.TCP:
		return tcp.Compile(c, t, env)
	case spec.TLS:
		return tls.Compile(c, t, env)
	case spec.DNS:
		return dns.Compile(c, t, env)
	case spec.ICMP:
		return icmp.Compile(c, t, env)
	case spec.GRPC:
		return grpc.Compile(c, t, env)
	case spec.UDP:
		return udp.Compile(c, t, env)
	case spec.WEBSOCKET:
		return websocket.Compile(c, t, env)
	}
	return nil, &probe.Refusal{Capability: string(t.Kind), Reason: fmt.Sprintf("this prober does not know kind %s", t.Kind)}
}

// lacking says which capability a check needs that the prober lacks; nil when it has them all.
func lacking(c *meshv1.Check, t *spec.Target, env probe.Env) *probe.Refusal {
	if !env.Can(string(t.Kind)) {
		reason := fmt.Sprintf("this prober does not run checks of kind %s", t.Kind)
		if t.Kind == spec.ICMP {
			reason = icmp.Unavailable
		}
		return &probe.Refusal{Capability: string(t.Kind), Reason: reason}
	}
	family := needs(c, t)
	if family == "" || env.Can(family) {
		return nil
	}
	name := "IPv4"
	if family == probe.IPv6 {
		name = "IPv6"
	}
	return &probe.Refusal{Capability: family, Reason: "this prober has no " + name + ": no address besides loopback and link-local, and no route"}
}

// needs is the IP family that a check cannot do without, empty for any. Loopback addresses are always there.
func needs(c *meshv1.Check, t *spec.Target) string {
	if addr, ok := t.Addr(); ok {
		switch {
		case addr.IsLoopback():
			return ""
		case addr.Unmap().Is4():
			return probe.IPv4
		}
		return probe.IPv6
	}
	switch family(c) {
	case meshv1.IpFamily_IPV4:
		return probe.IPv4
	case meshv1.IpFamily_IPV6:
		return probe.IPv6
	}
	return ""
}

// family is the IP family that a check asks for, in the options of its kind.
func family(c *meshv1.Check) meshv1.IpFamily_Preference {
	for _, p := range []meshv1.IpFamily_Preference{c.GetHttp().GetIpFamily(), c.GetTcp().GetIpFamily(), c.GetTls().GetIpFamily(),
		c.GetDns().GetIpFamily(), c.GetIcmp().GetIpFamily(), c.GetGrpc().GetIpFamily(), c.GetUdp().GetIpFamily(), c.GetWebsocket().GetIpFamily()} {
		if p == meshv1.IpFamily_IPV4 || p == meshv1.IpFamily_IPV6 {
			return p
		}
	}
	return meshv1.IpFamily_ANY
}

// Capabilities is what this machine can do, found out by trying: the kinds that it can run, "ipv4" and "ipv6"; and the options that not every build knows ([spec.OptionCapabilities]). It opens and closes a few
// sockets and sends nothing.
func Capabilities() []string {
	out := []string{string(spec.HTTP), string(spec.TCP), string(spec.TLS), string(spec.DNS), string(spec.GRPC), string(spec.UDP), string(spec.WEBSOCKET)}
	if icmp.Available() {
		out = append(out, string(spec.ICMP))
	}
	if probe.HasFamily(true) {
		out = append(out, probe.IPv4)
	}
	if probe.HasFamily(false) {
		out = append(out, probe.IPv6)
	}
	return append(out, spec.OptionCapabilities()...)
}
