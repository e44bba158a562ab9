package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// probeDNSOptions are the flags of probe for kind dns alone.
type probeDNSOptions struct {
	transport       string
	dnssec, serials bool
}

func (o *probeDNSOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.transport, "dns-transport", "", "how to ask a dns server: `TRANSPORT` udp, tcp, tls, https or quic; the default is udp, which every server speaks")
	f.BoolVar(&o.dnssec, "dnssec", false, "validate the answer of a dns server from the root's keys; off, as a check does not unless it says so")
	f.BoolVar(&o.serials, "serials", false, "ask all authoritative servers of a zone for its SOA (?type=SOA) and compare; off: the one server alone")
}

// given lists the flags that were given.
func (o *probeDNSOptions) given() []string {
	var out []string
	for flag, given := range map[string]bool{"--dns-transport": o.transport != "", "--dnssec": o.dnssec, "--serials": o.serials} {
		if given {
			out = append(out, flag)
		}
	}
	slices.Sort(out)
	return out
}

// options are the options of the check.
func (o *probeDNSOptions) options(expect []string, tls *meshv1.TlsConfig) (*meshv1.DnsProbe, error) {
	d := &meshv1.DnsProbe{Expect: expect, Tls: tls}
	if o.transport != "" {
		n, ok := meshv1.DnsProbe_Transport_value[strings.ToUpper(o.transport)]
		if !ok || n == 0 {
			return nil, usagef("--dns-transport %q is not known; write udp, tcp, tls, https or quic", o.transport)
		}
		d.Transport = meshv1.DnsProbe_Transport(n)
	}
	if tls != nil && !spec.DNSEncrypted(d.Transport) {
		return nil, usagef("a probe of kind dns has no --server-name or --insecure unless --dns-transport is tls, https or quic; leave it out")
	}
	if o.dnssec {
		d.Dnssec = &meshv1.DnsDnssec{}
	}
	if o.serials {
		d.Serials = &meshv1.DnsSerials{}
	}
	return d, nil
}

// measuredDNS lists what a probe of kind dns found: a line each, and the records.
func measuredDNS(d *meshv1.DnsResult, records []string) []string {
	if d == nil {
		return nil
	}
	line := fmt.Sprintf("%s, %s", d.GetRcode(), count(int(d.GetAnswers()), "answer"))
	if len(d.GetFlags()) > 0 {
		line += ", flags " + strings.Join(d.GetFlags(), " ")
	}
	if d.GetMessageBytes() > 0 {
		line += fmt.Sprintf(", %s over %s", count(int(d.GetMessageBytes()), "byte"), d.GetTransport())
	}
	if d.GetSerial() != 0 {
		line += fmt.Sprintf(", serial %d", d.GetSerial())
	}
	if d.GetNsid() != "" {
		line += ", by " + d.GetNsid()
	}
	if d.GetClientSubnet() != "" {
		line += ", for " + d.GetClientSubnet()
	}
	out := []string{line}
	for _, e := range d.GetExtendedErrors() {
		out = append(out, "  the server says "+e)
	}
	for _, record := range records {
		out = append(out, "  "+record)
	}
	return append(append(out, measuredDNSSEC(d.GetDnssec())...), measuredServers(d)...)
}

func measuredDNSSEC(d *meshv1.DnssecResult) []string {
	if d == nil {
		return nil
	}
	line := "DNSSEC " + d.GetStatus().String()
	if d.GetReason() != "" {
		line += ": " + d.GetReason()
	}
	if d.GetExpiry() != nil {
		line += fmt.Sprintf(", the first signature ends in %s (%s)", count(int(d.GetDaysLeft()), "day"), d.GetExpiry().AsTime().Format("2006-01-02"))
	}
	out := []string{line}
	for _, z := range d.GetChain() {
		out = append(out, "  "+z)
	}
	return out
}

func measuredServers(d *meshv1.DnsResult) []string {
	var out []string
	for _, s := range d.GetServers() {
		line := fmt.Sprintf("  %-24s %-24s ", s.GetName(), s.GetAddress())
		switch {
		case s.GetError() != "":
			line += s.GetError()
		case s.GetLag() > 0:
			line += fmt.Sprintf("serial %d, %d behind", s.GetSerial(), s.GetLag())
		default:
			line += fmt.Sprintf("serial %d", s.GetSerial())
		}
		if s.GetNsid() != "" {
			line += ", by " + s.GetNsid()
		}
		out = append(out, line)
	}
	if d.GetServersLeftOut() {
		out = append(out, "  and more, which were not asked")
	}
	return out
}
