package blackbox_test

import (
	"net/url"
	"regexp"
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
		{"a target without a host, or that is no URL, is refused, and not looked up", func(c combination, _ string) bool {
			return hostless(c)
		}},
		{"parameter hostname is what prober tcp verifies, as in later versions", func(c combination, _ string) bool {
			return c.module == "tcp_tls" && c.hostname == "bad.example"
		}},
		{"prober grpc reaches a target that is an IPv6 address", func(c combination, _ string) bool {
			return strings.HasPrefix(c.module, "grpc") && strings.Contains(c.url, "::")
		}},
		{"an IPv6 address without brackets before its port gets them before a proxy sees it", func(c combination, _ string) bool {
			return strings.HasPrefix(c.module, "http") && strings.Contains(c.module, "proxy") && strings.Contains(c.url, "::ffff:")
		}},
		{"an empty proxy_url is no proxy, as in later versions", func(c combination, _ string) bool {
			return strings.Contains(c.module, "proxyempty")
		}},
	}
}

// hostless tells whether a target of probers http, grpc or tcp names no host, or is no URL for package net/url of today.
func hostless(c combination) bool {
	if strings.HasPrefix(c.module, "tcp") {
		return strings.HasPrefix(c.url, ":")
	}
	if !strings.HasPrefix(c.module, "http") && !strings.HasPrefix(c.module, "grpc") {
		return false
	}
	text := c.url
	if !strings.HasPrefix(text, "http://") && !strings.HasPrefix(text, "https://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	return err != nil && !bare.MatchString(text) || err == nil && u.Hostname() == ""
}

// bare are the hosts that are mended: an IPv6 address without brackets, and an IPv4 address within them.
var bare = regexp.MustCompile(`^https?://(([0-9a-f:.]*:)[0-9]+|\[[0-9.]+\](:[0-9]+)?)(/|$)`)

// explained is the reason of a difference, "" when there is none.
func explained(c combination, d string) string {
	for _, r := range reasons() {
		if r.holds(c, d) {
			return r.text
		}
	}
	return ""
}
