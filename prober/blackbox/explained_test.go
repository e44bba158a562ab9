package blackbox_test

import (
	"slices"
	"strings"
)

// reason is why ours differs from Debian's exporter on purpose.
type reason struct {
	text  string
	holds func(c combination, d string) bool
}

// reasons are all that there are. docs/blackbox.md has them too.
func reasons() []reason {
	is := func(module string, targets ...string) func(combination, string) bool {
		return func(c combination, _ string) bool {
			return c.module == module && slices.ContainsFunc(targets, func(t string) bool { return strings.HasPrefix(c.target, t) })
		}
	}
	return []reason{
		{"a module of prober grpc without a section grpc may use IPv4 too, as with one", is("grpc", "")},
		{"a gRPC server that never answers ends with the timeout, as in later versions", func(c combination, d string) bool {
			return c.target == "grpcslow@" && d == "theirs does not answer" || strings.HasPrefix(c.module, "grpc") && d == "probe_grpc_status_code 14, ours 4"
		}},
		{"a target without a host is refused, and not looked up", func(c combination, d string) bool {
			return (c.url == "http://" || c.url == "://" || c.url == ":22") && (strings.HasPrefix(d, "probe_ip_") || strings.HasSuffix(d, "is missing (0)"))
		}},
		{"parameter hostname is what prober tcp verifies, as in later versions", func(c combination, _ string) bool {
			return c.module == "tcp_tls" && c.hostname == "bad.example"
		}},
	}
}

// explained is the reason of a difference, "" when there is none.
func explained(c combination, d string) string {
	for _, r := range reasons() {
		if r.holds(c, d) {
			return r.text
		}
	}
	return ""
}
