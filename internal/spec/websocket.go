package spec

import (
	"fmt"
	"strings"

	"golang.org/x/net/http/httpguts"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits and defaults of kind websocket, as websocket_probe.proto documents them.
const (
	MaxWebsocketMessage       = 1 << 20
	DefaultWebsocketMessage   = 64 << 10
	MaxWebsocketReadLimit     = 10 << 20
	DefaultWebsocketReadLimit = 1 << 20
	maxSubprotocols           = 16
)

func websocketOptions(f *faults, c *meshv1.Check, t *Target) {
	o := c.Websocket
	if o == nil {
		return
	}
	upgradeHeaders(f, o)
	count(f, "websocket.subprotocols", len(o.Subprotocols), maxSubprotocols)
	for i, p := range o.Subprotocols {
		if !validToken(p) {
			f.add(fmt.Sprintf("websocket.subprotocols[%d]", i), "%q is not the name of a subprotocol; write letters, digits, -, _ and .", clip(p))
		}
	}
	if o.Origin != "" && (!httpguts.ValidHeaderFieldValue(o.Origin) || len(o.Origin) > maxHeaderBytes) {
		f.add("websocket.origin", "%q is not an origin; write for example https://shop.example.com", clip(o.Origin))
	}
	if o.Tls != nil && t.Kind == WEBSOCKET && !t.Secure {
		f.add("websocket.tls", "is only for a wss URI; remove it, or write wss:// instead of ws://")
	}
	tlsConfig(f, "websocket.tls", o.Tls)
	proxyAt(f, "websocket.proxy_url", o.ProxyUrl)
	family(f, "websocket.ip_family", o.IpFamily, t)
	between(f, "websocket.message_limit", o.MessageLimit, 1, MaxWebsocketMessage)
	between(f, "websocket.read_limit", o.ReadLimit, 1, MaxWebsocketReadLimit)
	websocketSteps(f, c)
	expectations(f, "websocket.expect", o.Expect, websocketSees(o, t))
}

// upgradeHeaders checks the headers and credentials of the upgrade request.
func upgradeHeaders(f *faults, o *meshv1.WebsocketProbe) {
	headers(f, "websocket.headers", o.Headers, maxHeaders)
	for _, k := range sortedKeys(o.Headers) {
		switch lower := strings.ToLower(k); {
		case strings.HasPrefix(lower, "sec-websocket-"), lower == "connection", lower == "upgrade", lower == "content-length", lower == "transfer-encoding", lower == "trailer", lower == "te":
			f.add(element("websocket.headers", k), "is set by the prober itself; remove it")
		case lower == "origin" && o.Origin != "":
			f.add(element("websocket.headers", k), "is given besides origin; keep one")
		case lower == "authorization" && (o.BasicAuth != nil || o.BearerToken != ""):
			f.add(element("websocket.headers", k), "is given besides basic_auth or bearer_token; keep one")
		}
	}
	if o.BasicAuth != nil && o.BearerToken != "" {
		f.add("websocket.bearer_token", "is given besides basic_auth; keep one")
	}
	if strings.Contains(o.BasicAuth.GetUsername(), ":") {
		f.add("websocket.basic_auth.username", "contains a colon, which basic authentication cannot carry (RFC 7617)")
	}
	if !httpguts.ValidHeaderFieldValue(o.BearerToken) {
		f.add("websocket.bearer_token", "contains control characters; remove them (often a line end)")
	}
}

func websocketSteps(f *faults, c *meshv1.Check) {
	list := c.Websocket.Steps
	count(f, "websocket.steps", len(list), MaxSteps)
	s := newSteps(f, c.GetTimeout(), c.GetInterval())
	closed := false
	for i, step := range list[:min(len(list), MaxSteps)] {
		at := fmt.Sprintf("websocket.steps[%d]", i)
		if closed {
			f.add(at, "comes after a step that closes the connection; put it before, or remove it")
		}
		closed = closed || step.GetClose() || step.GetExpectClose() != 0
		s.name(at, step.GetName())
		s.template(at+".send", step.GetSend(), false)
		bounded(f, at+".send_bytes", len(step.GetSendBytes()), MaxStepBytes)
		if step.GetSend() != "" && len(step.GetSendBytes()) > 0 {
			f.add(at+".send_bytes", "is given besides send; keep one")
		}
		s.message(at, step)
		s.timeout(at, step.GetTimeout())
		if code := step.GetExpectClose(); code != 0 && (code < 1000 || code > 4999) {
			f.add(at+".expect_close", "%d is not 1000 to 4999", code)
		}
	}
}

// message checks what a step expects of a message, and that the step does anything at all.
func (s *steps) message(at string, step *meshv1.WebsocketStep) {
	enum(s.f, at+".expect_type", step.GetExpectType())
	s.matched(at+".expect", s.pattern(at+".expect", step.GetExpect()))
	s.pattern(at+".reject", step.GetReject())
	bounded(s.f, at+".expect_bytes", len(step.GetExpectBytes()), MaxStepBytes)
	awaits := step.GetExpect() != "" || len(step.GetExpectBytes()) > 0 || step.GetExpectType() != 0
	s.captures(at+".capture", step.GetCapture(), awaits)
	switch {
	case step.GetExpect() != "" && len(step.GetExpectBytes()) > 0:
		s.f.add(at+".expect_bytes", "is given besides expect; keep one")
	case step.GetExpect() == "" && step.GetReject() != "":
		s.f.add(at+".reject", "is given without expect, so that nothing would end the step; add that")
	case !awaits && step.GetSend() == "" && len(step.GetSendBytes()) == 0 && !step.GetPing() && !step.GetClose() && step.GetExpectClose() == 0:
		s.f.add(at, "does nothing; write what to send or to expect, or remove it")
	}
}

// websocketDefaults resolves the defaults of a block of kind websocket.
func websocketDefaults(o *meshv1.WebsocketProbe, secure bool) *meshv1.WebsocketProbe {
	if o == nil {
		o = &meshv1.WebsocketProbe{}
	}
	o.IpFamily = familyDefault(o.IpFamily)
	if o.MessageLimit == 0 {
		o.MessageLimit = DefaultWebsocketMessage
	}
	if o.ReadLimit == 0 {
		o.ReadLimit = DefaultWebsocketReadLimit
	}
	if secure {
		o.Tls = tlsDefaults(o.Tls)
	}
	return o
}
