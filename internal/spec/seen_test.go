package spec_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// said are the faults of a check of which only the options of its kind are given.
func said(uri string, set func(*meshv1.Check)) string {
	c := &meshv1.Check{Name: "checks/a", Uri: uri, Interval: durationpb.New(time.Minute)}
	set(c)
	var lines []string
	for _, v := range spec.ValidateCheck(c, "") {
		lines = append(lines, v.String())
	}
	return strings.Join(lines, "\n")
}

// fieldsOf are the fields that expectations of a kind can rely on, for a check that has all that brings fields: TLS and steps.
func fieldsOf() map[string]struct {
	set    func(*meshv1.Check, []string)
	fields string
} {
	type kind = struct {
		set    func(*meshv1.Check, []string)
		fields string
	}
	const all = " duration timings remote_address uri"
	return map[string]kind{
		"https://x": {func(c *meshv1.Check, e []string) {
			c.Http = &meshv1.HttpProbe{Expect: e, Steps: []*meshv1.HttpStep{{Url: "/"}}}
		}, "status headers header_values body json version redirects tls captures" + all},
		"tcp://x:1": {func(c *meshv1.Check, e []string) {
			c.Tcp = &meshv1.TcpProbe{Expect: e, UseTls: true, Steps: []*meshv1.DialogueStep{{Send: "x"}}}
		}, "body tls captures" + all},
		"udp://x:1": {func(c *meshv1.Check, e []string) {
			c.Udp = &meshv1.UdpProbe{Expect: e, Steps: []*meshv1.DialogueStep{{Send: "x"}}}
		}, "body udp captures" + all},
		"tls://x": {func(c *meshv1.Check, e []string) { c.Tls = &meshv1.TlsProbe{Expect: e} }, "tls" + all},
		"dns://x/a": {func(c *meshv1.Check, e []string) {
			c.Dns = &meshv1.DnsProbe{Expect: e, Transport: meshv1.DnsProbe_QUIC}
		}, "dns tls" + all},
		"icmp://x":    {func(c *meshv1.Check, e []string) { c.Icmp = &meshv1.IcmpProbe{Expect: e} }, "icmp" + all},
		"grpcs://x:1": {func(c *meshv1.Check, e []string) { c.Grpc = &meshv1.GrpcProbe{Expect: e} }, "grpc headers body json tls" + all},
		"wss://x:1/ws": {func(c *meshv1.Check, e []string) {
			c.Websocket = &meshv1.WebsocketProbe{Expect: e, Steps: []*meshv1.WebsocketStep{{Send: "x"}}}
		}, "websocket status headers body json tls captures" + all},
	}
}

func TestExpectationsOnFieldsThatTheKindNeverSetsAreRefused(t *testing.T) {
	fields := (&meshv1.Response{}).ProtoReflect().Descriptor().Fields()
	for uri, kind := range fieldsOf() {
		has := strings.Fields(kind.fields)
		for i := range fields.Len() {
			name := string(fields.Get(i).Name())
			allowed := false
			for _, h := range has {
				allowed = allowed || h == name
			}
			got := said(uri, func(c *meshv1.Check) { kind.set(c, []string{"true", "response." + name + " == response." + name}) })
			switch {
			case allowed && got != "":
				t.Errorf("%s: response.%s is refused: %s", uri, name, got)
			case !allowed && !strings.Contains(got, ".expect[1]: reads response."+name+", which is never set"):
				t.Errorf("%s: response.%s is never set, and is said to be: %q", uri, name, got)
			}
		}
	}
}

func TestExpectationsOnWhatTheOptionsKeepFromBeingSetAreRefused(t *testing.T) {
	http := func(h *meshv1.HttpProbe) func(*meshv1.Check) { return func(c *meshv1.Check) { c.Http = h } }
	tcp := func(o *meshv1.TcpProbe) func(*meshv1.Check) { return func(c *meshv1.Check) { c.Tcp = o } }
	days := []string{"response.tls.days_left > 3"}
	for _, c := range []struct {
		uri  string
		set  func(*meshv1.Check)
		want string // "" when it is accepted
	}{
		{"http://x", http(&meshv1.HttpProbe{Expect: []string{`response.dns.rcode == "NOERROR"`}}), "http.expect[0]: reads response.dns, which is never set for kind http; it has body, duration, header_values,"},
		{"http://x", http(&meshv1.HttpProbe{Expect: []string{"response.icmp.loss < 0.5"}}), "reads response.icmp, which is never set for kind http"},
		{"http://x", http(&meshv1.HttpProbe{Steps: []*meshv1.HttpStep{{Url: "/", Expect: []string{`response.udp.loss < 0.5`}}}}), "http.steps[0].expect[0]: reads response.udp, which is never set for kind http"},
		{"http://x", http(&meshv1.HttpProbe{Expect: days}), ""},
		{"http://x", http(&meshv1.HttpProbe{Expect: days, FollowRedirects: proto.Bool(false)}), "reads response.tls, which is never set for an http URI whose redirects are not followed"},
		{"https://x", http(&meshv1.HttpProbe{Expect: days, FollowRedirects: proto.Bool(false)}), ""},
		{"http://x", http(&meshv1.HttpProbe{Expect: days, FollowRedirects: proto.Bool(false), Steps: []*meshv1.HttpStep{{Url: "HTTPS://x/"}}}), ""},
		{"http://x", http(&meshv1.HttpProbe{Expect: days, FollowRedirects: proto.Bool(false), Steps: []*meshv1.HttpStep{{Url: "/"}}}), "reads response.tls"},
		{"http://x", http(&meshv1.HttpProbe{Expect: []string{`response.captures.id == "7"`}}), "reads response.captures, which is never set without steps, which make them; write http.steps"},
		{"http://x", http(&meshv1.HttpProbe{Expect: []string{`!has(response.dns) && response.status == 200`}}), ""},
		{"tcp://x:1", tcp(&meshv1.TcpProbe{Expect: []string{"response.status == 200"}}), "tcp.expect[0]: reads response.status, which is never set for kind tcp; it has body, duration, remote_address, timings, uri"},
		{"tcp://x:1", tcp(&meshv1.TcpProbe{Expect: []string{"response.json.ok"}}), "reads response.json, which is never set for kind tcp; take the value out of the answer with a step's `capture`"},
		{"tcp://x:1", tcp(&meshv1.TcpProbe{Expect: days}), "reads response.tls, which is never set without TLS; set tcp.use_tls"},
		{"tcp://x:1", tcp(&meshv1.TcpProbe{Expect: days, Starttls: "smtp"}), ""},
		{"tcp://x:1", tcp(&meshv1.TcpProbe{Expect: days, Steps: []*meshv1.DialogueStep{{Starttls: true}}}), ""},
		{"tcp://x:1", tcp(&meshv1.TcpProbe{Expect: []string{"!has(response.tls.version) || response.tls.days_left > 3"}}), ""},
		{"dns://x/a", func(c *meshv1.Check) { c.Dns = &meshv1.DnsProbe{Expect: days} }, "reads response.tls, which is never set without an encrypted transport"},
		{"dns://x/a", func(c *meshv1.Check) { c.Dns = &meshv1.DnsProbe{Expect: []string{"response.status == 0"}} }, "write response.dns.rcode"},
		{"grpc://x:1", func(c *meshv1.Check) { c.Grpc = &meshv1.GrpcProbe{Expect: days} }, "reads response.tls, which is never set for a grpc URI; write grpcs://"},
		{"grpc://x:1", func(c *meshv1.Check) { c.Grpc = &meshv1.GrpcProbe{Expect: []string{"response.status == 0"}} }, "write response.grpc.status"},
		{"ws://x", func(c *meshv1.Check) { c.Websocket = &meshv1.WebsocketProbe{Expect: days} }, "reads response.tls, which is never set for a ws URI; write wss://"},
	} {
		got := said(c.uri, c.set)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.uri, got, c.want)
		}
	}
}

func TestNothingIsSaidOfTheExpectationsOfABlockOfAnotherKind(t *testing.T) {
	got := said("tcp://x:1", func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Expect: []string{"response.icmp.loss < 0.5"}} })
	if strings.Contains(got, "never set") || !strings.Contains(got, "is only for an http or https URI") {
		t.Error(got)
	}
}
