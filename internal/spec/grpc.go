package spec

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits and defaults of grpc checks, as grpc_probe.proto documents them.
const (
	DefaultMessageLimit = 64 << 10
	MaxMessageLimit     = 1 << 20
	maxDescriptorSet    = 12 << 10
)

// grpcStatuses are the codes of gRPC, by number.
var grpcStatuses = [...]string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

// GRPCStatus is a status code in the spelling of the specification, for example NOT_FOUND; CODE_99 for one that it does not know.
func GRPCStatus(code uint32) string {
	if int64(code) < int64(len(grpcStatuses)) {
		return grpcStatuses[code]
	}
	return fmt.Sprintf("CODE_%d", code)
}

// grpcOptions checks a block of kind grpc.
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
	expectations(f, "grpc.expect", o.Expect, grpcSees(t))
	grpcCall(f, o.Call)
	switch {
	case o.Call == nil:
	case o.Watch:
		f.add("grpc.watch", "asks the health service, which call is used instead of; remove one of them")
	case t.Service != "":
		f.add("grpc.call", "does not go with the service %s in the path of the URI, which the health service would be asked about; remove that path", clip(t.Service))
	}
	enum(f, "grpc.compression", o.Compression)
	between(f, "grpc.message_limit", int64(o.MessageLimit), 1, MaxMessageLimit)
	statuses(f, o.Statuses)
}

// statuses checks names of status codes.
func statuses(f *faults, names []string) {
	for i, n := range names {
		at := fmt.Sprintf("grpc.statuses[%d]", i)
		switch {
		case !slices.Contains(grpcStatuses[:], n):
			f.add(at, "%q is no status code of gRPC; write one of %s", clip(n), strings.Join(grpcStatuses[:], ", "))
		case slices.Contains(names[:i], n):
			f.add(at, "%s is given twice; remove it here", n)
		}
		if i > 2*len(grpcStatuses) {
			return // each further one is a repeat
		}
	}
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
	if o.MessageLimit == 0 {
		o.MessageLimit = DefaultMessageLimit
	}
	if secure {
		o.Tls = tlsDefaults(o.Tls)
	}
	return o
}
