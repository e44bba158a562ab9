package probetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Sub makes an authority below this one.
func (ca *CA) Sub(t testing.TB) *CA {
	t.Helper()
	pair := ca.Make(t, nil, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = "Test Sub-CA", true, true, x509.KeyUsageCertSign, nil
	})
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("a key of type %T", pair.PrivateKey)
	}
	return &CA{cert: pair.Leaf, key: key, PEM: encode("CERTIFICATE", pair.Leaf.Raw)}
}

// DER is the certificate of the authority.
func (ca *CA) DER() []byte { return ca.cert.Raw }

// Make makes a certificate for 127.0.0.1 that is valid from yesterday for a year, unless change says otherwise. A nil key makes a new one of P-256. Only the certificate itself is in the chain.
func (ca *CA) Make(t testing.TB, key crypto.Signer, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	return sign(t, ca, key, change)
}

// MakeSelfSigned is Make without an authority.
func MakeSelfSigned(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	return sign(t, nil, nil, change)
}

func sign(t testing.TB, ca *CA, key crypto.Signer, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(1, 0, 0),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// Staple makes an OCSP response of this hour about a certificate of the authority.
func (ca *CA) Staple(t testing.TB, leaf *x509.Certificate, status int) []byte {
	t.Helper()
	der, err := ocsp.CreateResponse(ca.cert, ca.cert, ocsp.Response{Status: status, SerialNumber: leaf.SerialNumber, ThisUpdate: time.Now().Add(-time.Hour),
		NextUpdate: time.Now().Add(time.Hour), RevokedAt: time.Now().Add(-48 * time.Hour)}, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
