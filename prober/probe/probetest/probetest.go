// Package probetest helps the tests of the kinds: certificates made on the spot, raw listeners that misbehave, and checks of results.
package probetest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Env is a prober that can do everything.
func Env() probe.Env {
	return probe.Env{UserAgent: "probemesh/test", Capabilities: []string{"http", "tcp", "tls", "dns", "icmp", "grpc", "udp", "websocket", "ipv4", "ipv6"}}
}

// Check is a check of uri with the timeout, whose defaults are resolved after change has had its turn. It fails the test when the check is not valid.
func Check(t testing.TB, uri string, timeout time.Duration, change func(*meshv1.Check)) (*meshv1.Check, *spec.Target) {
	t.Helper()
	c := &meshv1.Check{Name: "checks/under-test", Uri: uri, Interval: durationpb.New(time.Minute), Timeout: durationpb.New(timeout)}
	if change != nil {
		change(c)
	}
	if list := spec.ValidateCheck(c, ""); len(list) > 0 {
		t.Fatalf("the check is not valid: %v", list)
	}
	target, err := spec.ParseURI(uri)
	if err != nil {
		t.Fatal(err)
	}
	return spec.Effective(c, 1), target
}

// Compiler is the Compile of a kind.
type Compiler func(*meshv1.Check, *spec.Target, probe.Env) (probe.Runner, error)

// Run compiles a check, probes once, checks what every result promises, and closes the runner.
func Run(t testing.TB, compile Compiler, uri string, timeout time.Duration, o probe.Options, change func(*meshv1.Check)) *meshv1.Result {
	t.Helper()
	c, target := Check(t, uri, timeout, change)
	r, err := compile(c, target, Env())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	begin := time.Now()
	result := r.Probe(context.Background(), o)
	if took := time.Since(begin); took > timeout+2*time.Second {
		t.Errorf("the probe took %s with a timeout of %s", took, timeout)
	}
	Promises(t, result)
	return result
}

// Promises checks what holds of every result.
func Promises(t testing.TB, r *meshv1.Result) {
	t.Helper()
	if r == nil {
		t.Fatal("no result")
	}
	ok := r.Outcome == meshv1.Result_OK
	switch {
	case r.Check == "" || r.StartTime == nil || r.Duration == nil || r.Timings == nil:
		t.Errorf("check, start, duration or timings are missing: %v", r)
	case ok != (r.Error == "") || ok != (r.ErrorClass == 0) || ok && r.FailedPhase != 0 || r.Outcome == meshv1.Result_FAIL && r.FailedPhase == 0 && r.ErrorClass != meshv1.Result_SLOW_PHASE,
		!ok && r.Degraded != "":
		t.Errorf("outcome and error do not go together: %v", r)
	case (r.Outcome == meshv1.Result_ERROR) != (r.ErrorClass == meshv1.Result_PROBER):
		t.Errorf("outcome %v with class %v", r.Outcome, r.ErrorClass)
	case (r.Outcome == meshv1.Result_FAIL) && r.Evidence == nil:
		t.Errorf("a failure without evidence: %v", r)
	case len(r.Error) > 1<<10:
		t.Errorf("an error of %d bytes", len(r.Error))
	}
}

// Want is what a result should be.
type Want struct {
	Outcome meshv1.Result_Outcome
	Class   meshv1.Result_ErrorClass
	Phase   meshv1.Result_Phase
	// Error is a part of the sentence.
	Error string
}

// OK is the result of a good answer.
func OK() Want { return Want{Outcome: meshv1.Result_OK} }

// Fail is the result of a bad one.
func Fail(class meshv1.Result_ErrorClass, phase meshv1.Result_Phase, sentence string) Want {
	return Want{Outcome: meshv1.Result_FAIL, Class: class, Phase: phase, Error: sentence}
}

// Error is the result of a probe that failed by the prober's own trouble.
func Error(sentence string) Want {
	return Want{Outcome: meshv1.Result_ERROR, Class: meshv1.Result_PROBER, Error: sentence}
}

// Match checks a result.
func (w Want) Match(t testing.TB, r *meshv1.Result) {
	t.Helper()
	phase := r.FailedPhase == w.Phase || w.Outcome == meshv1.Result_ERROR && w.Phase == 0
	if r.Outcome != w.Outcome || r.ErrorClass != w.Class || !phase || !strings.Contains(r.Error, w.Error) {
		t.Errorf("got  %v %v in %v: %s\nwant %v %v in %v: %s", r.Outcome, r.ErrorClass, r.FailedPhase, r.Error, w.Outcome, w.Class, w.Phase, w.Error)
	}
}

// Listen serves each connection with serve until the test ends; a connection is closed when serve returns. It gives the address.
func Listen(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	closed := false
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if closed {
				conn.Close()
			}
			open[conn] = true
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		closed = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// Hang reads until the peer or the test ends the connection.
func Hang(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// Reset ends a connection with a RST.
func Reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

// RefusedAddress is an address on which nobody listens.
func RefusedAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// CA is an authority made for a test.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// PEM is its certificate.
	PEM string
}

// NewCA makes an authority.
func NewCA(t testing.TB) *CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-10_000 * time.Hour), NotAfter: time.Now().Add(10_000 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{cert: cert, key: key, PEM: encode("CERTIFICATE", der)}
}

// Issue makes a certificate for the names, valid since long ago and until notAfter from now. It gives also the PEM of certificate and key.
func (ca *CA) Issue(t testing.TB, notAfter time.Duration, names ...string) (tls.Certificate, string, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(notAfter)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now().Add(-5_000 * time.Hour), NotAfter: end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM := encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)
	pair, err := tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
	if err != nil {
		t.Fatal(err)
	}
	return pair, certPEM, keyPEM
}

// Pool is a pool with the authority alone.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

func encode(kind string, der []byte) string {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der})
	return b.String()
}
