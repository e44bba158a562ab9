package spec_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestSchemesOfOtherToolsAreTranslated(t *testing.T) {
	first := regexp.MustCompile(`write ([a-z]+://[^ ,]*)`)
	for uri, want := range map[string]string{
		"ping://a": "write icmp://host", "ping6://a": "icmp.ip_family IPV6", "udp6://a:1": "write udp://host:port with udp.ip_family IPV6", "tcp4://a:1": "tcp.ip_family IPV4",
		"websocket://a": "write wss://host/path", "http3://a": "http.version", "postgres://a": "write tls://host:5432 with tls.starttls postgres", "postgresql://a": "tls.starttls postgres",
		"mysql://a": "tls.starttls mysql", "ssh://a": "write tcp://host:22", "redis://a": "write tcp://host:6379", "rediss://a": "tcp.use_tls", "smtps://a": "write tls://host:465", "NTP://a": "write udp://host:123",
		"ssl://a": "write tls://host:port", "doh://a": "dns.transport",
	} {
		_, err := spec.KindOf(uri)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", uri, err, want)
			continue
		}
		m := first.FindStringSubmatch(err.Error())
		if m == nil {
			t.Errorf("%s: %v says nothing to write", uri, err)
			continue
		}
		if _, err := spec.ParseURI(strings.Replace(m[1], ":port", ":1", 1)); err != nil {
			t.Errorf("%s: what is advised is not valid: %v", uri, err)
		}
	}
}

func TestADatacenterWithoutProbersIsWarnedOf(t *testing.T) {
	c := &meshv1.Check{Name: "checks/shop", Uri: "https://a/", Datacenters: []string{"fra", "iadd", "sydney"}}
	for _, x := range []struct{ enrolled, want []string }{
		{[]string{"fra", "iad"}, []string{`checks[0].datacenters[1]: is "iadd", where no prober is enrolled; did you mean "iad"?`, `checks[0].datacenters[2]: is "sydney", where no prober is enrolled; probers are enrolled in fra, iad`}},
		{[]string{"fra", "iadd", "sydney"}, nil},
		{nil, []string{`"fra", where no prober is enrolled; no prober is enrolled anywhere yet`, `"iadd"`, `"sydney"`}},
	} {
		got := spec.EmptyDatacenters(c, "checks[0]", x.enrolled)
		if len(got) != len(x.want) {
			t.Errorf("%v: %v", x.enrolled, got)
			continue
		}
		for i, w := range x.want {
			if !strings.Contains(got[i].String(), w) {
				t.Errorf("%v: got %s, want %s", x.enrolled, got[i], w)
			}
		}
	}
	if v := spec.ValidateCheck(c, ""); len(v) > 0 {
		t.Errorf("it is refused: %v", v)
	}
}
