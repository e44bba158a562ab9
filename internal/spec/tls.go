package spec

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func tlsOptions(f *faults, o *meshv1.TlsProbe, t *Target) {
	if o == nil {
		return
	}
	tlsConfig(f, "tls.tls", o.Tls)
	family(f, "tls.ip_family", o.IpFamily, t)
	expectations(f, "tls.expect", o.Expect)
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
	if _, ok := TLSVersion(t.MinVersion); !ok && t.MinVersion != "" {
		f.add(field+".min_version", "%q is not a version of TLS; write 1.0, 1.1, 1.2 or 1.3", clip(t.MinVersion))
	}
}

// TLSVersion is the number of a TLS version given as text: "1.2" is tls.VersionTLS12.
func TLSVersion(s string) (uint16, bool) {
	switch s {
	case "1.0":
		return tls.VersionTLS10, true
	case "1.1":
		return tls.VersionTLS11, true
	case "1.2":
		return tls.VersionTLS12, true
	case "1.3":
		return tls.VersionTLS13, true
	}
	return 0, false
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
