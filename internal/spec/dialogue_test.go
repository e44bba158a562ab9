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

func TestTemplatesAreTakenApartAndExpanded(t *testing.T) {
	values := map[string]string{"a": "\x00\xff", "1": "${a}"}
	for text, want := range map[string]string{
		"":                    "",
		"plain $ {a} $$":      "plain $ {a} $$",
		"<${a}|${1}|${gone}>": "<\x00\xff|${a}|>",
		"$${a} and $$${a}":    "${a} and $\x00\xff",
		"$$$${a} $$ {a} $$a$": "$${a} $$ {a} $$a$",
		`\x41\n`:              `\x41\n`,
	} {
		got, err := spec.ParseTemplate(text, false)
		if err != nil || string(got.Expand(nil, func(n string) string { return values[n] })) != want {
			t.Errorf("%q: %q, %v", text, got.Expand(nil, func(n string) string { return values[n] }), err)
		}
	}
	got, err := spec.ParseTemplate(`\xff\x00\0\a\b\f\n\r\t\v\\${a}$`, true)
	if text := string(got.Expand(nil, func(n string) string { return values[n] })); err != nil || text != "\xff\x00\x00\a\b\f\n\r\t\v\\\x00\xff$" {
		t.Errorf("%q, %v", text, err)
	}
	for text, want := range map[string]string{"${a": "without a }", "${a b}": "not the name of a capture", "${}": "not the name", `\q`: `has the escape`, `\x4`: "has the escape", `\`: "ends with a single"} {
		if _, err := spec.ParseTemplate(text, true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPatternsThatCostTooMuchAreRefused(t *testing.T) {
	for pattern, want := range map[string]string{
		"(":                       "is not a regular expression: missing closing )",
		"a{1001}":                 "is not a regular expression: invalid repeat count",
		`(abcd){400}`:             "steps to match, which is more than 1000",
		strings.Repeat("a", 1001): "has 1001 characters",
	} {
		if _, err := spec.Regexp(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: %v", pattern, err)
		}
	}
	if _, err := spec.Regexp(`^220[ -](?P<host>\S{1,255}) .*ESMTP`); err != nil {
		t.Error(err)
	}
}

func TestEachFaultOfADialogueIsNamedWithItsFieldAndItsCure(t *testing.T) {
	tcp := func(o *meshv1.TcpProbe) *meshv1.Check { return &meshv1.Check{Uri: "tcp://a:1", Tcp: o} }
	steps := func(s ...*meshv1.DialogueStep) *meshv1.Check { return tcp(&meshv1.TcpProbe{Steps: s}) }
	udp := func(o *meshv1.UdpProbe) *meshv1.Check { return &meshv1.Check{Uri: "udp://a:1", Udp: o} }
	ws := func(o *meshv1.WebsocketProbe) *meshv1.Check { return &meshv1.Check{Uri: "ws://a/", Websocket: o} }
	messages := func(s ...*meshv1.WebsocketStep) *meshv1.Check { return ws(&meshv1.WebsocketProbe{Steps: s}) }
	type step = meshv1.DialogueStep
	many := make([]*step, 33)
	for i := range many {
		many[i] = &step{Send: "x"}
	}
	for _, c := range []struct {
		check          *meshv1.Check
		field, problem string
	}{
		{steps(many...), "tcp.steps", "has 33 entries"},
		{steps(&step{}), "tcp.steps[0]", "does nothing"},
		{steps(&step{Name: "A"}, &step{Send: "x"}), "tcp.steps[0].name", "is not 1 to 63 characters"},
		{steps(&step{Name: "a", Send: "x"}, &step{Name: "a", Send: "x"}), "tcp.steps[1].name", "the name of an earlier step"},
		{steps(&step{Send: "x", SendEscaped: "y"}), "tcp.steps[0]", "more than one of send"},
		{steps(&step{Send: "${host}"}), "tcp.steps[0].send", "which no earlier step captures"},
		{steps(&step{Send: "${1}"}), "tcp.steps[0].send", "the newest match before it has 0 groups"},
		{steps(&step{Send: "${"}), "tcp.steps[0].send", "without a }"},
		{steps(&step{SendEscaped: `\q`}), "tcp.steps[0].send_escaped", "which is not known"},
		{steps(&step{Expect: "("}), "tcp.steps[0].expect", "is not a regular expression"},
		{steps(&step{Expect: "(?P<Host>x)"}), "tcp.steps[0].expect", `a group named "Host"`},
		{steps(&step{Expect: "x", ExpectBytes: []byte("x")}), "tcp.steps[0].expect_bytes", "besides expect"},
		{steps(&step{Send: "x", Reject: "x"}), "tcp.steps[0].reject", "without expect"},
		{steps(&step{Send: "x", Match: meshv1.DialogueStep_TEXT}), "tcp.steps[0].match", "without expect"},
		{steps(&step{Send: "x", Capture: []*meshv1.Capture{{Name: "a"}}}), "tcp.steps[0].capture", "where nothing is expected"},
		{steps(&step{Expect: "x", Capture: []*meshv1.Capture{{Name: "a", Regexp: "("}}}), "tcp.steps[0].capture[0].regexp", "cannot be compiled"},
		{steps(&step{Send: "x", Timeout: durationpb.New(11 * time.Second)}), "tcp.steps[0].timeout", "is longer than 10s"},
		{steps(&step{Starttls: true}, &step{Starttls: true}), "tcp.steps[1].starttls", "when TLS is spoken already"},
		{tcp(&meshv1.TcpProbe{Steps: []*step{{Send: "x"}}, Send: "y"}), "tcp.steps", "make that the first step"},
		{tcp(&meshv1.TcpProbe{Send: "x", SendBytes: []byte("y")}), "tcp.send_bytes", "keep one"},
		{tcp(&meshv1.TcpProbe{Tls: &meshv1.TlsConfig{}}), "tcp.tls", "say where TLS begins"},
		{tcp(&meshv1.TcpProbe{Starttls: "http"}), "tcp.starttls", "write one of "},
		{tcp(&meshv1.TcpProbe{Starttls: "smtp", UseTls: true}), "tcp.starttls", "keep one"},
		{tcp(&meshv1.TcpProbe{LineLimit: 65537}), "tcp.line_limit", "is not 1 to 65536"},
		{&meshv1.Check{Uri: "unix:///a", Tcp: &meshv1.TcpProbe{UseTls: true}}, "tcp.tls.server_name", "is missing"},
		{&meshv1.Check{Uri: "unix:///a", Tcp: &meshv1.TcpProbe{IpFamily: meshv1.IpFamily_IPV4}}, "tcp.ip_family", "does not go with a Unix socket"},
		{udp(&meshv1.UdpProbe{Count: 21}), "udp.count", "is not 1 to 20"},
		{udp(&meshv1.UdpProbe{Count: 11, Interval: durationpb.New(time.Second)}), "udp.interval", "makes the last of 11 datagrams leave after 10s"},
		{udp(&meshv1.UdpProbe{MaxLoss: proto.Float64(1.5)}), "udp.max_loss", "is not 0.0 to 1.0"},
		{udp(&meshv1.UdpProbe{AnswerOptional: true, Match: "x"}), "udp.answer_optional", "does not go together"},
		{udp(&meshv1.UdpProbe{Steps: []*step{{Send: "x"}}, Count: 2}), "udp.steps", "does not go together"},
		{udp(&meshv1.UdpProbe{Steps: []*step{{Starttls: true}}}), "udp.steps[0]", "which datagrams do not know"},
		{ws(&meshv1.WebsocketProbe{Tls: &meshv1.TlsConfig{}}), "websocket.tls", "write wss://"},
		{ws(&meshv1.WebsocketProbe{Headers: map[string]string{"Sec-WebSocket-Key": "x"}}), `websocket.headers["Sec-WebSocket-Key"]`, "set by the prober itself"},
		{ws(&meshv1.WebsocketProbe{Subprotocols: []string{"a b"}}), "websocket.subprotocols[0]", "is not the name of a subprotocol"},
		{ws(&meshv1.WebsocketProbe{ProxyUrl: "socks://a:1"}), "websocket.proxy_url", "is not the URL of an HTTP proxy"},
		{ws(&meshv1.WebsocketProbe{MessageLimit: 2 << 20}), "websocket.message_limit", "is not 1 to 1048576"},
		{messages(&meshv1.WebsocketStep{}), "websocket.steps[0]", "does nothing"},
		{messages(&meshv1.WebsocketStep{Send: "x", SendBytes: []byte("x")}), "websocket.steps[0].send_bytes", "keep one"},
		{messages(&meshv1.WebsocketStep{ExpectClose: 999}), "websocket.steps[0].expect_close", "is not 1000 to 4999"},
		{messages(&meshv1.WebsocketStep{Close: true}, &meshv1.WebsocketStep{Ping: true}), "websocket.steps[1]", "after a step that closes"},
	} {
		c.check.Name = "checks/a"
		found := false
		list := spec.ValidateCheck(c.check, "")
		for _, v := range list {
			found = found || v.Field == c.field && strings.Contains(v.Problem, c.problem)
		}
		if !found {
			t.Errorf("no fault of %s says %q; got %v", c.field, c.problem, list)
		}
	}
}

// FuzzTemplate: any text either is refused or expands to its own literals.
func FuzzTemplate(f *testing.F) {
	f.Add(`a${b}$${c}\x00`, true)
	f.Fuzz(func(t *testing.T, text string, escapes bool) {
		got, err := spec.ParseTemplate(text, escapes)
		if err != nil {
			return
		}
		if out := got.Expand(nil, func(string) string { return "" }); len(out) > len(text) || len(got.Holes()) > len(text)/4+1 {
			t.Fatalf("%q became %q", text, out)
		}
	})
}
