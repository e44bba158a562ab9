package spec

import (
	"strings"

	"golang.org/x/net/http/httpguts"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func grpcOptions(f *faults, o *meshv1.GrpcProbe, t *Target) {
	if o == nil {
		return
	}
	if o.Tls != nil && t.Kind == GRPC && !t.Secure {
		f.add("grpc.tls", "is only for a grpcs URI; remove it, or write grpcs:// instead of grpc://")
	}
	tlsConfig(f, "grpc.tls", o.Tls)
	metadata(f, o.Metadata)
	family(f, "grpc.ip_family", o.IpFamily, t)
	if o.Authority != "" && (!httpguts.ValidHostHeader(o.Authority) || strings.ContainsAny(o.Authority, "/ @")) {
		f.add("grpc.authority", "%q is not a host with an optional port", clip(o.Authority))
	}
	expectations(f, "grpc.expect", o.Expect)
}

// metadata checks the keys and values of gRPC metadata.
func metadata(f *faults, m map[string]string) {
	count(f, "grpc.metadata", len(m), maxHeaders)
	size := 0
	for _, k := range sortedKeys(m) {
		at := element("grpc.metadata", k)
		size += len(k) + len(m[k])
		switch {
		case k == "" || strings.Trim(k, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "":
			f.add(at, "the key is not a metadata key; write lower-case letters, digits, -, _ and .")
		case strings.HasPrefix(k, "grpc-"):
			f.add(at, "keys that begin with grpc- belong to gRPC itself; use another")
		case k == "content-type" || k == "te" || k == "user-agent":
			f.add(at, "is set by the prober itself; remove it")
		}
		if !strings.HasSuffix(k, "-bin") && strings.IndexFunc(m[k], func(r rune) bool { return r < 0x20 || r > 0x7e }) >= 0 {
			f.add(at, "the value is not printable ASCII; use a key that ends with -bin for other bytes")
		}
	}
	bounded(f, "grpc.metadata", size, maxMetadataSize)
}

// grpcDefaults resolves the defaults of a block of kind grpc; secure tells whether the URI asks for TLS.
func grpcDefaults(o *meshv1.GrpcProbe, secure bool) *meshv1.GrpcProbe {
	if o == nil {
		o = &meshv1.GrpcProbe{}
	}
	o.IpFamily = familyDefault(o.IpFamily)
	if secure {
		o.Tls = tlsDefaults(o.Tls)
	}
	return o
}
