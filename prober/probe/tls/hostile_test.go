package tls_test

import (
	"bytes"
	stdtls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// bounded runs a probe and checks that neither its result nor what it allocates is large, whatever the peer sent.
func bounded(t *testing.T, address string, o *meshv1.TlsProbe) *meshv1.Result {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := within(t, 5*time.Second, address, o)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("the probe (and its server) allocated %d bytes", got)
	}
	if n := proto.Size(r); n > 64<<10 {
		t.Errorf("a result of %d bytes", n)
	}
	return r
}

// padded makes a certificate with an extension of so many bytes.
func padded(t *testing.T, ca *probetest.CA, n int) stdtls.Certificate {
	return ca.Make(t, nil, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: make([]byte, n)}}
	})
}

// TestGiantCertificatesAreRefusedByTheirLength shows the bound of crypto/tls: a certificate message of more than 256 KiB is not even read, one below that is an ordinary certificate.
func TestGiantCertificatesAreRefusedByTheirLength(t *testing.T) {
	ca := probetest.NewCA(t)
	for _, most := range []uint16{stdtls.VersionTLS12, stdtls.VersionTLS13} {
		limit := func(c *stdtls.Config) { c.MaxVersion = most }
		o := &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}
		probetest.OK().Match(t, bounded(t, serve(t, padded(t, ca, 200<<10), limit), o))
		probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "exceeds maximum of 262144 bytes").Match(t, bounded(t, serve(t, padded(t, ca, 300<<10), limit), o))
	}
}

func TestManyNamesAndLongOnesAreCut(t *testing.T) {
	ca := probetest.NewCA(t)
	pair := ca.Make(t, nil, func(c *x509.Certificate) {
		c.IPAddresses, c.Subject.CommonName = nil, string(bytes.Repeat([]byte("n"), 60<<10))
		for i := range 3000 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("a%d.%s.example", i, bytes.Repeat([]byte("x"), 40)))
		}
	})
	r := bounded(t, serve(t, pair, nil), &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}})
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "the certificate is not for 127.0.0.1").Match(t, r)
	if c := r.Evidence.Certificates[0]; len(c.Names) != 32 || len(c.Subject) > 512 {
		t.Errorf("evidence with %d names and a subject of %d bytes", len(c.Names), len(c.Subject))
	}
	r = bounded(t, serve(t, pair, nil), &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{InsecureSkipVerify: true}, Expect: []string{`size(response.tls.names) == 1000`, `size(response.tls.subject) <= 1024`}})
	probetest.OK().Match(t, r)
}

// TestALongChainOfLookalikesIsGivenUp sends hundreds of certificates that all claim to be the issuer: each costs a signature to be found out.
func TestALongChainOfLookalikesIsGivenUp(t *testing.T) {
	ca, fake := probetest.NewCA(t), probetest.NewCA(t)
	pair := fake.Sub(t).Make(t, nil, nil)
	lookalike := fake.Sub(t).DER()
	for range 270 {
		pair.Certificate = append(pair.Certificate, fake.Sub(t).DER(), lookalike)
	}
	begin := time.Now()
	r := bounded(t, serve(t, pair, nil), &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}})
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "").Match(t, r)
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	if n := len(r.Evidence.Certificates); n != 8 {
		t.Errorf("evidence with %d certificates", n)
	}
	pair.OCSPStaple = []byte("garbage")
	probetest.OK().Match(t, bounded(t, serve(t, pair, nil), &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{InsecureSkipVerify: true}}))
}

func TestOversizedStaplesAndTimestampsAreRefusedOrIgnored(t *testing.T) {
	ca := probetest.NewCA(t)
	one := append(make([]byte, 1+32+8+2), 4, 3, 0, 1, 9)
	for _, most := range []uint16{stdtls.VersionTLS12, stdtls.VersionTLS13} {
		for name, c := range map[string]struct {
			staple int
			stamps int
			want   probetest.Want
		}{
			"60 KiB":           {60 << 10, 0, probetest.OK()},
			"1300 timestamps":  {0, 1300, probetest.OK()},
			"a staple of 300K": {300 << 10, 0, probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "exceeds maximum")},
		} {
			pair := ca.Make(t, nil, nil)
			if c.staple > 64<<10 && most == stdtls.VersionTLS13 {
				continue // not even a server can write that: it is an extension there, of 64 KiB at most
			}
			if c.staple > 0 {
				pair.OCSPStaple = bytes.Repeat([]byte{0x30}, c.staple)
			}
			for range c.stamps {
				pair.SignedCertificateTimestamps = append(pair.SignedCertificateTimestamps, one)
			}
			t.Run(fmt.Sprintf("%s in %x", name, most), func(t *testing.T) {
				r := bounded(t, serve(t, pair, func(c *stdtls.Config) { c.MaxVersion = most }), &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}, Expect: []string{`response.tls.scts < 2`}})
				c.want.Match(t, r)
			})
		}
	}
}

// relay passes a connection on to a server until so many bytes have come from the server, and then does something to the client.
func relay(t *testing.T, to string, after int, then func(net.Conn)) string {
	return probetest.Listen(t, func(c net.Conn) {
		server, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(server, c)
		}()
		defer func() { c.Close(); server.Close(); <-done }()
		_, _ = io.CopyN(c, server, int64(after))
		then(c)
	})
}

// TestAPeerThatGoesAtAnyPointOfTheHandshakeIsClassified cuts the server's side of the handshake at many points, by a RST and by a half-close after which it says no more.
func TestAPeerThatGoesAtAnyPointOfTheHandshakeIsClassified(t *testing.T) {
	ca := probetest.NewCA(t)
	for _, most := range []uint16{stdtls.VersionTLS12, stdtls.VersionTLS13} {
		to := serve(t, ca.Make(t, nil, nil), func(c *stdtls.Config) { c.MaxVersion = most })
		for after := 0; after < 700; after += 41 {
			for name, then := range map[string]func(net.Conn){
				"reset": probetest.Reset,
				"half-close": func(c net.Conn) {
					if tcp, ok := c.(*net.TCPConn); ok {
						_ = tcp.CloseWrite()
					}
					_, _ = io.Copy(io.Discard, c)
				},
			} {
				r := within(t, 5*time.Second, relay(t, to, after, then), &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}})
				if r.Outcome != meshv1.Result_FAIL || r.ErrorClass != meshv1.Result_CONNECTION_RESET || r.FailedPhase != meshv1.Result_HANDSHAKE && after > 0 {
					t.Errorf("%s after %d bytes of %x: %v %v in %v: %s", name, after, most, r.Outcome, r.ErrorClass, r.FailedPhase, r.Error)
				}
			}
		}
	}
}

// TestAHandshakeThatNeverEndsRunsIntoTheTimeout has servers that send something for ever: a genuine handshake byte by byte, and banners of STARTTLS.
func TestAHandshakeThatNeverEndsRunsIntoTheTimeout(t *testing.T) {
	ca := probetest.NewCA(t)
	pair := ca.Make(t, nil, nil)
	trickle := func(c net.Conn) {
		s := stdtls.Server(slow{c}, &stdtls.Config{Certificates: []stdtls.Certificate{pair}})
		_ = s.Handshake()
	}
	o := &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_HANDSHAKE, "timed out after 400ms").Match(t, within(t, short, probetest.Listen(t, trickle), o))
	o.Starttls = "smtp"
	banner := func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, "220-patience\r\n"); err != nil {
				return
			}
		}
	}
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "more than 64 lines").Match(t, within(t, 5*time.Second, probetest.Listen(t, banner), o))
	drops := func(c net.Conn) {
		for {
			if _, err := (slow{c}).Write([]byte("220-x\r\n")); err != nil {
				return
			}
		}
	}
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "").Match(t, within(t, short, probetest.Listen(t, drops), o))
}

// slow writes byte by byte, one each 20 ms.
type slow struct{ net.Conn }

func (s slow) Write(b []byte) (int, error) {
	for i := range b {
		<-time.After(20 * time.Millisecond)
		if _, err := s.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// TestRecordsThatLeadNowhereAreGivenUp has servers that send records for ever, each of which is allowed.
func TestRecordsThatLeadNowhereAreGivenUp(t *testing.T) {
	record := func(kind byte, body []byte) []byte {
		out := []byte{kind, 3, 3}
		return append(binary.BigEndian.AppendUint16(out, uint16(len(body))), body...)
	}
	for name, text := range map[string][]byte{
		"warnings":                     record(21, []byte{1, 90}),
		"empty handshakes":             record(22, nil),
		"changes of cipher":            record(20, []byte{1}),
		"application data":             record(23, make([]byte, 100)),
		"a message of 16 MiB":          record(22, append([]byte{2, 0xff, 0xff, 0xff}, make([]byte, 16000)...)),
		"a record longer than allowed": record(22, make([]byte, 40000)),
		"hello requests":               record(22, []byte{0, 0, 0, 0}),
	} {
		t.Run(name, func(t *testing.T) {
			address := probetest.Listen(t, func(c net.Conn) {
				for {
					if _, err := c.Write(text); err != nil {
						return
					}
				}
			})
			begin := time.Now()
			r := bounded(t, address, nil)
			if r.Outcome != meshv1.Result_FAIL || r.FailedPhase != meshv1.Result_HANDSHAKE || r.ErrorClass != meshv1.Result_TLS && r.ErrorClass != meshv1.Result_CONNECTION_RESET {
				t.Errorf("got %v %v in %v: %s", r.Outcome, r.ErrorClass, r.FailedPhase, r.Error)
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestRenegotiationIsNeverAllowed(t *testing.T) {
	config, err := probe.TLSConfig(&meshv1.TlsConfig{ResumeSessions: true, FullEvery: 2, AllowSelfSigned: true}, "a.example")
	if err != nil || config.Renegotiation != stdtls.RenegotiateNever {
		t.Errorf("%v, %v", config.Renegotiation, err)
	}
}
