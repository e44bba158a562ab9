package spec

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// DNSRecord is a record in presentation format: name, value and type, and a TTL and a class if it has them. Names are taken as fully qualified. The error says what is wrong with it.
func DNSRecord(text string) (dns.RR, error) {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' }) || strings.HasPrefix(text, "$") || strings.HasPrefix(text, " ") || strings.HasPrefix(text, "\t") {
		return nil, fmt.Errorf("%q is not one record; write name, type and value, for example shop.example.com. A 192.0.2.1", clip(text))
	}
	parser := dns.NewZoneParser(strings.NewReader(text+"\n"), ".", "") // reads no other file unless allowed to
	parser.SetDefaultTTL(0)
	rr, _ := parser.Next()
	if err := parser.Err(); err != nil || rr == nil {
		reason := "nothing is in it"
		if err != nil {
			reason, _, _ = strings.Cut(strings.TrimPrefix(err.Error(), "dns: "), " at line:")
		}
		return nil, fmt.Errorf("%q is not a record (%s); write name, type and value, for example shop.example.com. A 192.0.2.1", clip(text), clip(reason))
	}
	return rr, nil
}

// DNSValue is the record that has the name, class and type that t asks for, and the value. For a TXT the value is its text, without quotes.
func DNSValue(t *Target, value string) (dns.RR, error) {
	header := dns.RR_Header{Name: t.Name, Rrtype: t.Type, Class: t.Class}
	if t.Type == dns.TypeTXT {
		return &dns.TXT{Hdr: header, Txt: []string{value}}, nil
	}
	kind := dns.Type(t.Type).String()
	rr, err := DNSRecord(fmt.Sprintf(". %s %s", kind, value))
	if err != nil || rr.Header().Rrtype != t.Type {
		return nil, fmt.Errorf("%q is not the value of a record of type %s", clip(value), kind)
	}
	rr.Header().Name, rr.Header().Class = t.Name, t.Class
	return rr, nil
}

// TrustAnchor is a DS or DNSKEY record in presentation format.
func TrustAnchor(text string) (dns.RR, error) {
	rr, err := DNSRecord(text)
	if err != nil {
		return nil, err
	}
	switch k := rr.(type) {
	case *dns.DS:
		return rr, nil
	case *dns.DNSKEY:
		if k.Flags&dns.ZONE != 0 && k.Protocol == 3 {
			return rr, nil
		}
		return nil, fmt.Errorf("%q is not a key of a zone: its flags are %d and its protocol is %d; a trust anchor has 257 and 3", clip(text), k.Flags, k.Protocol)
	}
	return nil, fmt.Errorf("%q is not a trust anchor; write a DS or DNSKEY record", clip(text))
}
