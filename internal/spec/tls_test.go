package spec_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// logKey is the key of a log as an option.
func logKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func TestOptionsOfTLSAreValidated(t *testing.T) {
	pin := strings.Repeat("ab", 32)
	key := logKey(t)
	for _, c := range []struct {
		o              *meshv1.TlsConfig
		field, problem string
	}{
		{&meshv1.TlsConfig{MinVersion: "1.2", MaxVersion: "1.2", MinDaysLeft: 14, DegradedDaysLeft: 30, MinChainDaysLeft: 10, MinRsaBits: 3072, MinEcBits: 256, MustStaple: true, MinScts: 1,
			SctLogKeys: []string{key}, CertificatePins: []string{pin, strings.Repeat("AB:", 31) + "AB"}, PublicKeyPins: []string{"sha256//" + strings.Repeat("A", 43) + "="},
			SignatureAlgorithms: []string{"SHA256-RSA", "ECDSA-SHA256", "Ed25519"}, Groups: []string{"X25519", "P-256", "X25519MLKEM768"}, AllowSelfSigned: true, ResumeSessions: true, FullEvery: 2,
			CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}}, "", ""},
		{&meshv1.TlsConfig{MaxVersion: "1.4"}, "max_version", `"1.4" is not a version`},
		{&meshv1.TlsConfig{MaxVersion: "1.1"}, "max_version", "1.1 is below min_version, which is 1.2"},
		{&meshv1.TlsConfig{CipherSuites: []string{"AES128-SHA"}}, "cipher_suites[0]", "IANA name"},
		{&meshv1.TlsConfig{CipherSuites: []string{"TLS_RSA_WITH_AES_128_CBC_SHA"}}, "cipher_suites[0]", "TLS_RSA_WITH_AES_128_CBC_SHA is weak"},
		{&meshv1.TlsConfig{CipherSuites: []string{"TLS_AES_128_GCM_SHA256"}, MaxVersion: "1.2"}, "cipher_suites", "no suite for TLS 1.2 to 1.2"},
		{&meshv1.TlsConfig{CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, MinVersion: "1.3"}, "cipher_suites", "no suite for TLS 1.3 to 1.3"},
		{&meshv1.TlsConfig{Groups: []string{"X448"}}, "groups[0]", `"X448" is not a key exchange group`},
		{&meshv1.TlsConfig{MinDaysLeft: 4000}, "min_days_left", "4000 is not 1 to 3650"},
		{&meshv1.TlsConfig{MinDaysLeft: -1}, "min_days_left", "-1 is not 1 to 3650"},
		{&meshv1.TlsConfig{MinDaysLeft: 14, DegradedDaysLeft: 14}, "degraded_days_left", "nothing would ever be degraded"},
		{&meshv1.TlsConfig{MinChainDaysLeft: 14, InsecureSkipVerify: true}, "min_chain_days_left", "verifies no chain"},
		{&meshv1.TlsConfig{AllowSelfSigned: true, InsecureSkipVerify: true}, "allow_self_signed", "allows more"},
		{&meshv1.TlsConfig{MinRsaBits: 512}, "min_rsa_bits", "512 is not 1024 to 16384"},
		{&meshv1.TlsConfig{MinEcBits: 2048}, "min_ec_bits", "2048 is not 224 to 521"},
		{&meshv1.TlsConfig{SignatureAlgorithms: []string{"SHA1-RSA"}}, "signature_algorithms[0]", `"SHA1-RSA" is not a signature algorithm that may verify`},
		{&meshv1.TlsConfig{MinScts: 17}, "min_scts", "17 is not 1 to 16"},
		{&meshv1.TlsConfig{MinScts: 2, SctLogKeys: []string{key}}, "min_scts", "cannot come from the 1 logs"},
		{&meshv1.TlsConfig{SctLogKeys: []string{"?"}}, "sct_log_keys[0]", "is not base64"},
		{&meshv1.TlsConfig{SctLogKeys: []string{"AAAA"}}, "sct_log_keys[0]", "is not a public key"},
		{&meshv1.TlsConfig{CertificatePins: []string{"abcd"}}, "certificate_pins[0]", "64 hex digits"},
		{&meshv1.TlsConfig{CertificatePins: slices.Repeat([]string{pin}, 17)}, "certificate_pins", "has 17 entries, which is more than 16"},
		{&meshv1.TlsConfig{PublicKeyPins: []string{pin}}, "public_key_pins[0]", "44 characters"},
		{&meshv1.TlsConfig{FullEvery: 5}, "full_every", "is only for resume_sessions"},
		{&meshv1.TlsConfig{FullEvery: 1, ResumeSessions: true}, "full_every", "1 is not 2 to 1000"},
	} {
		list := spec.ValidateCheck(check(func(k *meshv1.Check) { k.Http = &meshv1.HttpProbe{Tls: c.o} }), "")
		if c.field == "" && len(list) > 0 || c.field != "" && (len(list) != 1 || list[0].Field != "http.tls."+c.field || !strings.Contains(list[0].Problem, c.problem)) {
			t.Errorf("%s: %s: got %v", c.field, c.problem, list)
		}
	}
}

func TestOptionsOfKindTLSAreValidated(t *testing.T) {
	for _, c := range []struct {
		o              *meshv1.TlsProbe
		field, problem string
	}{
		{&meshv1.TlsProbe{Starttls: "smtp", EhloName: "probe.example.com", Alpn: []string{"h2"}}, "", ""},
		{&meshv1.TlsProbe{Starttls: "gopher"}, "starttls", `"gopher" is not a protocol with STARTTLS that probers speak; write one of ftp, imap`},
		{&meshv1.TlsProbe{Starttls: "imap", EhloName: "probe.example.com"}, "ehlo_name", "only for starttls: smtp or lmtp"},
		{&meshv1.TlsProbe{Starttls: "smtp", EhloName: "two words\r\nDATA"}, "ehlo_name", ""},
		{&meshv1.TlsProbe{Alpn: []string{""}}, "alpn[0]", "has 0 bytes"},
		{&meshv1.TlsProbe{Alpn: slices.Repeat([]string{"h2"}, 9)}, "alpn", "more than 8"},
	} {
		list := spec.ValidateCheck(check(func(k *meshv1.Check) { k.Uri, k.Tls = "tls://a.example.com", c.o }), "")
		if c.field == "" && len(list) > 0 || c.field != "" && (len(list) != 1 || list[0].Field != "tls."+c.field || !strings.Contains(list[0].Problem, c.problem)) {
			t.Errorf("%s: %s: got %v", c.field, c.problem, list)
		}
	}
}

func TestVersionsForWhichNoSuiteIsAllowedAreNotOffered(t *testing.T) {
	for _, c := range []struct {
		o           *meshv1.TlsConfig
		least, most uint16
	}{
		{nil, tls.VersionTLS12, tls.VersionTLS13},
		{&meshv1.TlsConfig{MinVersion: "1.0", MaxVersion: "1.1"}, tls.VersionTLS10, tls.VersionTLS11},
		{&meshv1.TlsConfig{CipherSuites: []string{"TLS_AES_128_GCM_SHA256"}}, tls.VersionTLS13, tls.VersionTLS13},
		{&meshv1.TlsConfig{CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}}, tls.VersionTLS12, tls.VersionTLS12},
		{&meshv1.TlsConfig{CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"}}, tls.VersionTLS12, tls.VersionTLS13},
	} {
		if least, most := spec.TLSVersions(c.o); least != c.least || most != c.most {
			t.Errorf("%v: %x to %x", c.o, least, most)
		}
	}
}

func TestSessionsHaveADefault(t *testing.T) {
	e := spec.Effective(check(func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{ResumeSessions: true}} }), 1)
	if e.Http.Tls.FullEvery != spec.DefaultFullEvery {
		t.Errorf("every %dth", e.Http.Tls.FullEvery)
	}
	for _, p := range spec.StartTLSProtocols() {
		if port, ok := spec.StartTLSPort(p); !ok || port == 0 {
			t.Errorf("%s has no port", p)
		}
	}
}
