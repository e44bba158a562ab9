package starttls

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// play is a dialogue: texts that begin with "S" are sent by the server in one piece, those with "C" are what the client must send.
func play(t *testing.T, protocol string, o Options, script ...string) error {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		for _, s := range script {
			text := s[1:]
			if s[0] == 'S' {
				if _, err := io.WriteString(server, text); err != nil {
					return
				}
				continue
			}
			got := make([]byte, len(text))
			if n, err := io.ReadFull(server, got); err != nil {
				t.Errorf("the client sent %q and then %v instead of %q", got[:n], err, text)
				return
			}
			if string(got) != text {
				t.Errorf("the client sent %q instead of %q", got, text)
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := Upgrade(ctx, client, protocol, o)
	client.Close()
	<-done
	return err
}

const (
	xmppOpening = "C<?xml version='1.0'?><stream:stream to='a.example' version='1.0' xml:lang='en' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
	xmppStream  = "S<?xml version='1.0'?><stream:stream id='1' from='a.example' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>\n"
	mysqlPacket = "S\x4a\x00\x00\x00\x0a8.0.36\x00\x01\x00\x00\x00abcdefgh\x00\xff\xff\xff\x02\x00\xff\xdf\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00ijklmnopqrst\x00caching_sha2_password\x00"
	mysqlUp     = "C\x20\x00\x00\x01\x00\x8a\x08\x00\x00\x00\x00\x01\x2d\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	ldapUp      = "C\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
)

// dialog is one play and how it should end: an empty want means that TLS may begin.
type dialog struct {
	protocol string
	script   []string
	want     string
	noTLS    bool
}

func good() map[string]dialog {
	return map[string]dialog{
		"smtp":                      {"smtp", []string{"S220 mx ESMTP\r\n", "CEHLO probe.example\r\n", "S250-mx\r\n250-PIPELINING\r\n250-starttls\r\n250 8BITMIME\r\n", "CSTARTTLS\r\n", "S220 go\r\n"}, "", false},
		"smtp with a long greeting": {"smtp", []string{"S220-mx\r\n220-no spam\r\n220 here\r\n", "CEHLO probe.example\r\n", "S250-mx\r\n250 STARTTLS\r\n", "CSTARTTLS\r\n", "S220\r\n"}, "", false},
		"lmtp":                      {"lmtp", []string{"S220 mx LMTP\r\n", "CLHLO probe.example\r\n", "S250-mx\r\n250 STARTTLS\r\n", "CSTARTTLS\r\n", "S220 go\r\n"}, "", false},
		"imap":                      {"imap", []string{"S* OK [CAPABILITY IMAP4rev1] hi\r\n", "Ca1 CAPABILITY\r\n", "S* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na1 OK done\r\n", "Ca2 STARTTLS\r\n", "Sa2 OK begin\r\n"}, "", false},
		"pop3":                      {"pop3", []string{"S+OK hi <1@x>\r\n", "CSTLS\r\n", "S+OK begin\r\n"}, "", false},
		"sieve":                     {"sieve", []string{"S\"IMPLEMENTATION\" \"x\"\r\n\"STARTTLS\"\r\nOK \"hi\"\r\n", "CSTARTTLS\r\n", "SOK \"begin\"\r\n"}, "", false},
		"nntp":                      {"nntp", []string{"S201 no posting\r\n", "CSTARTTLS\r\n", "S382 go\r\n"}, "", false},
		"ftp":                       {"ftp", []string{"S120 soon\r\n", "S220-hello\r\n 220 not yet\r\nanything\r\n220 end\r\n", "CAUTH TLS\r\n", "S234 go\r\n"}, "", false},
		"ldap":                      {"ldap", []string{ldapUp, "S\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"}, "", false},
		"ldap of AD":                {"ldap", []string{ldapUp, "S\x30\x84\x00\x00\x00\x28\x02\x01\x01\x78\x84\x00\x00\x00\x1f\x0a\x01\x00\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20037"}, "", false},
		"postgres":                  {"postgres", []string{"C\x00\x00\x00\x08\x04\xd2\x16\x2f", "SS"}, "", false},
		"mysql":                     {"mysql", []string{mysqlPacket, mysqlUp}, "", false},
		"xmpp":                      {"xmpp", []string{xmppOpening, xmppStream, "S<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls><x/></stream:features>\n", "C<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "S<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"}, "", false},
		"xmpp-server":               {"xmpp-server", []string{strings.ReplaceAll(xmppOpening, "client", "server"), strings.ReplaceAll(xmppStream, "client", "server"), "S<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>", "C<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "S<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'></proceed>"}, "", false},
	}
}

func bad() map[string]dialog {
	smtpTo := func(s ...string) []string { return append([]string{"S220 mx\r\n", "CEHLO probe.example\r\n"}, s...) }
	xmppTo := func(s ...string) []string { return append([]string{xmppOpening, xmppStream}, s...) }
	features := "S<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"
	start := "C<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
	return map[string]dialog{
		"smtp not offered":          {"smtp", smtpTo("S250-STARTTLS\r\n250 SIZE\r\n"), "does not offer STARTTLS", true},
		"smtp refused":              {"smtp", smtpTo("S250-x\r\n250 STARTTLS\r\n", "CSTARTTLS\r\n", "S454 not now\r\n"), "454 not now", true},
		"smtp shut":                 {"smtp", []string{"S554 go away\r\n"}, "greets with \"554 go away\" instead of 220", false},
		"smtp that is ssh":          {"smtp", []string{"SSSH-2.0-OpenSSH_9.2\r\n"}, "does not speak SMTP", false},
		"smtp with two codes":       {"smtp", smtpTo("S250-x\r\n251 STARTTLS\r\n"), "do not belong together", false},
		"smtp that talks early":     {"smtp", []string{"S220 mx\r\n250 STARTTLS\r\n"}, "before it was asked", false},
		"smtp with an injection":    {"smtp", smtpTo("S250-x\r\n250 STARTTLS\r\n", "CSTARTTLS\r\n", "S220 go\r\n250 injected\r\n"), "14 bytes in the clear behind its consent", false},
		"smtp with endless lines":   {"smtp", []string{"S" + strings.Repeat("220-x\r\n", 100)}, "more than 64 lines", false},
		"smtp with an endless line": {"smtp", []string{"S220 " + strings.Repeat("x", 9000)}, "more than 8192 bytes", false},
		"smtp with a NUL":           {"smtp", []string{"S220 a\x00b\r\n"}, "control character", false},
		"imap preauth":              {"imap", []string{"S* PREAUTH hi\r\n"}, "PREAUTH", true},
		"imap bye":                  {"imap", []string{"S* BYE full\r\n"}, "does not serve", false},
		"imap not offered":          {"imap", []string{"S* OK hi\r\n", "Ca1 CAPABILITY\r\n", "S* CAPABILITY IMAP4rev1\r\na1 OK\r\n"}, "does not offer STARTTLS", true},
		"imap refused":              {"imap", []string{"S* OK hi\r\n", "Ca1 CAPABILITY\r\n", "S* CAPABILITY STARTTLS\r\na1 OK\r\n", "Ca2 STARTTLS\r\n", "Sa2 BAD no\r\n"}, "a2 BAD no", true},
		"imap injection":            {"imap", []string{"S* OK hi\r\n", "Ca1 CAPABILITY\r\n", "S* CAPABILITY STARTTLS\r\na1 OK\r\n", "Ca2 STARTTLS\r\n", "Sa2 OK go\r\n* CAPABILITY AUTH=PLAIN\r\n"}, "behind its consent", false},
		"imap with a wrong tag":     {"imap", []string{"S* OK hi\r\n", "Ca1 CAPABILITY\r\n", "Sb1 OK\r\n"}, "does not speak IMAP", false},
		"pop3 refused":              {"pop3", []string{"S+OK\r\n", "CSTLS\r\n", "S-ERR no\r\n"}, "refuses TLS", true},
		"pop3 that is not":          {"pop3", []string{"S* OK\r\n"}, "does not speak POP3", false},
		"sieve not offered":         {"sieve", []string{"S\"SIEVE\" \"x\"\r\nOK\r\n"}, "does not offer", true},
		"nntp refused":              {"nntp", []string{"S200\r\n", "CSTARTTLS\r\n", "S580 no\r\n"}, "refuses TLS", true},
		"ftp refused":               {"ftp", []string{"S220 x\r\n", "CAUTH TLS\r\n", "S530 no\r\n"}, "530 no", true},
		"ftp full":                  {"ftp", []string{"S421 full\r\n"}, "does not serve", false},
		"ldap refused":              {"ldap", []string{ldapUp, "S\x30\x0e\x02\x01\x01\x78\x09\x0a\x01\x34\x04\x00\x04\x02no"}, "result code 52 (unavailable), \"no\"", true},
		"ldap with a notice":        {"ldap", []string{ldapUp, "S\x30\x0c\x02\x01\x00\x78\x07\x0a\x01\x02\x04\x00\x04\x00"}, "protocolError", false},
		"ldap of endless length":    {"ldap", []string{ldapUp, "S\x30\x84\x7f\xff\xff\xff\x02"}, "more than 8192 bytes", false},
		"ldap of indefinite length": {"ldap", []string{ldapUp, "S\x30\x80\x02\x01\x01\x78\x00\x00\x00"}, "not valid", false},
		"ldap with a wrong name":    {"ldap", []string{ldapUp, "S\x30\x0f\x02\x01\x01\x78\x0a\x0a\x01\x00\x04\x00\x04\x00\x8a\x011"}, "no extended response", false},
		"postgres without":          {"postgres", []string{"C\x00\x00\x00\x08\x04\xd2\x16\x2f", "SN"}, "has no TLS", true},
		"postgres injection":        {"postgres", []string{"C\x00\x00\x00\x08\x04\xd2\x16\x2f", "SSE\x00\x00"}, "3 bytes in the clear", false},
		"postgres that is http":     {"postgres", []string{"C\x00\x00\x00\x08\x04\xd2\x16\x2f", "SHTTP/1.1 400"}, "does not speak PostgreSQL", false},
		"mysql without":             {"mysql", []string{strings.Replace(mysqlPacket, "abcdefgh\x00\xff\xff", "abcdefgh\x00\xff\xf7", 1)}, "does not offer TLS", true},
		"mysql that blocks":         {"mysql", []string{"S\x17\x00\x00\x00\xff\x6a\x04Host 'x' is blocked!"}, "error 1130, \"Host 'x' is blocked!", false},
		"mysql that is smtp":        {"mysql", []string{"S220 mx ESMTP\r\n"}, "does not speak MySQL", false},
		"mysql with a short one":    {"mysql", []string{"S\x03\x00\x00\x00\x0a8\x00"}, "too short", false},
		"xmpp not offered":          {"xmpp", xmppTo("S<stream:features><bind/></stream:features>"), "does not offer", true},
		"xmpp refused":              {"xmpp", xmppTo(features, start, "S<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), "refuses TLS", true},
		"xmpp injection":            {"xmpp", xmppTo(features, start, "S<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><a/>"), "behind its consent", false},
		"xmpp error":                {"xmpp", xmppTo("S<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"), "host-unknown", false},
		"xmpp with entities":        {"xmpp", []string{xmppOpening, "S<!DOCTYPE a [<!ENTITY b 'c'>]><stream/>"}, "forbids", false},
		"xmpp that is http":         {"xmpp", []string{xmppOpening, "SHTTP/1.1 400 Bad Request\r\n<"}, "does not speak XMPP", false},
		"xmpp with a deep tree":     {"xmpp", xmppTo("S<stream:features>" + strings.Repeat("<a>", 3000)), "more than 8192 bytes", false},
	}
}

func TestEachDialogueEndsWhereTLSBegins(t *testing.T) {
	seen := make(map[string]bool)
	for name, d := range good() {
		t.Run(name, func(t *testing.T) {
			if err := play(t, d.protocol, Options{ClientName: "probe.example", ServerName: "a.example"}, d.script...); err != nil {
				t.Error(err)
			}
		})
		seen[d.protocol] = true
	}
	for _, p := range Protocols() {
		if _, ok := dialogues(p); !ok || !seen[p] {
			t.Errorf("protocol %s is not known or not tested", p)
		}
	}
	if !slices.IsSorted(Protocols()) || len(Protocols()) != len(seen) {
		t.Errorf("protocols %v", Protocols())
	}
}

func TestPeersWithoutTLSAndThoseThatBreakTheirProtocolAreToldApart(t *testing.T) {
	for name, d := range bad() {
		t.Run(name, func(t *testing.T) {
			err := play(t, d.protocol, Options{ClientName: "probe.example", ServerName: "a.example"}, d.script...)
			var e *Error
			if !errors.As(err, &e) || e.NoTLS != d.noTLS || !strings.Contains(e.Sentence, d.want) {
				t.Errorf("got %#v, want %q with NoTLS %v", err, d.want, d.noTLS)
			}
		})
	}
}

// TestAPeerThatGoesAtAnyByteEndsTheDialogue plays every good dialogue cut short at each byte that the server sends.
func TestAPeerThatGoesAtAnyByteEndsTheDialogue(t *testing.T) {
	for name, d := range good() {
		t.Run(name, func(t *testing.T) {
			for i, s := range d.script {
				if s[0] != 'S' {
					continue
				}
				for cut := range len(s) - 1 {
					script := append(slices.Clone(d.script[:i]), s[:1+cut])
					err := play(t, d.protocol, Options{ClientName: "probe.example", ServerName: "a.example"}, script...)
					var e *Error
					if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.ErrClosedPipe) && !errors.As(err, &e) {
						t.Fatalf("cut after %q: %v", s[1:1+cut], err)
					}
				}
			}
		})
	}
}

func TestASilentPeerIsLeftWhenTheContextEnds(t *testing.T) {
	for _, protocol := range Protocols() {
		client, server := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, server) }()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		if err := Upgrade(ctx, client, protocol, Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", protocol, err)
		}
		client.Close()
		server.Close()
	}
}

func TestAnUnknownProtocolIsRefusedByName(t *testing.T) {
	if err := Upgrade(t.Context(), nil, "gopher", Options{}); err == nil || !strings.Contains(err.Error(), "gopher") || !strings.Contains(err.Error(), "smtp") {
		t.Error(err)
	}
}

func TestWithoutANameTheAddressIsGiven(t *testing.T) {
	for _, c := range []struct {
		addr net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, "[192.0.2.1]"},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1}, "[IPv6:2001:db8::1]"},
		{nil, "[127.0.0.1]"},
	} {
		if got := addressLiteral(c.addr); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
