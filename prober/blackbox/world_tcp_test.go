package blackbox_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func silent() *log.Logger { return log.New(io.Discard, "", 0) }

func (w *world) serveTCP(t testing.TB) {
	t.Helper()
	says := func(name, text string) {
		w.listen(t, name, func(c net.Conn) {
			fmt.Fprint(c, text)
			_, _ = io.Copy(io.Discard, c)
		})
	}
	says("ssh", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
	says("pop", "+OK ready\r\n")
	says("halfline", "SSH-2.0-Open")
	says("lines", "first\nsecond\nSSH-2.0-third\n")
	says("longline", strings.Repeat("x", 100_000)+"\nSSH-2.0-late\n")
	says("nearline", strings.Repeat("x", 60_000)+"\nSSH-2.0-late\n")
	says("binary", "\x00\x01\xff\xfe\n\r\n\x80SSH-2.0-\n")
	says("silent", "")
	ends := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			fmt.Fprint(c, text)
			if tc, ok := c.(*net.TCPConn); ok {
				_ = tc.CloseWrite() // and read on: what closes with bytes unread resets, sooner or later
			}
			_, _ = io.Copy(io.Discard, c)
		}
	}
	w.listen(t, "ends", ends("bye\n"))
	w.listen(t, "endshalf", ends("SSH-2.0-cut"))
	w.listen(t, "closes", ends(""))
	w.listen(t, "resets", func(c net.Conn) {
		time.Sleep(30 * time.Millisecond) // a reset that comes sooner may fail connect
		if tc, ok := c.(*net.TCPConn); ok {
			_ = tc.SetLinger(0)
		}
	})
	w.listen(t, "irc", func(c net.Conn) {
		r := bufio.NewReader(c)
		nick, _ := r.ReadString('\n')
		user, _ := r.ReadString('\n')
		fmt.Fprintf(c, ":irc NOTICE * :hello %s%s\nPING :12345\n", strings.TrimSpace(nick), strings.TrimSpace(user))
		if pong, _ := r.ReadString('\n'); strings.TrimSpace(pong) == "PONG 12345" {
			fmt.Fprint(c, ":irc 001 prober :Welcome\n")
		}
	})
	upgrade := &tls.Config{Certificates: []tls.Certificate{w.issue(t, "smtp", w.ca, nil).pair}}
	w.listen(t, "smtp", func(c net.Conn) { mail(c, upgrade, true) })
	w.listen(t, "smtpplain", func(c net.Conn) { mail(c, upgrade, false) })
	w.listen(t, "tlsssh", func(c net.Conn) {
		s := tls.Server(c, upgrade)
		fmt.Fprint(s, "SSH-2.0-secret\r\n")
		_, _ = io.Copy(io.Discard, s)
		// Who speaks no TLS may have more on its way: closed with that unread, the connection would be reset, or not, as it happens.
		if tc, ok := c.(*net.TCPConn); ok {
			_ = tc.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, c)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.at["refused"] = l.Addr().String()
	l.Close()
}

// mail is a server that speaks some SMTP, with STARTTLS or without.
func mail(c net.Conn, config *tls.Config, starttls bool) {
	fmt.Fprint(c, "220 mail.example ESMTP\r\n")
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch {
		case strings.HasPrefix(line, "EHLO"):
			fmt.Fprint(c, "250-mail.example\r\n")
			if starttls {
				fmt.Fprint(c, "250-STARTTLS\r\n")
			}
			fmt.Fprint(c, "250 HELP\r\n")
		case strings.HasPrefix(line, "STARTTLS") && starttls:
			fmt.Fprint(c, "220 go ahead\r\n")
			s := tls.Server(c, config)
			c, r, starttls = s, bufio.NewReader(s), false
		case strings.HasPrefix(line, "QUIT"):
			fmt.Fprint(c, "221 bye\r\n")
			return
		default:
			fmt.Fprint(c, "500 what\r\n")
		}
	}
}

func (w *world) serveDNS(t testing.TB) {
	t.Helper()
	packets, stream := bothOn(t)
	address := packets.LocalAddr().String()
	secure, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{w.issue(t, "dot", w.ca, nil).pair}})
	if err != nil {
		t.Fatal(err)
	}
	w.at["dns"], w.at["dot"] = address, secure.Addr().String()
	for _, s := range []*dns.Server{{PacketConn: packets}, {Listener: stream}, {Listener: secure}} {
		s.Handler = dns.HandlerFunc(answerDNS)
		w.closers = append(w.closers, func() { _ = s.Shutdown() })
		go func() { _ = s.ActivateAndServe() }()
	}
	odd, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.at["odddns"] = odd.LocalAddr().String()
	w.closers = append(w.closers, func() { odd.Close() })
	go oddDNS(odd)
}

// bothOn listens on one port for UDP and TCP.
func bothOn(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 50 { // a port that is free for one may be taken for the other
		stream, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if packets, err := net.ListenPacket("udp", stream.Addr().String()); err == nil {
			return packets, stream
		}
		stream.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// answerDNS answers by the first label of the name.
func answerDNS(rw dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	name := q.Question[0].Name
	add := func(to *[]dns.RR, texts ...string) {
		for _, s := range texts {
			rr, err := dns.NewRR(s)
			if err == nil && rr != nil {
				*to = append(*to, rr)
			}
		}
	}
	label, _, _ := strings.Cut(name, ".")
	if code, ok := dns.StringToRcode[strings.ToUpper(label)]; ok && label != "" {
		m.Rcode = code
	}
	switch label {
	case "one":
		add(&m.Answer, name+" 300 IN A 192.0.2.1")
	case "many":
		add(&m.Answer, name+" 300 IN A 192.0.2.1", name+" 300 IN A 192.0.2.2", name+" 60 IN A 192.0.2.3")
		add(&m.Ns, "example. 3600 IN NS ns1.example.", "example. 3600 IN NS ns2.example.")
		add(&m.Extra, "ns1.example. 3600 IN A 192.0.2.53")
	case "soa":
		add(&m.Answer, name+" 3600 IN SOA ns1.example. host.example. 2024010101 7200 3600 1209600 300")
	case "txt":
		add(&m.Answer, name+` 300 IN TXT "hello" "world"`)
	case "six":
		add(&m.Answer, name+" 300 IN AAAA 2001:db8::1")
	case "negative":
		add(&m.Ns, "example. 3600 IN SOA ns1.example. host.example. 7 7200 3600 1209600 300")
	case "cut":
		_, tcp := rw.RemoteAddr().(*net.TCPAddr)
		m.Truncated = !tcp
		if tcp {
			add(&m.Answer, name+" 300 IN A 192.0.2.1")
		}
	case "large":
		for i := range 60 {
			add(&m.Answer, fmt.Sprintf("%s 300 IN A 192.0.2.%d", name, i+1))
		}
	case "recursive":
		if !q.RecursionDesired {
			m.Rcode = dns.RcodeRefused
		}
	case "chaos":
		if q.Question[0].Qclass == dns.ClassCHAOS {
			add(&m.Answer, name+` 0 CH TXT "1.2.3"`)
		}
	case "nothing":
		return
	}
	_ = rw.WriteMsg(m)
}

// oddDNS answers what is no proper answer, by the first label.
func oddDNS(p net.PacketConn) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := p.ReadFrom(buffer)
		if err != nil {
			return
		}
		var q dns.Msg
		if q.Unpack(buffer[:n]) != nil {
			continue
		}
		m := new(dns.Msg)
		m.SetReply(&q)
		switch {
		case strings.HasPrefix(q.Question[0].Name, "wrongid"):
			m.Id++
		case strings.HasPrefix(q.Question[0].Name, "garbage"):
			out := append([]byte{}, buffer[:2]...)
			_, _ = p.WriteTo(append(out, "garbage"...), from)
			continue
		case strings.HasPrefix(q.Question[0].Name, "twice"):
			wrong := m.Copy()
			wrong.Id++
			out, _ := wrong.Pack()
			_, _ = p.WriteTo(out, from)
		case strings.HasPrefix(q.Question[0].Name, "otherquestion"):
			m.Question[0].Name = "another.example."
		case strings.HasPrefix(q.Question[0].Name, "noquestion"):
			m.Question = nil
		}
		out, _ := m.Pack()
		if strings.HasPrefix(q.Question[0].Name, "overcount") {
			binary.BigEndian.PutUint16(out[6:], 9)
		}
		_, _ = p.WriteTo(out, from)
	}
}

func (w *world) serveGRPC(t testing.TB) {
	t.Helper()
	serve := func(name string, o ...grpc.ServerOption) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.at[name] = l.Addr().String()
		s := grpc.NewServer(o...)
		if !strings.Contains(name, "nohealth") {
			h := health.NewServer()
			h.SetServingStatus("serving", healthpb.HealthCheckResponse_SERVING)
			h.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
			h.SetServingStatus("unknown", healthpb.HealthCheckResponse_UNKNOWN)
			h.SetServingStatus("odd", healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
			healthpb.RegisterHealthServer(s, h)
		}
		w.closers = append(w.closers, s.Stop)
		go func() { _ = s.Serve(l) }()
	}
	serve("grpc")
	serve("nohealthgrpc")
	good := w.issue(t, "grpc", w.ca, nil)
	serve("grpcs", grpc.Creds(credentials.NewServerTLSFromCert(&good.pair)))
	expired := w.issue(t, "grpcexpired", w.ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	serve("grpcsexpired", grpc.Creds(credentials.NewServerTLSFromCert(&expired.pair)))
	serve("grpcslow", grpc.UnaryInterceptor(func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
}
