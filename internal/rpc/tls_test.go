package rpc

import (
	"context"
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
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// pair writes a self-signed certificate for localhost, which is its own authority, and its key.
func pair(t *testing.T, name string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	for file, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: bytes}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

func TestAServerWithACARefusesStrangers(t *testing.T) {
	serverCert, serverKey := pair(t, "server")
	friendCert, friendKey := pair(t, "friend")
	strangerCert, strangerKey := pair(t, "stranger")
	serverTLS, err := ServerTLS(TLSFiles{CA: friendCert, Certificate: serverCert, Key: serverKey})
	if err != nil {
		t.Fatal(err)
	}
	server, health := NewServer(Config{TLS: serverTLS}, nil, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, server, health, listener, time.Second) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		name  string
		files TLSFiles
		want  codes.Code
	}{
		{"friend", TLSFiles{CA: serverCert, Certificate: friendCert, Key: friendKey, ServerName: "localhost"}, codes.OK},
		{"stranger", TLSFiles{CA: serverCert, Certificate: strangerCert, Key: strangerKey, ServerName: "localhost"}, codes.Unavailable},
		{"nobody", TLSFiles{CA: serverCert, ServerName: "localhost"}, codes.Unavailable},
		{"other authority", TLSFiles{CA: friendCert, Certificate: friendCert, Key: friendKey, ServerName: "localhost"}, codes.Unavailable},
		{"other name", TLSFiles{CA: serverCert, Certificate: friendCert, Key: friendKey, ServerName: "example.com"}, codes.Unavailable},
	} {
		config, err := ClientTLS(c.files)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := Dial(listener.Addr().String(), DialOptions{TLS: config})
		if err != nil {
			t.Fatal(err)
		}
		_, err = healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
		if status.Code(err) != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
		conn.Close()
	}
}

func TestTLSFilesThatCannotWorkAreRefused(t *testing.T) {
	certificate, key := pair(t, "x")
	if c, err := ServerTLS(TLSFiles{}); c != nil || err != nil {
		t.Errorf("no files: %v, %v, want plain text", c, err)
	}
	for name, f := range map[string]TLSFiles{
		"no key": {Certificate: certificate}, "no certificate": {Key: key}, "only a CA": {CA: certificate}, "absent": {Certificate: "absent", Key: "absent"},
		"no PEM": {CA: key, Certificate: certificate, Key: key},
	} {
		if _, err := ServerTLS(f); err == nil {
			t.Errorf("server, %s: no error", name)
		}
	}
	for name, f := range map[string]TLSFiles{"no key": {Certificate: certificate}, "no certificate": {Key: key}, "absent CA": {CA: "absent"}} {
		if _, err := ClientTLS(f); err == nil {
			t.Errorf("client, %s: no error", name)
		}
	}
}
