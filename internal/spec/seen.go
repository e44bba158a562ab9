package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// seen is what the expectations of a check can see of its response.
type seen struct {
	// kind is that of the block that the expectations are in.
	kind Kind
	// target is that of the check. When it is of another kind, the block is refused as a whole and nothing is said of its expectations.
	target *Target
	// without says of fields that the kind has why this check never gets them, and what would be right.
	without map[string]string
}

// sees is what expectations see of a kind whose checks all get the same fields.
func sees(kind Kind, t *Target) seen { return seen{kind: kind, target: t} }

// but takes a field away, if it is never set.
func (s seen) but(never bool, field, why string) seen {
	if !never {
		return s
	}
	if s.without = maps.Clone(s.without); s.without == nil {
		s.without = make(map[string]string)
	}
	s.without[field] = why
	return s
}

// httpSees: a request over plain HTTP may be redirected to https, and the URL of a step that is not known yet may lead there.
func httpSees(h *meshv1.HttpProbe, t *Target) seen {
	plain := t.Scheme == "http" && h.FollowRedirects != nil && !*h.FollowRedirects
	for _, s := range h.Steps {
		url := strings.ToLower(s.GetUrl())
		plain = plain && !strings.HasPrefix(url, "https:") && !strings.Contains(url, "${")
	}
	return sees(HTTP, t).withoutSteps(len(h.Steps)).
		but(plain, "tls", "for an http URI whose redirects are not followed; write https://, or set http.follow_redirects")
}

func tcpSees(o *meshv1.TcpProbe, t *Target) seen {
	secure := o.UseTls || o.Starttls != ""
	for _, s := range o.Steps {
		secure = secure || s.GetStarttls()
	}
	return sees(TCP, t).withoutSteps(len(o.Steps)).but(!secure, "tls", "without TLS; set tcp.use_tls, tcp.starttls, or starttls in a step")
}

func dnsSees(o *meshv1.DnsProbe, t *Target) seen {
	plain := o.Transport <= meshv1.DnsProbe_TCP
	return sees(DNS, t).but(plain, "tls", "without an encrypted transport; set dns.transport to TLS, HTTPS or QUIC")
}

func grpcSees(t *Target) seen {
	return sees(GRPC, t).but(!t.Secure, "tls", "for a grpc URI; write grpcs://")
}

func websocketSees(o *meshv1.WebsocketProbe, t *Target) seen {
	return sees(WEBSOCKET, t).withoutSteps(len(o.Steps)).but(!t.Secure, "tls", "for a ws URI; write wss://")
}

// withoutSteps takes the captures away from a check that has no steps to make them.
func (s seen) withoutSteps(n int) seen {
	return s.but(n == 0, "captures", fmt.Sprintf("without steps, which make them; write %s.steps", s.kind))
}

// never says why a field of the response is never set and what would be right; empty when it can be.
func (s seen) never(field string) string {
	if s.target.Kind != s.kind {
		return ""
	}
	kinds := kindsWith(field)
	switch {
	case len(kinds) > 0 && !slices.Contains(kinds, s.kind):
		return fmt.Sprintf("reads response.%s, which is never set for kind %s; %s", field, s.kind, s.instead(field))
	case s.without[field] != "":
		return fmt.Sprintf("reads response.%s, which is never set %s", field, s.without[field])
	}
	return ""
}

// instead is what to read when the kind does not have the field.
func (s seen) instead(field string) string {
	switch {
	case field == "json" && (s.kind == TCP || s.kind == UDP):
		return "take the value out of the answer with a step's `capture` and its JSON path, and write response.captures.NAME, or look into response.body"
	case field == "status" && s.kind == GRPC:
		return "write response.grpc.status"
	case field == "status" && s.kind == DNS:
		return "write response.dns.rcode"
	}
	var has []string
	fields := (&meshv1.Response{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		name := string(fields.Get(i).Name())
		if kinds := kindsWith(name); (len(kinds) == 0 || slices.Contains(kinds, s.kind)) && s.without[name] == "" {
			has = append(has, name)
		}
	}
	slices.Sort(has)
	return "it has " + strings.Join(has, ", ")
}

// kindsWith are the kinds whose probes can set a field of the response, as response.proto says; none stands for all of them.
func kindsWith(field string) []Kind {
	switch field {
	case "status":
		return []Kind{HTTP, WEBSOCKET}
	case "headers":
		return []Kind{HTTP, WEBSOCKET, GRPC}
	case "header_values", "version", "redirects":
		return []Kind{HTTP}
	case "body":
		return []Kind{HTTP, TCP, UDP, WEBSOCKET, GRPC}
	case "json":
		return []Kind{HTTP, WEBSOCKET, GRPC}
	case "captures":
		return []Kind{HTTP, TCP, UDP, WEBSOCKET}
	case "tls":
		return []Kind{HTTP, TCP, TLS, DNS, GRPC, WEBSOCKET}
	case "dns", "icmp", "grpc", "udp", "websocket":
		return []Kind{Kind(field)}
	}
	return nil
}
