package dns

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// reply answers a question as a small zone would, and notes nothing.
func replyTo(query []byte) []byte {
	q, m := new(dns.Msg), new(dns.Msg)
	if q.Unpack(query) != nil {
		return nil
	}
	m.SetReply(q)
	m.Authoritative = true
	rr, err := dns.NewRR(q.Question[0].Name + " 300 IN A 192.0.2.1")
	if err != nil {
		return nil
	}
	m.Answer = append(m.Answer, rr)
	b, _ := m.Pack()
	return b
}

// overTLS serves messages after their length.
func overTLS(t *testing.T, pair tls.Certificate, answer func([]byte) []byte) string {
	return probetest.Listen(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"dot"}, MinVersion: tls.VersionTLS12})
		serveStream(s, answer)
	})
}

// serveStream answers one message.
func serveStream(s io.ReadWriter, answer func([]byte) []byte) {
	var length [2]byte
	for {
		if _, err := io.ReadFull(s, length[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(s, b); err != nil {
			return
		}
		out := answer(b)
		if _, err := s.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// overHTTPS serves requests until the test ends.
func overHTTPS(t *testing.T, pair tls.Certificate, handle nethttp.HandlerFunc, protocols ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := new(nethttp.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(len(protocols) == 0)
	s := &nethttp.Server{Handler: handle, Protocols: p, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}} //nolint:gosec // a test
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String()
}

// doh is a good server of DNS over HTTPS.
func doh(t *testing.T, seen *atomic.Value) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		query, err := io.ReadAll(r.Body)
		if r.Method == nethttp.MethodGet {
			query, err = base64.RawURLEncoding.DecodeString(r.URL.Query().Get("dns"))
		}
		if err != nil || r.URL.Path != "/q" && r.URL.Path != "/dns-query" {
			w.WriteHeader(nethttp.StatusNotFound)
			return
		}
		if len(query) < 2 || query[0] != 0 || query[1] != 0 {
			t.Errorf("the id is not 0: %x", query)
		}
		seen.Store(r.Proto + " " + r.Method + " " + r.URL.Path + " " + r.Header.Get("Content-Type"))
		w.Header().Set("Content-Type", mediaType)
		_, _ = w.Write(replyTo(query))
	}
}

// overQUIC answers on each stream until the test ends.
func overQUIC(t *testing.T, pair tls.Certificate, answer func(*quic.Stream)) string {
	t.Helper()
	l, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"doq"}}, nil) //nolint:gosec // QUIC is TLS 1.3
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			for {
				s, err := conn.AcceptStream(ctx)
				if err != nil {
					break
				}
				answer(s)
			}
		}
	}()
	t.Cleanup(func() { cancel(); l.Close(); <-done })
	return l.Addr().String()
}

func TestEncryptedTransportsAreVerified(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	old, _, _ := ca.Issue(t, -time.Hour, "127.0.0.1")
	trusted := &meshv1.TlsConfig{CaPem: ca.PEM}
	var seen atomic.Value
	good := map[meshv1.DnsProbe_Transport]func(tls.Certificate) string{
		meshv1.DnsProbe_TLS:   func(p tls.Certificate) string { return overTLS(t, p, replyTo) },
		meshv1.DnsProbe_HTTPS: func(p tls.Certificate) string { return overHTTPS(t, p, doh(t, &seen)) },
		meshv1.DnsProbe_QUIC: func(p tls.Certificate) string {
			return overQUIC(t, p, func(s *quic.Stream) { serveStream(s, replyTo); s.Close() })
		},
	}
	for transport, serve := range good {
		o := func(c *meshv1.TlsConfig) *meshv1.DnsProbe {
			return &meshv1.DnsProbe{Transport: transport, Tls: c, Answers: []string{"192.0.2.1"}}
		}
		server := serve(pair)
		r := probed(t, "dns://"+server+"/a.test", o(trusted), "")
		probetest.OK().Match(t, r)
		if r.Tls.GetVersion() != "1.3" || r.Tls.ChainExpiry == nil || r.Dns.GetTransport() != transport || r.Timings.Handshake == nil || r.Timings.Processing == nil || r.RemoteAddress != server {
			t.Errorf("%s: got %v", transport, r)
		}
		probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted").Match(t, probed(t, "dns://"+server+"/a.test", o(nil), ""))
		probetest.OK().Match(t, probed(t, "dns://"+server+"/a.test", o(&meshv1.TlsConfig{InsecureSkipVerify: true}), ""))
		probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "is not for other.test").Match(t, probed(t, "dns://"+server+"/a.test", o(&meshv1.TlsConfig{CaPem: ca.PEM, ServerName: "other.test"}), ""))
		probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "expired").Match(t, probed(t, "dns://"+serve(old)+"/a.test", o(trusted), ""))
		phase := meshv1.Result_CONNECT
		if transport == meshv1.DnsProbe_QUIC {
			phase = meshv1.Result_HANDSHAKE
		}
		probetest.Fail(meshv1.Result_CONNECTION_REFUSED, phase, "").Match(t, probed(t, "dns://"+probetest.RefusedAddress(t)+"/a.test", o(trusted), ""))
	}
}

func TestDNSOverHTTPSAsksByPostAndGet(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	trusted := &meshv1.TlsConfig{CaPem: ca.PEM}
	var seen atomic.Value
	new2, old1 := overHTTPS(t, pair, doh(t, &seen)), overHTTPS(t, pair, doh(t, &seen), "http/1.1")
	for _, c := range []struct {
		server string
		o      *meshv1.DnsProbe
		want   string
	}{
		{new2, &meshv1.DnsProbe{}, "HTTP/2.0 POST /dns-query " + mediaType},
		{old1, &meshv1.DnsProbe{}, "HTTP/1.1 POST /dns-query " + mediaType},
		{new2, &meshv1.DnsProbe{HttpMethod: meshv1.DnsProbe_GET, HttpPath: "/q"}, "HTTP/2.0 GET /q "},
	} {
		c.o.Transport, c.o.Tls = meshv1.DnsProbe_HTTPS, trusted
		probetest.OK().Match(t, probed(t, "dns://"+c.server+"/a.test", c.o, ""))
		if got := seen.Load(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	wrong := func(handle nethttp.HandlerFunc) *meshv1.Result {
		return probed(t, "dns://"+overHTTPS(t, pair, handle)+"/a.test", &meshv1.DnsProbe{Transport: meshv1.DnsProbe_HTTPS, Tls: trusted}, "")
	}
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "HTTP 404").Match(t, wrong(nethttp.NotFound))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "HTTP 302").Match(t, wrong(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		nethttp.Redirect(w, r, "https://192.0.2.1/", nethttp.StatusFound)
	}))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, `"text/html", which is not`).Match(t, wrong(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>")
	}))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "more than 65535 bytes").Match(t, wrong(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Type", mediaType)
		for range 1000 {
			if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
				return
			}
		}
	}))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "another question").Match(t, wrong(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Type", mediaType)
		_, _ = w.Write(make([]byte, 600))
	}))
}

func TestServersThatHangInTheMiddleEndInTime(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	hang := make(chan struct{})
	defer close(hang)
	cut := func(b []byte) []byte { <-hang; return b }
	servers := map[meshv1.DnsProbe_Transport]string{
		meshv1.DnsProbe_TLS: overTLS(t, pair, cut),
		meshv1.DnsProbe_HTTPS: overHTTPS(t, pair, func(w nethttp.ResponseWriter, r *nethttp.Request) {
			w.Header().Set("Content-Type", mediaType)
			w.(nethttp.Flusher).Flush() //nolint:errcheck // a test
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}),
		meshv1.DnsProbe_QUIC: overQUIC(t, pair, func(s *quic.Stream) { _, _ = s.Write([]byte{1}) }),
	}
	for transport, server := range servers {
		o := &meshv1.DnsProbe{Transport: transport, Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}
		c, target := probetest.Check(t, "dns://"+server+"/a.test", 400*time.Millisecond, func(c *meshv1.Check) { c.Dns = o })
		r, err := Compile(c, target, probetest.Env())
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		got := r.Probe(context.Background(), probeOptions())
		if got.ErrorClass != meshv1.Result_TIMEOUT || time.Since(begin) > 2*time.Second {
			t.Errorf("%s: %v after %s", transport, got, time.Since(begin))
		}
	}
}
