package spec

import meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"

func tcpOptions(f *faults, o *meshv1.TcpProbe, t *Target) {
	if o == nil {
		return
	}
	bounded(f, "tcp.send", len(o.Send), MaxRequestBody)
	between(f, "tcp.read_limit", o.ReadLimit, 1, MaxReadLimit)
	family(f, "tcp.ip_family", o.IpFamily, t)
	expectations(f, "tcp.expect", o.Expect)
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
	return o
}
