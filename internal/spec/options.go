package spec

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/probemesh/probemesh/internal/expect"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of the options of the kinds, as check.proto documents them.
const (
	MaxRequestBody  = 8 << 10
	MaxBodyLimit    = 10 << 20
	MaxRedirects    = 20
	MaxReadLimit    = 1 << 20
	maxHeaders      = 64
	maxHeaderBytes  = 4 << 10
	maxMetadataSize = 8 << 10
)

// options checks that only the block of the check's own kind is set, and that block. target is nil when the scheme is not known.
func options(f *faults, c *meshv1.Check, target *Target) {
	blocks := []struct {
		kind Kind
		set  bool
		uris string
	}{
		{HTTP, c.Http != nil, "an http or https"},
		{TCP, c.Tcp != nil, "a tcp or unix"},
		{TLS, c.Tls != nil, "a tls"},
		{DNS, c.Dns != nil, "a dns"},
		{ICMP, c.Icmp != nil, "an icmp"},
		{GRPC, c.Grpc != nil, "a grpc or grpcs"},
		{UDP, c.Udp != nil, "a udp"},
		{WEBSOCKET, c.Websocket != nil, "a ws or wss"},
	}
	for _, b := range blocks {
		if b.set && target != nil && b.kind != target.Kind {
			f.add(string(b.kind), "is only for %s URI, and this one is %s; remove it, or move its fields to %s", b.uris, target.Scheme, target.Kind)
		}
	}
	if target == nil {
		target = &Target{}
	}
	phaseLimits(f, c)
	eachAddress(f, c, target)
	httpOptions(f, c.Http, target)
	tcpOptions(f, c, target)
	tlsOptions(f, c.Tls, target)
	dnsOptions(f, c.Dns, target)
	icmpOptions(f, c.Icmp, target, timeoutOf(c))
	grpcOptions(f, c.Grpc, target)
	udpOptions(f, c, target)
	websocketOptions(f, c, target)
}

// timeoutOf is the timeout of a check or its default, also of one whose times are not valid.
func timeoutOf(c *meshv1.Check) time.Duration {
	if c.Timeout != nil {
		return c.Timeout.AsDuration()
	}
	if c.Interval != nil {
		return min(DefaultTimeout, c.Interval.AsDuration())
	}
	return DefaultTimeout
}

// expectations checks the number and length of expressions, compiles them, and refuses those that read what see says is never set: they
// would fail for ever, or hold whatever the target does.
func expectations(f *faults, field string, exprs []string, see seen) {
	count(f, field, len(exprs), maxExpectations)
	for i, e := range exprs[:min(len(exprs), maxExpectations)] {
		at := fmt.Sprintf("%s[%d]", field, i)
		if n := utf8.RuneCountInString(e); n > maxExpectationRunes {
			f.add(at, "has %d characters, which is more than %d; split it, since all expectations must hold anyway", n, maxExpectationRunes)
			continue
		}
		program, err := expect.Compile([]string{e})
		var all expect.Errors
		switch {
		case errors.As(err, &all):
			for _, one := range all {
				f.add(at, "%s", one.Error())
			}
		case err != nil:
			f.add(at, "%s", err)
		}
		for _, name := range program.Relies() {
			if why := see.never(name); why != "" {
				f.add(at, "%s", why)
			}
		}
	}
}

// family checks the choice of an IP family, also against an address in the URI.
func family(f *faults, field string, p meshv1.IpFamily_Preference, t *Target) {
	enum(f, field, p)
	addr, ok := t.Addr()
	if !ok {
		return
	}
	v4 := addr.Is4() || addr.Is4In6()
	if p == meshv1.IpFamily_IPV4 && !v4 || p == meshv1.IpFamily_IPV6 && v4 {
		f.add(field, "%s does not go with the address %s in the URI; remove it", p, t.Host)
	}
}

// enum refuses numbers that the enum has no name for.
func enum(f *faults, field string, e protoreflect.Enum) {
	values := e.Descriptor().Values()
	if values.ByNumber(e.Number()) != nil {
		return
	}
	names := make([]string, 0, values.Len())
	for i := range values.Len() {
		names = append(names, string(values.Get(i).Name()))
	}
	f.add(field, "%d is not known; write one of %s", e.Number(), strings.Join(names, ", "))
}

// between checks a number for which 0 means unset.
func between(f *faults, field string, n, least, most int64) {
	if n != 0 && (n < least || n > most) {
		f.add(field, "%d is not %d to %d", n, least, most)
	}
}

func bounded(f *faults, field string, n, most int) {
	if n > most {
		f.add(field, "has %d bytes, which is more than %d; shorten it", n, most)
	}
}

func validToken(s string) bool {
	for _, r := range s {
		if !httpguts.IsTokenRune(r) {
			return false
		}
	}
	return s != ""
}

// proxyAt checks the URL of a proxy.
func proxyAt(f *faults, field, text string) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		f.add(field, "cannot be parsed (%s); write it as http://host:port", urlProblem(err))
	case u.Scheme != "http" || u.Hostname() == "" || u.Port() == "":
		f.add(field, "%q is not the URL of an HTTP proxy; write it as http://host:port", clip(text))
	case u.User != nil:
		f.add(field, "has user information, which is refused; set the header Proxy-Authorization")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		f.add(field, "has more than a host and a port; write it as http://host:port")
	}
}
