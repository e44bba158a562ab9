package spec

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/probemesh/probemesh/internal/nearest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of TLS options, as tls_probe.proto documents them.
const (
	maxDaysLeft      = 3650
	maxCipherSuites  = 32
	maxGroups        = 8
	maxSignatures    = 16
	maxPins          = 16
	maxSCTs          = 16
	maxSCTLogs       = 32
	maxALPN          = 8
	maxALPNBytes     = 255
	maxFullEvery     = 1000
	DefaultFullEvery = 10
)

func tlsOptions(f *faults, o *meshv1.TlsProbe, t *Target) {
	if o == nil {
		return
	}
	tlsConfig(f, "tls.tls", o.Tls)
	family(f, "tls.ip_family", o.IpFamily, t)
	expectations(f, "tls.expect", o.Expect, sees(TLS, t))
	if _, ok := StartTLSPort(o.Starttls); !ok && o.Starttls != "" {
		f.add("tls.starttls", "%q is not a protocol with STARTTLS that probers speak; write one of %s%s", clip(o.Starttls), strings.Join(StartTLSProtocols(), ", "), nearest.Hint(o.Starttls, StartTLSProtocols()))
	}
	if o.EhloName != "" {
		switch problem := hostProblem(o.EhloName); {
		case o.Starttls != "smtp" && o.Starttls != "lmtp":
			f.add("tls.ehlo_name", "is only for starttls: smtp or lmtp; remove it")
		case problem != "":
			f.add("tls.ehlo_name", "%s", problem)
		}
	}
	count(f, "tls.alpn", len(o.Alpn), maxALPN)
	for i, p := range o.Alpn {
		if len(p) == 0 || len(p) > maxALPNBytes {
			f.add(fmt.Sprintf("tls.alpn[%d]", i), "has %d bytes, not 1 to %d; write a protocol id such as h2 or http/1.1", len(p), maxALPNBytes)
		}
	}
}

// tlsConfig checks what can be checked of TLS options without a handshake.
func tlsConfig(f *faults, field string, t *meshv1.TlsConfig) {
	if t == nil {
		return
	}
	if t.ServerName != "" {
		if problem := hostProblem(t.ServerName); problem != "" {
			f.add(field+".server_name", "%s", problem)
		}
	}
	caPEM(f, field+".ca_pem", t.CaPem)
	clientCertificate(f, field, t)
	tlsVersions(f, field, t)
	for i, g := range t.Groups {
		if _, ok := TLSGroup(g); !ok {
			f.add(fmt.Sprintf("%s.groups[%d]", field, i), "%q is not a key exchange group that probers know; write one of %s", clip(g), strings.Join(tlsGroupNames(), ", "))
		}
	}
	count(f, field+".groups", len(t.Groups), maxGroups)
	certificateDemands(f, field, t)
	pins(f, field, t)
	timestamps(f, field, t)
	switch {
	case t.FullEvery != 0 && !t.ResumeSessions:
		f.add(field+".full_every", "is only for resume_sessions: true; set that, or remove this")
	default:
		between(f, field+".full_every", int64(t.FullEvery), 2, maxFullEvery)
	}
}

func clientCertificate(f *faults, field string, t *meshv1.TlsConfig) {
	switch {
	case t.ClientCertificatePem == "" && t.ClientKeyPem != "":
		f.add(field+".client_key_pem", "is given without client_certificate_pem; add that, or remove this")
	case t.ClientCertificatePem != "" && t.ClientKeyPem == "":
		f.add(field+".client_certificate_pem", "is given without client_key_pem; add that, or remove this")
	case t.ClientCertificatePem != "":
		if _, err := tls.X509KeyPair([]byte(t.ClientCertificatePem), []byte(t.ClientKeyPem)); err != nil {
			f.add(field+".client_certificate_pem", "does not go with client_key_pem: %s", strings.TrimPrefix(err.Error(), "tls: "))
		}
	}
}

// tlsVersions checks the versions and the cipher suites, and that something is left to offer.
func tlsVersions(f *faults, field string, t *meshv1.TlsConfig) {
	before := len(f.list)
	tlsVersion(f, field+".min_version", t.MinVersion)
	tlsVersion(f, field+".max_version", t.MaxVersion)
	count(f, field+".cipher_suites", len(t.CipherSuites), maxCipherSuites)
	for i, c := range t.CipherSuites {
		switch _, weak, ok := CipherSuite(c); {
		case !ok:
			f.add(fmt.Sprintf("%s.cipher_suites[%d]", field, i), "%q is not a cipher suite that probers speak; write its IANA name, such as TLS_AES_128_GCM_SHA256 or TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", clip(c))
		case weak:
			f.add(fmt.Sprintf("%s.cipher_suites[%d]", field, i), "%s is weak and never offered; remove it", c)
		}
	}
	if len(f.list) > before {
		return
	}
	least, most := TLSVersions(t)
	switch {
	case least > most && len(t.CipherSuites) > 0:
		f.add(field+".cipher_suites", "has no suite for TLS %s to %s; add one, or change the versions", cmp.Or(t.MinVersion, DefaultMinVersion), cmp.Or(t.MaxVersion, "1.3"))
	case least > most:
		f.add(field+".max_version", "%s is below min_version, which is %s; raise it, or lower that", t.MaxVersion, cmp.Or(t.MinVersion, DefaultMinVersion))
	}
}

func tlsVersion(f *faults, field, v string) {
	if _, ok := TLSVersion(v); !ok && v != "" {
		f.add(field, "%q is not a version of TLS; write 1.0, 1.1, 1.2 or 1.3", clip(v))
	}
}

// certificateDemands checks what is demanded of certificates.
func certificateDemands(f *faults, field string, t *meshv1.TlsConfig) {
	between(f, field+".min_days_left", int64(t.MinDaysLeft), 1, maxDaysLeft)
	between(f, field+".min_chain_days_left", int64(t.MinChainDaysLeft), 1, maxDaysLeft)
	between(f, field+".degraded_days_left", int64(t.DegradedDaysLeft), 1, maxDaysLeft)
	between(f, field+".min_rsa_bits", int64(t.MinRsaBits), 1024, 16384)
	between(f, field+".min_ec_bits", int64(t.MinEcBits), 224, 521)
	if t.DegradedDaysLeft > 0 && t.DegradedDaysLeft <= t.MinDaysLeft {
		f.add(field+".degraded_days_left", "%d is not more than min_days_left, which is %d, so that nothing would ever be degraded; raise it", t.DegradedDaysLeft, t.MinDaysLeft)
	}
	if t.InsecureSkipVerify && t.MinChainDaysLeft != 0 {
		f.add(field+".min_chain_days_left", "does not go with insecure_skip_verify, which verifies no chain; write min_days_left")
	}
	if t.InsecureSkipVerify && t.AllowSelfSigned {
		f.add(field+".allow_self_signed", "does not go with insecure_skip_verify, which allows more; remove one of them")
	}
	count(f, field+".signature_algorithms", len(t.SignatureAlgorithms), maxSignatures)
	for i, s := range t.SignatureAlgorithms {
		if _, ok := SignatureAlgorithm(s); !ok {
			f.add(fmt.Sprintf("%s.signature_algorithms[%d]", field, i), "%q is not a signature algorithm that may verify; write one of %s", clip(s), strings.Join(signatureAlgorithmNames(), ", "))
		}
	}
}

func pins(f *faults, field string, t *meshv1.TlsConfig) {
	count(f, field+".certificate_pins", len(t.CertificatePins), maxPins)
	for i, p := range t.CertificatePins {
		if _, err := CertificatePin(p); err != nil {
			f.add(fmt.Sprintf("%s.certificate_pins[%d]", field, i), "%s", err)
		}
	}
	count(f, field+".public_key_pins", len(t.PublicKeyPins), maxPins)
	for i, p := range t.PublicKeyPins {
		if _, err := PublicKeyPin(p); err != nil {
			f.add(fmt.Sprintf("%s.public_key_pins[%d]", field, i), "%s", err)
		}
	}
}

// timestamps checks what is demanded of certificate transparency.
func timestamps(f *faults, field string, t *meshv1.TlsConfig) {
	between(f, field+".min_scts", int64(t.MinScts), 1, maxSCTs)
	count(f, field+".sct_log_keys", len(t.SctLogKeys), maxSCTLogs)
	for i, k := range t.SctLogKeys {
		if _, _, err := SCTLogKey(k); err != nil {
			f.add(fmt.Sprintf("%s.sct_log_keys[%d]", field, i), "%s", err)
		}
	}
	if n := len(t.SctLogKeys); n > 0 && int(t.MinScts) > n {
		f.add(field+".min_scts", "%d timestamps of different logs cannot come from the %d logs of sct_log_keys; add keys, or lower it", t.MinScts, n)
	}
}

// caPEM checks a list of certificates in PEM; the empty text is fine.
func caPEM(f *faults, field, text string) {
	if text == "" {
		return
	}
	if _, err := CertPool(text); err != nil {
		f.add(field, "%s", err)
	}
}

// CertPool is the pool of the certificates in a PEM text. Unlike x509's own reading it refuses a text in which any block is no certificate.
func CertPool(text string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	rest, n := []byte(text), 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		n++
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a block of type %q; give certificates only", clip(block.Type))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be parsed: %s", n, strings.TrimPrefix(err.Error(), "x509: "))
		}
		pool.AddCert(cert)
	}
	if n == 0 {
		return nil, errors.New("holds no PEM certificate; it begins with -----BEGIN CERTIFICATE-----")
	}
	return pool, nil
}

func tlsDefaults(t *meshv1.TlsConfig) *meshv1.TlsConfig {
	if t == nil {
		t = &meshv1.TlsConfig{}
	}
	if t.MinVersion == "" {
		t.MinVersion = DefaultMinVersion
	}
	if t.ResumeSessions && t.FullEvery == 0 {
		t.FullEvery = DefaultFullEvery
	}
	return t
}

// tlsProbeDefaults resolves the defaults of a block of kind tls.
func tlsProbeDefaults(o *meshv1.TlsProbe) *meshv1.TlsProbe {
	if o == nil {
		o = &meshv1.TlsProbe{}
	}
	o.IpFamily = familyDefault(o.IpFamily)
	o.Tls = tlsDefaults(o.Tls)
	return o
}

// TLSOf are the TLS options of a check, whatever its kind; nil without any.
func TLSOf(c *meshv1.Check) *meshv1.TlsConfig {
	switch {
	case c.GetTls() != nil:
		return c.GetTls().GetTls()
	case c.GetHttp() != nil:
		return c.GetHttp().GetTls()
	case c.GetGrpc() != nil:
		return c.GetGrpc().GetTls()
	case c.GetTcp() != nil:
		return c.GetTcp().GetTls()
	case c.GetWebsocket() != nil:
		return c.GetWebsocket().GetTls()
	}
	return c.GetDns().GetTls()
}
