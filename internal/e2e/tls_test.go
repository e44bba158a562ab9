//go:build linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pki writes an authority and two certificates that it signed, one for servers and one for everybody else, and gives the directory.
func pki(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	key := func(name string) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if name != "" {
			write(name, "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(k)))
		}
		return k
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	caKey := key("")
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mesh authority"}, NotBefore: from, NotAfter: to, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	write("ca.pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)))
	for i, name := range []string{"server", "client"} {
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(2 + i)), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		k := key(name + ".key")
		write(name+".pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, c, ca, k.Public(), caKey)))
	}
	return dir
}

// A server that demands certificates serves a prober and a user who have one, and nobody else.
func TestServerWithCertificatesServesThoseWhoHaveOne(t *testing.T) {
	t.Parallel()
	dir, data := pki(t), t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	m := &mesh{t: t, data: data, grpc: quietAddress(t), http: quietAddress(t)}
	m.proc = begin(t, "server", []string{"server", "--data", data, "--grpc-listen", m.grpc, "--http-listen", m.http, "--lease-ttl", "2s",
		"--tls-cert", file("server.pem"), "--tls-key", file("server.key"), "--tls-client-ca", file("ca.pem")})
	certificate := []string{"--ca-file", file("ca.pem"), "--cert-file", file("client.pem"), "--key-file", file("client.key")}
	begin(t, "prober", append([]string{"prober", "--name", "fra-1", "--datacenter", "fra", "--data", t.TempDir(), "--server", m.grpc}, certificate...))

	until(t, "the prober is online for a user with a certificate", func() (bool, string) {
		out, errs, _ := m.cli("", append([]string{"get", "probers"}, certificate...)...)
		return strings.Contains(out, "ONLINE"), out + errs + tail(m.proc.log.String(), 5)
	})
	if out, errs, code := m.cli("", "get", "checks", "--timeout", "2s"); code != 3 || out != "" || errs == "" {
		t.Errorf("without a certificate: exit %d, output %q, %q; want a refusal and exit 3", code, out, errs)
	}
	if _, errs, code := m.cli("", "get", "checks", "--ca-file", file("nothing.pem")); code != 2 || !strings.Contains(errs, "nothing.pem") {
		t.Errorf("with a missing file: exit %d, %q; want exit 2 and the file's name", code, errs)
	}
}
