package tls_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	stdtls "crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/tls"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TestServersOfAllSorts is the table of what a server may be and what a check may demand: the outcome, the class and the sentence.
func TestServersOfAllSorts(t *testing.T) {
	ca := probetest.NewCA(t)
	sub := ca.Sub(t)
	plain := ca.Make(t, nil, nil)
	expired := ca.Make(t, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	early := ca.Make(t, nil, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(48 * time.Hour) })
	other := ca.Make(t, nil, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} })
	nameless := ca.Make(t, nil, func(c *x509.Certificate) { c.IPAddresses = nil })
	short := ca.Make(t, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 0, 10) })
	own := probetest.MakeSelfSigned(t, nil)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	withRSA := ca.Make(t, key, nil)
	lonely := sub.Make(t, nil, nil)
	whole := lonely
	whole.Certificate = append(whole.Certificate, sub.DER())
	stapled := func(status int) stdtls.Certificate {
		pair := ca.Make(t, nil, nil)
		pair.OCSPStaple = ca.Staple(t, pair.Leaf, status)
		return pair
	}
	versions := func(least, most uint16) func(*stdtls.Config) {
		return func(c *stdtls.Config) { c.MinVersion, c.MaxVersion = least, most }
	}
	sum := sha256.Sum256(plain.Certificate[0])
	bad := func(sentence string) probetest.Want {
		return probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, sentence)
	}
	for name, c := range map[string]struct {
		pair   stdtls.Certificate
		change func(*stdtls.Config)
		tls    *meshv1.TlsConfig
		want   probetest.Want
	}{
		"good":                         {plain, nil, nil, probetest.OK()},
		"expired":                      {expired, nil, nil, bad("the certificate of CN=leaf expired on")},
		"not valid yet":                {early, nil, nil, bad("the certificate of CN=leaf is not valid before")},
		"of another name":              {other, nil, nil, bad("the certificate is not for 127.0.0.1; it is for other.example")},
		"without a name":               {nameless, nil, nil, bad("")},
		"self-signed":                  {own, nil, nil, bad("is signed by itself (")},
		"self-signed and allowed":      {own, nil, &meshv1.TlsConfig{AllowSelfSigned: true}, probetest.OK()},
		"good and allowed":             {plain, nil, &meshv1.TlsConfig{AllowSelfSigned: true}, probetest.OK()},
		"missing intermediate":         {lonely, nil, nil, bad("an authority that is not trusted (CN=Test Sub-CA)")},
		"whole chain":                  {whole, nil, nil, probetest.OK()},
		"stapled":                      {stapled(ocsp.Good), nil, &meshv1.TlsConfig{MustStaple: true}, probetest.OK()},
		"not stapled":                  {plain, nil, &meshv1.TlsConfig{MustStaple: true}, bad("the peer staples no OCSP response")},
		"revoked":                      {stapled(ocsp.Revoked), nil, nil, bad("is revoked since")},
		"revoked, not verified":        {stapled(ocsp.Revoked), nil, &meshv1.TlsConfig{InsecureSkipVerify: true}, probetest.OK()},
		"of TLS 1.0":                   {plain, versions(stdtls.VersionTLS10, stdtls.VersionTLS10), nil, bad("protocol version not supported")},
		"of TLS 1.2, 1.3 demanded":     {plain, versions(stdtls.VersionTLS10, stdtls.VersionTLS12), &meshv1.TlsConfig{MinVersion: "1.3"}, bad("protocol version not supported")},
		"of TLS 1.3, 1.2 at most":      {plain, versions(stdtls.VersionTLS13, stdtls.VersionTLS13), &meshv1.TlsConfig{MaxVersion: "1.2"}, bad("protocol version not supported")},
		"of all versions, 1.1 at most": {plain, versions(stdtls.VersionTLS10, 0), &meshv1.TlsConfig{MinVersion: "1.0", MaxVersion: "1.1"}, probetest.OK()},
		"of weak suites": {withRSA, func(c *stdtls.Config) {
			c.MaxVersion, c.CipherSuites = stdtls.VersionTLS12, []uint16{stdtls.TLS_RSA_WITH_AES_128_CBC_SHA, stdtls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, stdtls.TLS_ECDHE_RSA_WITH_RC4_128_SHA}
		}, nil, bad("handshake failure")},
		"of an allowed suite":       {withRSA, nil, &meshv1.TlsConfig{CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"}}, probetest.OK()},
		"of no allowed suite":       {withRSA, nil, &meshv1.TlsConfig{CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}}, bad("handshake failure")},
		"of another suite of 1.3":   {plain, nil, &meshv1.TlsConfig{CipherSuites: []string{"TLS_AES_256_GCM_SHA384"}}, bad("which is not among tls.cipher_suites")},
		"of an allowed group":       {plain, nil, &meshv1.TlsConfig{Groups: []string{"P-384"}}, probetest.OK()},
		"of no allowed group":       {plain, func(c *stdtls.Config) { c.CurvePreferences = []stdtls.CurveID{stdtls.X25519} }, &meshv1.TlsConfig{Groups: []string{"P-384"}}, bad("handshake failure")},
		"too short a key":           {withRSA, nil, &meshv1.TlsConfig{MinRsaBits: 3072}, bad("the RSA key in the certificate of CN=leaf has 2048 bits")},
		"too few days":              {short, nil, &meshv1.TlsConfig{MinDaysLeft: 14}, bad("in 9 days, and tls.min_days_left is 14")},
		"too few days, unverified":  {short, nil, &meshv1.TlsConfig{MinDaysLeft: 14, InsecureSkipVerify: true}, bad("in 9 days, and tls.min_days_left is 14")},
		"too few days of the chain": {short, nil, &meshv1.TlsConfig{MinChainDaysLeft: 14}, bad("the verified chain expires on")},
		"pinned":                    {plain, nil, &meshv1.TlsConfig{CertificatePins: []string{hex.EncodeToString(sum[:])}}, probetest.OK()},
		"pinned, another":           {short, nil, &meshv1.TlsConfig{CertificatePins: []string{hex.EncodeToString(sum[:])}}, bad("no certificate of the chain is among tls.certificate_pins")},
		"without timestamps":        {plain, nil, &meshv1.TlsConfig{MinScts: 1}, bad("has signed timestamps of 0 logs")},
		"demanding a certificate":   {plain, func(c *stdtls.Config) { c.MaxVersion, c.ClientAuth = stdtls.VersionTLS12, stdtls.RequireAnyClientCert }, nil, bad("the peer refused the handshake: handshake failure")},
	} {
		t.Run(name, func(t *testing.T) {
			o := c.tls
			if o == nil {
				o = &meshv1.TlsConfig{}
			}
			o.CaPem = ca.PEM
			r := run(t, serve(t, c.pair, c.change), &meshv1.TlsProbe{Tls: o})
			c.want.Match(t, r)
			demand := c.tls.GetMinDaysLeft() > 0 || c.tls.GetMinRsaBits() > 0
			if r.Outcome == meshv1.Result_FAIL && (demand && (r.Tls.GetEarliestExpiry() == nil || len(r.Evidence.Certificates) != 1)) {
				t.Errorf("the failure does not show the certificates: %v", r)
			}
		})
	}
}

func TestAClientCertificateThatIsDemandedIsPresented(t *testing.T) {
	ca := probetest.NewCA(t)
	_, cert, key := ca.Issue(t, time.Hour, "prober")
	address := serve(t, ca.Make(t, nil, nil), func(c *stdtls.Config) { c.ClientAuth, c.ClientCAs = stdtls.RequireAndVerifyClientCert, ca.Pool() })
	probetest.OK().Match(t, run(t, address, &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, ClientCertificatePem: cert, ClientKeyPem: key}}))
}

// TestATLS13ServerThatRefusesTheClientsCertificateIsSeen: in TLS 1.3 the client's part of the handshake is complete before the server looks at its certificate, so that the refusal is the first
// thing that is read. A probe that did not read would call such a server up.
func TestATLS13ServerThatRefusesTheClientsCertificateIsSeen(t *testing.T) {
	ca := probetest.NewCA(t)
	address := serve(t, ca.Make(t, nil, nil), func(c *stdtls.Config) { c.ClientAuth = stdtls.RequireAnyClientCert })
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "the peer refused the handshake: certificate required").Match(t, run(t, address, &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}))
}

func TestDaysBelowTheSecondBoundDegrade(t *testing.T) {
	ca := probetest.NewCA(t)
	short := serve(t, ca.Make(t, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 0, 10) }), nil)
	r := run(t, short, &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, MinDaysLeft: 5, DegradedDaysLeft: 14}})
	probetest.OK().Match(t, r)
	if !strings.Contains(r.Degraded, "in 9 days, and tls.degraded_days_left is 14") {
		t.Errorf("degraded %q", r.Degraded)
	}
}

func TestWhatWasNegotiatedIsTold(t *testing.T) {
	ca := probetest.NewCA(t)
	address := serve(t, ca.Make(t, nil, nil), func(c *stdtls.Config) { c.NextProtos = []string{"imap"} })
	r := run(t, address, &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}, Alpn: []string{"h2", "imap"},
		Expect: []string{`response.tls.alpn == "imap"`, `response.tls.group == "X25519MLKEM768"`, `!response.tls.resumed`, `response.tls.key_type == "ECDSA" && response.tls.key_bits == 256`,
			`response.tls.certificates_days_left[0] == response.tls.chain_days_left`, `response.tls.ocsp == "" && response.tls.scts == 0`}})
	probetest.OK().Match(t, r)
	if r.Tls.Alpn != "imap" || r.Tls.Group != "X25519MLKEM768" || len(r.Tls.CertificateExpiries) != 1 {
		t.Errorf("got %v", r.Tls)
	}
}

// TestSTARTTLSIsSpokenBeforeTheHandshake plays SMTP; the other protocols are tested by their package.
func TestSTARTTLSIsSpokenBeforeTheHandshake(t *testing.T) {
	ca := probetest.NewCA(t)
	pair := ca.Make(t, nil, nil)
	mail := func(features string) func(net.Conn) {
		return func(c net.Conn) {
			line := make([]byte, 200)
			_, _ = io.WriteString(c, "220 mx ESMTP\r\n")
			if n, _ := c.Read(line); string(line[:n]) != "EHLO probe.example\r\n" {
				return
			}
			_, _ = io.WriteString(c, features)
			if n, _ := c.Read(line); string(line[:n]) != "STARTTLS\r\n" {
				return
			}
			_, _ = io.WriteString(c, "220 go\r\n")
			s := stdtls.Server(c, &stdtls.Config{Certificates: []stdtls.Certificate{pair}})
			if s.Handshake() == nil {
				probetest.Hang(s)
			}
		}
	}
	o := &meshv1.TlsProbe{Starttls: "smtp", EhloName: "probe.example", Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}
	r := run(t, probetest.Listen(t, mail("250-mx\r\n250 STARTTLS\r\n")), o)
	probetest.OK().Match(t, r)
	if r.Timings.Processing == nil || r.Timings.Handshake == nil {
		t.Errorf("got %v", r.Timings)
	}
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_PROCESSING, "the server does not offer STARTTLS").Match(t, run(t, probetest.Listen(t, mail("250 mx\r\n")), o))
	o.Starttls, o.EhloName = "pop3", ""
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "does not speak POP3: it greets with \"220 mx ESMTP\"").Match(t, run(t, probetest.Listen(t, mail("")), o))
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "").Match(t, within(t, short, probetest.Listen(t, probetest.Hang), o))
	o.Starttls = "postgres"
	probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_PROCESSING, "").Match(t, run(t, probetest.Listen(t, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 8))
		probetest.Reset(c)
	}), o))
}

func TestWithoutAPortTheProtocolsOwnIsProbed(t *testing.T) {
	r := probetest.Run(t, tls.Compile, "tls://127.0.0.1", 5*time.Second, probe.Options{}, func(c *meshv1.Check) { c.Tls = &meshv1.TlsProbe{Starttls: "lmtp"} })
	if r.RemoteAddress != "127.0.0.1:24" {
		t.Errorf("probed %s", r.RemoteAddress)
	}
}
