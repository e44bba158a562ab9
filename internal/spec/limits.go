package spec

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits and defaults of EachAddress, as probe_options.proto documents them.
const (
	MaxAddresses        = 16
	DefaultMaxAddresses = 8
	minPhaseLimit       = time.Millisecond
)

// phaseLimits checks bounds on phases, and those of failing and degrading against each other.
func phaseLimits(f *faults, c *meshv1.Check) {
	fail, degraded := bounds(c.GetFailAbove()), bounds(c.GetDegradedAbove())
	for i := range fail {
		most, ok := phaseLimit(f, "fail_above."+fail[i].name, fail[i].bound, timeoutOf(c))
		least, both := phaseLimit(f, "degraded_above."+degraded[i].name, degraded[i].bound, timeoutOf(c))
		if ok && both && least >= most {
			f.add("degraded_above."+degraded[i].name, "%s is not below fail_above.%s, so nothing would ever be degraded by it; lower it, or raise that", text(least), fail[i].name)
		}
	}
}

// phaseLimit is one bound. ok is false when it is unset, or not valid, which is noted.
func phaseLimit(f *faults, field string, d *durationpb.Duration, timeout time.Duration) (value time.Duration, ok bool) {
	value, ok = duration(f, field, d, 0, minPhaseLimit, MaxTimeout)
	if d == nil || !ok {
		return value, false
	}
	if value > timeout {
		f.add(field, "%s is longer than the timeout of %s, so it would never be exceeded; lower it", text(value), text(timeout))
	}
	return value, true
}

// bound is one field of PhaseLimits.
type bound struct {
	name  string
	bound *durationpb.Duration
}

func bounds(l *meshv1.PhaseLimits) []bound {
	return []bound{{"total", l.GetTotal()}, {"resolve", l.GetResolve()}, {"connect", l.GetConnect()}, {"handshake", l.GetHandshake()},
		{"processing", l.GetProcessing()}, {"transfer", l.GetTransfer()}}
}

// eachAddress checks the numbers of addresses, and that the check has a name whose addresses could be probed.
func eachAddress(f *faults, c *meshv1.Check, t *Target) {
	e := c.GetEachAddress()
	if e == nil {
		return
	}
	between(f, "each_address.max_addresses", int64(e.MaxAddresses), 1, MaxAddresses)
	between(f, "each_address.min_healthy", int64(e.MinHealthy), 1, MaxAddresses)
	most := e.MaxAddresses
	if most == 0 {
		most = DefaultMaxAddresses
	}
	if e.MinHealthy > most && e.MinHealthy <= MaxAddresses {
		f.add("each_address.min_healthy", "%d is more than the %d addresses that are probed at most; lower it, or raise max_addresses", e.MinHealthy, most)
	}
	_, literal := t.Addr()
	switch {
	case t.Kind == "": // the URI has been complained of
	case t.Kind == DNS:
		f.add("each_address", "is not for kind dns; write one check for each server")
	case t.Host == "":
		f.add("each_address", "is for a URI with a host, and this one has none; remove it")
	case literal:
		f.add("each_address", "is for a name, and %s is one address; remove it", t.Host)
	}
	if h := c.GetHttp(); h != nil {
		for _, other := range []struct {
			name string
			set  bool
		}{{"proxy_url", h.ProxyUrl != ""}, {"keep_alive", h.KeepAlive}, {"resolve_to", h.ResolveTo != ""}} {
			if other.set {
				f.add("each_address", "does not go with http.%s; remove one of them", other.name)
			}
		}
	}
	for _, k := range []struct {
		name string
		tls  *meshv1.TlsConfig
	}{{"http", c.GetHttp().GetTls()}, {"tcp", c.GetTcp().GetTls()}, {"tls", c.GetTls().GetTls()}, {"grpc", c.GetGrpc().GetTls()}, {"websocket", c.GetWebsocket().GetTls()}} {
		if k.tls.GetResumeSessions() {
			f.add("each_address", "does not go with %s.tls.resume_sessions, since a resumed session shows no certificate, and one that began at one address is resumed at others; remove one of them", k.name)
		}
	}
	if c.GetWebsocket().GetProxyUrl() != "" {
		f.add("each_address", "does not go with websocket.proxy_url; remove one of them")
	}
}

// eachAddressDefaults resolves the defaults of EachAddress; nil stays nil. What min_healthy is without being set depends on how many addresses there are.
func eachAddressDefaults(e *meshv1.EachAddress) {
	if e != nil && e.MaxAddresses == 0 {
		e.MaxAddresses = DefaultMaxAddresses
	}
}
