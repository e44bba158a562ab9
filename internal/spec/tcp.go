package spec

import (
	"fmt"
	"strings"

	"github.com/probemesh/probemesh/internal/nearest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func tcpOptions(f *faults, c *meshv1.Check, t *Target) {
	o := c.Tcp
	if o == nil {
		return
	}
	bounded(f, "tcp.send", len(o.Send), MaxRequestBody)
	bounded(f, "tcp.send_bytes", len(o.SendBytes), MaxRequestBody)
	if o.Send != "" && len(o.SendBytes) > 0 {
		f.add("tcp.send_bytes", "is given besides send; keep one")
	}
	if len(o.Steps) > 0 && (o.Send != "" || len(o.SendBytes) > 0) {
		f.add("tcp.steps", "is given besides send or send_bytes; make that the first step")
	}
	dialogue(f, "tcp.steps", o.Steps, c, false)
	between(f, "tcp.read_limit", o.ReadLimit, 1, MaxReadLimit)
	between(f, "tcp.line_limit", int64(o.LineLimit), 1, MaxLineLimit)
	tcpSecurity(f, o, t)
	family(f, "tcp.ip_family", o.IpFamily, t)
	if t.Path != "" && o.IpFamily > meshv1.IpFamily_ANY {
		f.add("tcp.ip_family", "does not go with a Unix socket; remove it")
	}
	expectations(f, "tcp.expect", o.Expect, tcpSees(o, t))
}

// tcpSecurity checks the options of TLS, and where it begins.
func tcpSecurity(f *faults, o *meshv1.TcpProbe, t *Target) {
	tlsConfig(f, "tcp.tls", o.Tls)
	begins := o.UseTls || o.Starttls != ""
	if o.Starttls != "" {
		if _, ok := StartTLSPort(o.Starttls); !ok {
			f.add("tcp.starttls", "%q is not a protocol with STARTTLS that probers speak; write one of %s%s", clip(o.Starttls), strings.Join(StartTLSProtocols(), ", "), nearest.Hint(o.Starttls, StartTLSProtocols()))
		}
		if o.UseTls {
			f.add("tcp.starttls", "is given besides use_tls, with which TLS begins at once; keep one")
		}
	}
	for i, s := range o.Steps {
		if s.GetStarttls() && begins {
			f.add(fmt.Sprintf("tcp.steps[%d]", i)+".starttls", "comes when TLS is spoken already; remove it, or what began it before")
		}
		begins = begins || s.GetStarttls()
	}
	switch {
	case o.Tls != nil && !begins:
		f.add("tcp.tls", "is only for use_tls, starttls or a step with starttls; remove it, or say where TLS begins")
	case begins && t.Path != "" && o.Tls.GetServerName() == "" && !o.Tls.GetInsecureSkipVerify():
		f.add("tcp.tls.server_name", "is missing; a Unix socket has no host whose name the certificate could be for. Write it, or insecure_skip_verify")
	}
}

// tcpDefaults resolves the defaults of a block of kind tcp.
func tcpDefaults(o *meshv1.TcpProbe) *meshv1.TcpProbe {
	if o == nil {
		o = &meshv1.TcpProbe{}
	}
	o.IpFamily = familyDefault(o.IpFamily)
	if o.ReadLimit == 0 {
		o.ReadLimit = DefaultReadLimit
	}
	if o.LineLimit == 0 {
		o.LineLimit = DefaultLineLimit
	}
	secure := o.UseTls || o.Starttls != ""
	for _, s := range o.Steps {
		secure = secure || s.GetStarttls()
	}
	if secure {
		o.Tls = tlsDefaults(o.Tls)
	}
	return o
}
