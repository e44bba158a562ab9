package starttls

import (
	"encoding/xml"
	"errors"
	"io"
	"net"
	"strings"
)

// Namespaces of RFC 6120.
const (
	xmppStreams = "http://etherx.jabber.org/streams"
	xmppTLS     = "urn:ietf:params:xml:ns:xmpp-tls"
)

// xmpp is the dialogue of XMPP for clients and for servers, which differ in the namespace.
func xmpp(p *peer, namespace string, o Options) error {
	to := o.ServerName
	if to == "" && p.conn.RemoteAddr() != nil {
		to = p.conn.RemoteAddr().String()
		if host, _, err := net.SplitHostPort(to); err == nil {
			to = host
		}
	}
	var domain strings.Builder
	if err := xml.EscapeText(&domain, []byte(to)); err != nil {
		return err
	}
	err := p.say(`<?xml version='1.0'?><stream:stream to='` + domain.String() + `' version='1.0' xml:lang='en' xmlns='` + namespace + `' xmlns:stream='` + xmppStreams + `'>`)
	if err != nil {
		return err
	}
	// The decoder reads byte by byte from an io.ByteReader, and so never beyond the element that it gives.
	d := xml.NewDecoder(p)
	opening, err := element(d)
	if err != nil {
		return xmppError(err)
	}
	if opening.Name.Local != "stream" || opening.Name.Space != xmppStreams {
		return broken("the server does not speak XMPP: it opens with <%s> instead of a stream", clipped(opening.Name.Local))
	}
	offered, err := xmppFeatures(d)
	if err != nil {
		return xmppError(err)
	}
	if !offered {
		return refused("the server does not offer starttls in the features of its stream")
	}
	p.skipSpace()
	if err := p.say(`<starttls xmlns='` + xmppTLS + `'/>`); err != nil {
		return err
	}
	answer, err := element(d)
	if err != nil {
		return xmppError(err)
	}
	switch {
	case answer.Name.Space == xmppTLS && answer.Name.Local == "proceed":
		return xmppError(d.Skip())
	case answer.Name.Space == xmppTLS && answer.Name.Local == "failure":
		return refused("the server refuses TLS: it answers starttls with failure")
	}
	return xmppError(unexpected(d, answer, "proceed"))
}

// xmppFeatures reads the features of a stream and tells whether starttls is among them.
func xmppFeatures(d *xml.Decoder) (offered bool, err error) {
	features, err := element(d)
	if err != nil {
		return false, err
	}
	if features.Name.Local != "features" || features.Name.Space != xmppStreams {
		return false, unexpected(d, features, "features")
	}
	for {
		token, err := d.Token()
		if err != nil {
			return false, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			offered = offered || t.Name.Local == "starttls" && t.Name.Space == xmppTLS
			if err := d.Skip(); err != nil {
				return false, err
			}
		case xml.EndElement:
			return offered, nil
		case xml.Directive:
			return false, broken("the server sent a document type, which XMPP forbids")
		}
	}
}

// element reads up to the next start of an element. Only white space may stand before it, and the XML declaration.
func element(d *xml.Decoder) (xml.StartElement, error) {
	for {
		token, err := d.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			return t, nil
		case xml.CharData:
			if strings.TrimSpace(string(t)) != "" {
				return xml.StartElement{}, broken("the server does not speak XMPP: it sent %s", quote(t))
			}
		case xml.EndElement:
			return xml.StartElement{}, broken("the server ended the stream before TLS could begin")
		case xml.ProcInst:
			if t.Target != "xml" {
				return xml.StartElement{}, broken("the server sent a processing instruction, which XMPP forbids")
			}
		default:
			return xml.StartElement{}, broken("the server sent a comment or a document type, which XMPP forbids")
		}
	}
}

// unexpected is the error of an element that stands where another should; of a stream error it tells the condition.
func unexpected(d *xml.Decoder, got xml.StartElement, wanted string) error {
	if got.Name.Local == "error" && got.Name.Space == xmppStreams {
		condition, err := element(d)
		if err != nil {
			return err
		}
		return broken("the server ends the stream with the error %s", clipped(condition.Name.Local))
	}
	return broken("the server does not speak XMPP: it sent <%s> instead of <%s>", clipped(got.Name.Local), wanted)
}

// xmppError turns what the XML reader dislikes into an error of the peer.
func xmppError(err error) error {
	var syntax *xml.SyntaxError
	if errors.As(err, &syntax) {
		if syntax.Msg == "unexpected EOF" {
			return io.EOF
		}
		return broken("the server does not speak XMPP: %s", clipped(syntax.Msg))
	}
	// What it says of the XML declaration has no type.
	if err != nil && strings.HasPrefix(err.Error(), "xml: ") {
		return broken("the server does not speak XMPP: %s", clipped(err.Error()[len("xml: "):]))
	}
	return err
}

// clipped is quote without the quotes, for names.
func clipped(s string) string {
	q := quote([]byte(s))
	return strings.TrimSuffix(strings.TrimPrefix(q, `"`), `"`)
}
