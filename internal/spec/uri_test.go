package spec_test

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/internal/spec"
)

func TestURIsAreTakenApart(t *testing.T) {
	for uri, want := range map[string]spec.Target{
		"http://a.example.com":                               {Kind: spec.HTTP, Scheme: "http", Host: "a.example.com", Port: 80},
		"HTTPS://a.example.com:8443/x?y=z":                   {Kind: spec.HTTP, Scheme: "https", Host: "a.example.com", Port: 8443, Secure: true},
		"https://[2001:db8::1]/":                             {Kind: spec.HTTP, Scheme: "https", Host: "2001:db8::1", Port: 443, Secure: true},
		"tcp://db:5432":                                      {Kind: spec.TCP, Scheme: "tcp", Host: "db", Port: 5432},
		"unix:/run/a.sock":                                   {Kind: spec.TCP, Scheme: "unix", Path: "/run/a.sock"},
		"unix:///run/a%20b.sock":                             {Kind: spec.TCP, Scheme: "unix", Path: "/run/a b.sock"},
		"udp://192.0.2.1:161":                                {Kind: spec.UDP, Scheme: "udp", Host: "192.0.2.1", Port: 161},
		"ws://a.example.com/chat?x=y":                        {Kind: spec.WEBSOCKET, Scheme: "ws", Host: "a.example.com", Port: 80},
		"wss://a.example.com":                                {Kind: spec.WEBSOCKET, Scheme: "wss", Host: "a.example.com", Port: 443, Secure: true},
		"tls://a.example.com":                                {Kind: spec.TLS, Scheme: "tls", Host: "a.example.com", Port: 443, Secure: true},
		"dns:///example.com":                                 {Kind: spec.DNS, Scheme: "dns", Port: 53, Name: "example.com.", Type: dns.TypeA, Class: dns.ClassINET},
		"dns://192.0.2.53/example.com?type=mx":               {Kind: spec.DNS, Scheme: "dns", Host: "192.0.2.53", Port: 53, Name: "example.com.", Type: dns.TypeMX, Class: dns.ClassINET},
		"dns://[2001:db8::53]:5353/a.b?CLASS=in;TYPE=TYPE65": {Kind: spec.DNS, Scheme: "dns", Host: "2001:db8::53", Port: 5353, PortGiven: true, Name: "a.b.", Type: dns.TypeHTTPS, Class: dns.ClassINET},
		"dns:www.example.com.?type=AAAA":                     {Kind: spec.DNS, Scheme: "dns", Port: 53, Name: "www.example.com.", Type: dns.TypeAAAA, Class: dns.ClassINET},
		"dns://ns1/version.bind?class=ch;type=TXT":           {Kind: spec.DNS, Scheme: "dns", Host: "ns1", Port: 53, Name: "version.bind.", Type: dns.TypeTXT, Class: dns.ClassCHAOS},
		"dns://ns1/a?class=CLASS7":                           {Kind: spec.DNS, Scheme: "dns", Host: "ns1", Port: 53, Name: "a.", Type: dns.TypeA, Class: 7},
		"dns://ns1/.?type=NS":                                {Kind: spec.DNS, Scheme: "dns", Host: "ns1", Port: 53, Name: ".", Type: dns.TypeNS, Class: dns.ClassINET},
		"icmp://192.0.2.1":                                   {Kind: spec.ICMP, Scheme: "icmp", Host: "192.0.2.1"},
		"grpc://a:50051":                                     {Kind: spec.GRPC, Scheme: "grpc", Host: "a", Port: 50051},
		"grpcs://a:443/pkg.v1.Service":                       {Kind: spec.GRPC, Scheme: "grpcs", Host: "a", Port: 443, Secure: true, Service: "pkg.v1.Service"},
	} {
		got, err := spec.ParseURI(uri)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		if (got.URL != nil) != (want.Kind == spec.HTTP || want.Kind == spec.WEBSOCKET) {
			t.Errorf("%s: URL is %v", uri, got.URL)
		}
		got.URL = nil
		if *got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", uri, *got, want)
		}
	}
}

func TestFaultyURIsAreExplained(t *testing.T) {
	for uri, want := range map[string]string{
		"":                                      "is missing",
		"example.com":                           "has no scheme",
		"example.com:80":                        "has no scheme",
		"localhost:80":                          "has no known scheme",
		"smtp://a":                              `scheme "smtp" is not known; write tls://host:25 with tls.starttls smtp to watch TLS within it, or tcp://host:25 with tcp.steps that speak it`,
		"gopher://a":                            `scheme "gopher" is not known; the known ones are http, https, tcp, unix, udp, ws, wss, tls, dns, icmp, grpc and grpcs`,
		"http:a":                                "has no // after the scheme",
		"http://":                               "has no host",
		"http://u:p@a/":                         "has user information",
		"http://a/#top":                         "has a fragment",
		"http://a b/":                           "cannot be parsed",
		"http://a:0/":                           "port 0, which is not 1 to 65535",
		"http://a:70000/":                       "port 70000, which is not 1 to 65535",
		"http://-a/":                            "whose labels",
		"http://a..b/":                          "whose labels",
		"http://münchen.example/":               "write its xn-- form",
		"http://999.1.1.1/":                     "not an IPv4 address",
		"tcp://a":                               "has no port; write it as tcp://host:port",
		"tcp://a:1/x":                           "has a path (/x)",
		"tcp://a:1?x":                           "has a query (?x)",
		"tls://a/x":                             "has a path",
		"unix://run/a.sock":                     "three slashes",
		"unix:///":                              "has no path of a socket",
		"unix:///a?x":                           "has a query",
		"unix:///" + strings.Repeat("x", 107):   "more than the 107",
		"udp://a":                               "has no port",
		"udp://a:1/x":                           "has a path (/x)",
		"ws://a/#top":                           "has a fragment",
		"icmp://a:7":                            "has a port, which ICMP does not know",
		"dns://1.1.1.1":                         "has no name to ask for",
		"dns://1.1.1.1/a?type=NOPE":             `record type "NOPE", which is not known`,
		"dns://1.1.1.1/a?type=AXFR":             "one answer",
		"dns://1.1.1.1/a?class=XY":              "which is not known; write IN, CH, HS or ANY",
		"dns://1.1.1.1/a?class=NONE":            "which is not known",
		"dns://1.1.1.1/a?foo=1":                 "only type and class are known",
		"dns://1.1.1.1/a..b":                    "is not a domain name",
		"grpc://a":                              "has no port",
		"http://a/" + strings.Repeat("x", 2048): "more than 2048",
	} {
		_, err := spec.ParseURI(uri)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %v, want %q", uri, err, want)
		}
	}
}

func TestKindIsDecidedByTheScheme(t *testing.T) {
	for uri, want := range map[string]spec.Kind{"https://a": spec.HTTP, "tls://a": spec.TLS, "GRPCS://a:1": spec.GRPC, "dns:a": spec.DNS, "icmp://": spec.ICMP} {
		if got, err := spec.KindOf(uri); got != want || err != nil {
			t.Errorf("%s: %s, %v", uri, got, err)
		}
	}
	if _, err := spec.KindOf("gopher://a"); err == nil || !strings.Contains(err.Error(), "grpcs") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"http://a/b", "dns:a?type=MX;class=IN", "tcp://[::1%25eth0]:1", "grpc://a:1/x", "icmp://\x00", "dns:%zz", "http://a:/", "unix:///a.sock", "udp://[::1]:1", "wss://a/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := spec.ParseURI(s)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("an error without words")
			}
			return
		}
		kind, err := spec.KindOf(s)
		if err != nil || kind != target.Kind {
			t.Errorf("KindOf says %s, %v; ParseURI says %s", kind, err, target.Kind)
		}
		if target.Host == "" && target.Kind != spec.DNS && target.Path == "" {
			t.Error("accepted without a host")
		}
		if target.Port == 0 && target.Kind != spec.ICMP && target.Path == "" {
			t.Error("accepted without a port")
		}
		if target.Kind == spec.DNS && !dns.IsFqdn(target.Name) {
			t.Errorf("name %q", target.Name)
		}
	})
}
