package kinds_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestEveryKindIsCompiledWithoutItsDefaultsResolved(t *testing.T) {
	for _, uri := range []string{"http://127.0.0.1:1/", "https://127.0.0.1:1/", "tcp://127.0.0.1:1", "tls://127.0.0.1:1", "dns://127.0.0.1:1/a.", "icmp://127.0.0.1", "grpc://127.0.0.1:1", "grpcs://127.0.0.1:1/x",
		"unix:///nowhere.sock", "udp://127.0.0.1:1", "ws://127.0.0.1:1", "wss://127.0.0.1:1/x"} {
		r, err := kinds.Compile(&meshv1.Check{Name: "checks/a", Uri: uri, Timeout: durationpb.New(300 * time.Millisecond)}, probetest.Env())
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		probetest.Promises(t, r.Probe(context.Background(), probe.Options{}))
		r.Close()
	}
}

func TestWhatAProberLacksIsNamedInItsRefusal(t *testing.T) {
	env := probe.Env{Capabilities: []string{"http", "tcp", "ipv4"}}
	for _, c := range []struct {
		check      *meshv1.Check
		capability string
		reason     string
	}{
		{&meshv1.Check{Uri: "icmp://192.0.2.1"}, "icmp", "CAP_NET_RAW"},
		{&meshv1.Check{Uri: "grpc://a:1"}, "grpc", "kind grpc"},
		{&meshv1.Check{Uri: "udp://a:1"}, "udp", "kind udp"},
		{&meshv1.Check{Uri: "wss://a"}, "websocket", "kind websocket"},
		{&meshv1.Check{Uri: "http://[2001:db8::1]/"}, "ipv6", "no IPv6"},
		{&meshv1.Check{Uri: "http://a/", Http: &meshv1.HttpProbe{IpFamily: meshv1.IpFamily_IPV6}}, "ipv6", "no IPv6"},
		{&meshv1.Check{Uri: "smtp://a"}, "", "does not understand the URI"},
		{&meshv1.Check{Uri: "http://a/", Http: &meshv1.HttpProbe{Expect: []string{"response.x"}}}, "", `has no field "x"`},
		{&meshv1.Check{Uri: "http://a/", Http: &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: "x"}}}, "", "ca_pem"},
	} {
		_, err := kinds.Compile(c.check, env)
		var refusal *probe.Refusal
		if !errors.As(err, &refusal) || refusal.Capability != c.capability || !strings.Contains(refusal.Reason, c.reason) {
			t.Errorf("%s: got %v", c.check.Uri, err)
		}
	}
	if _, err := kinds.Compile(&meshv1.Check{Uri: "http://[::1]/"}, env); err != nil {
		t.Errorf("a loopback address needs no capability: %v", err)
	}
}

func TestACheckWithOptionsOfANewerBuildIsRefused(t *testing.T) {
	newer := protowire.AppendVarint(protowire.AppendTag(nil, 39, protowire.VarintType), 1)
	for want, add := range map[string]func(c *meshv1.Check) protoreflect.Message{
		"the check": func(c *meshv1.Check) protoreflect.Message { return c.ProtoReflect() },
		"http.tls":  func(c *meshv1.Check) protoreflect.Message { return c.GetHttp().GetTls().ProtoReflect() },
		"http.steps": func(c *meshv1.Check) protoreflect.Message {
			return c.GetHttp().GetSteps()[1].ProtoReflect()
		},
	} {
		c := &meshv1.Check{Name: "checks/a", Uri: "https://a/", Timeout: durationpb.New(time.Second),
			Http: &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{MinVersion: "1.2"}, Steps: []*meshv1.HttpStep{{Url: "/"}, {Url: "/b"}}}}
		r, err := kinds.Compile(c, probetest.Env())
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		c.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 19, protowire.VarintType), 1)) // not about probing
		if r, err = kinds.Compile(c, probetest.Env()); err != nil {
			t.Fatal(err)
		}
		r.Close()
		add(c).SetUnknown(newer)
		_, err = kinds.Compile(c, probetest.Env())
		var refusal *probe.Refusal
		if !errors.As(err, &refusal) || !strings.Contains(refusal.Reason, "an option of "+want+",") {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestCapabilitiesNameTheKindsThatNeedNothing(t *testing.T) {
	got := kinds.Capabilities()
	for _, kind := range []string{"http", "tcp", "tls", "dns", "grpc", "udp", "websocket"} {
		if !slices.Contains(got, kind) {
			t.Errorf("%s is missing in %v", kind, got)
		}
	}
}
