package spec

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Defaults of a check, as check.proto documents them.
const (
	DefaultInterval     = 60 * time.Second
	DefaultTimeout      = 10 * time.Second
	DefaultProbers      = 3
	DefaultMaxRedirects = 10
	DefaultBodyLimit    = 1 << 20
	DefaultReadLimit    = 64 << 10
	DefaultICMPCount    = 3
	DefaultICMPPayload  = 56
	DefaultMinVersion   = "1.2"
)

// Defaults of a receiver, as receiver.proto documents them.
const (
	DefaultGiveUpAfter    = 24 * time.Hour
	DefaultWebhookTimeout = 10 * time.Second
)

// Normalize brings a check that a user wrote into the form in which it is stored: bare ids become full names, output-only fields are
// cleared. Names that are not valid stay as they are, for [ValidateCheck] to find. It changes c.
func Normalize(c *meshv1.Check) {
	c.Name = full(Checks, c.GetName())
	for i, r := range c.GetReceivers() {
		c.Receivers[i] = full(Receivers, r)
	}
	clearOutput(c)
}

// NormalizeReceiver is [Normalize] for receivers.
func NormalizeReceiver(r *meshv1.Receiver) {
	r.Name = full(Receivers, r.GetName())
	r.CreateTime, r.UpdateTime, r.LastDeliveryTime = nil, nil, nil
	r.Owed, r.LastError, r.DeliveryUnknown = 0, "", false
}

// full is the full name, or name itself when it is not valid.
func full(collection, name string) string {
	if n, err := ParseName(collection, name); err == nil {
		return n
	}
	return name
}

// clearOutput clears the output-only fields of a check.
func clearOutput(c *meshv1.Check) {
	c.CreateTime, c.UpdateTime, c.Status = nil, nil, nil
	c.Revision = 0
}

// Effective is a copy of a valid check in which every default is resolved. datacenters is how many datacenters have an enrolled
// prober; the default of probers rests on it. The options of the check's kind are set, the defaults of their fields too; what has no
// default (expectations, certificates) stays as it is.
func Effective(c *meshv1.Check, datacenters int) *meshv1.Check {
	e := proto.CloneOf(c)
	if e.Interval == nil {
		e.Interval = durationpb.New(DefaultInterval)
	}
	if e.Timeout == nil {
		e.Timeout = durationpb.New(min(DefaultTimeout, e.Interval.AsDuration()))
	}
	if n := len(e.Datacenters); n > 0 {
		datacenters = min(datacenters, n)
	}
	if e.Probers == 0 {
		e.Probers = int32(min(DefaultProbers, max(1, datacenters)))
	}
	if e.Quorum == 0 {
		e.Quorum = majority(e.Probers)
	}
	if len(e.Distinct) == 0 {
		e.Distinct = DefaultDistinct()
	}
	if len(e.Spread) == 0 {
		e.Spread = DefaultSpread()
	}
	eachAddressDefaults(e.EachAddress)
	kindDefaults(e)
	return e
}

// majority of n.
func majority(n int32) int32 { return n/2 + 1 }

// kindDefaults resolves the defaults of the options of the check's kind.
func kindDefaults(e *meshv1.Check) {
	kind, err := KindOf(e.Uri)
	if err != nil {
		return
	}
	switch kind {
	case HTTP:
		e.Http = httpDefaults(e.Http)
	case TCP:
		e.Tcp = tcpDefaults(e.Tcp)
	case TLS:
		e.Tls = tlsProbeDefaults(e.Tls)
	case DNS:
		e.Dns = dnsDefaults(e.Dns)
	case ICMP:
		e.Icmp = icmpDefaults(e.Icmp)
	case GRPC:
		e.Grpc = grpcDefaults(e.Grpc, strings.HasPrefix(strings.ToLower(e.Uri), "grpcs:"))
	case UDP:
		e.Udp = udpDefaults(e.Udp)
	case WEBSOCKET:
		e.Websocket = websocketDefaults(e.Websocket, strings.HasPrefix(strings.ToLower(e.Uri), "wss:"))
	}
}

func familyDefault(p meshv1.IpFamily_Preference) meshv1.IpFamily_Preference {
	if p == meshv1.IpFamily_PREFERENCE_UNSPECIFIED {
		return meshv1.IpFamily_ANY
	}
	return p
}

// ForAssignment is a copy of a check with what a prober needs only: no labels, receivers, annotations, display name, and of the
// output-only fields the revision alone.
func ForAssignment(c *meshv1.Check) *meshv1.Check {
	a := proto.CloneOf(c)
	revision := a.Revision
	clearOutput(a)
	a.Revision = revision
	a.Etag, a.DisplayName = "", ""
	a.Labels, a.Annotations, a.Receivers = nil, nil, nil
	return a
}

// DefaultDistinct are the dimensions in which failing votes must not all be the same, unless a check says otherwise: what several datacenters are most likely to share
// and to fail by together.
func DefaultDistinct() []string { return []string{"build", "provider", "region", "resolver"} }

// DefaultSpread are the dimensions besides the datacenter in which the probers of a check should differ, unless it says otherwise: what the operator says of who runs the machines,
// and what the mesh sees of where they are.
func DefaultSpread() []string { return []string{"provider", "network", "region"} }
