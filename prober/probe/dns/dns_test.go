package dns_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/dns"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(t *testing.T, uri string, o *meshv1.DnsProbe) *meshv1.Result {
	t.Helper()
	return within(t, 10*time.Second, uri, o)
}

// short is the timeout of probes that are to run into it.
const short = 400 * time.Millisecond

// within is run with a timeout.
func within(t *testing.T, timeout time.Duration, uri string, o *meshv1.DnsProbe) *meshv1.Result {
	t.Helper()
	return probetest.Run(t, dns.Compile, uri, timeout, probe.Options{}, func(c *meshv1.Check) { c.Dns = o })
}

// serve answers over UDP and TCP on the same port.
func serve(t *testing.T, handle mdns.HandlerFunc) string {
	t.Helper()
	var pc net.PacketConn
	var l net.Listener
	for range 20 {
		var err error
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if l, err = net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			break
		}
		pc.Close()
	}
	for _, s := range []*mdns.Server{{PacketConn: pc, Handler: handle}, {Listener: l, Handler: handle}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return pc.LocalAddr().String()
}

// zone answers a few names of example.com.
func zone(w mdns.ResponseWriter, q *mdns.Msg) {
	m := new(mdns.Msg)
	m.SetReply(q)
	m.Authoritative = true
	add := func(s string) {
		rr, err := mdns.NewRR(s)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	name, kind := q.Question[0].Name, q.Question[0].Qtype
	switch {
	case name == "a.example.com." && kind == mdns.TypeA:
		add("a.example.com. 300 IN A 192.0.2.1")
		add("a.example.com. 60 IN A 192.0.2.2")
	case name == "a.example.com." && kind == mdns.TypeMX:
		add("a.example.com. 300 IN MX 10 mail.example.com.")
	case name == "a.example.com." && kind == mdns.TypeSOA:
		add("a.example.com. 300 IN SOA ns. host. 2026112301 1 2 3 4")
	case name == "a.example.com." && kind == mdns.TypeTXT:
		add(`a.example.com. 300 IN TXT "v=spf1 " "-all"`)
	case name == "big.example.com.":
		if _, ok := w.RemoteAddr().(*net.UDPAddr); ok {
			m.Truncated = true
		} else {
			for i := range 200 {
				add(fmt.Sprintf("big.example.com. 300 IN A 192.0.2.%d", i))
			}
		}
	case name == "empty.example.com.":
	case name == "recursive.example.com.":
		if q.RecursionDesired {
			add("recursive.example.com. 1 IN A 192.0.2.9")
		}
	default:
		m.Rcode = mdns.RcodeNameError
	}
	_ = w.WriteMsg(m)
}

func TestQuestionsAreAnsweredAndJudged(t *testing.T) {
	server := serve(t, zone)
	uri := func(rest string) string { return "dns://" + server + "/" + rest }
	r := run(t, uri("a.example.com"), &meshv1.DnsProbe{Expect: []string{`response.dns.answers == ["192.0.2.1", "192.0.2.2"]`, `response.dns.ttl_seconds == 60`,
		`response.dns.authoritative`, `response.dns.rcode == "NOERROR"`, `response.dns.answer[0] == "a.example.com. 300 IN A 192.0.2.1"`, `!response.dns.truncated`}})
	probetest.OK().Match(t, r)
	if r.Dns.Rcode != "NOERROR" || r.Dns.Answers != 2 || r.RemoteAddress != server || r.Timings.Processing == nil {
		t.Errorf("got %v", r)
	}
	probetest.OK().Match(t, run(t, uri("a.example.com"), nil))
	probetest.OK().Match(t, run(t, uri("a.example.com"), &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP}))
	probetest.OK().Match(t, run(t, uri("a.example.com?type=MX"), &meshv1.DnsProbe{Expect: []string{`response.dns.answers == ["10 mail.example.com."]`}}))
	probetest.OK().Match(t, run(t, uri("a.example.com?type=TXT"), &meshv1.DnsProbe{Expect: []string{`response.dns.answers == ["v=spf1 -all"]`}}))
	if r := run(t, uri("a.example.com?type=SOA"), nil); r.Dns.Serial != 2026112301 {
		t.Errorf("serial %d", r.Dns.Serial)
	}
	r = run(t, uri("big.example.com"), nil)
	probetest.OK().Match(t, r)
	if r.Dns.Answers != 200 {
		t.Errorf("no fallback to TCP: %v", r.Dns)
	}
	r = run(t, uri("nope.example.com"), nil)
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "the answer is NXDOMAIN, which is not among the rcodes").Match(t, r)
	if r.Dns.Rcode != "NXDOMAIN" || r.Evidence.StatusLine != "NXDOMAIN" {
		t.Errorf("got %v", r)
	}
	probetest.OK().Match(t, run(t, uri("nope.example.com"), &meshv1.DnsProbe{Rcodes: []string{"NOERROR", "NXDOMAIN"}}))
	probetest.OK().Match(t, run(t, uri("nope.example.com"), &meshv1.DnsProbe{Expect: []string{`response.dns.rcode == "NXDOMAIN"`}}))
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "the name has no A record").Match(t, run(t, uri("empty.example.com"), nil))
	off := false
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "empty").Match(t, run(t, uri("recursive.example.com"), &meshv1.DnsProbe{RecursionDesired: &off}))
	r = run(t, uri("a.example.com"), &meshv1.DnsProbe{Expect: []string{`"192.0.2.7" in response.dns.answers`}})
	if r.Outcome != meshv1.Result_FAIL || len(r.Evidence.Records) != 2 || !strings.Contains(r.Evidence.Records[0], "192.0.2.1") {
		t.Errorf("got %v", r)
	}
}

func TestServersThatDoNotAnswerAreClassified(t *testing.T) {
	refused := probetest.RefusedAddress(t)
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_PROCESSING, "connection refused").Match(t, run(t, "dns://"+refused+"/a.", nil))
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "connection refused").Match(t, run(t, "dns://"+refused+"/a.", &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP}))

	silent := udp(t, func([]byte) [][]byte { return nil })
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "timed out after 400ms").Match(t, within(t, short, "dns://"+silent+"/a.", nil))

	garbage := udp(t, func([]byte) [][]byte { return [][]byte{{1, 2, 3}, []byte(strings.Repeat("\xff", 600))} })
	if r := within(t, short, "dns://"+garbage+"/a.", nil); r.ErrorClass != meshv1.Result_TIMEOUT && r.ErrorClass != meshv1.Result_PROTOCOL {
		t.Errorf("got %v", r)
	}
	forged := udp(t, func(q []byte) [][]byte { // another id, then another name, then the truth
		reply := func(change func(*mdns.Msg)) []byte {
			m, asked := new(mdns.Msg), new(mdns.Msg)
			if asked.Unpack(q) != nil {
				return nil
			}
			m.SetReply(asked)
			rr, _ := mdns.NewRR("a. 1 IN A 192.0.2.1")
			m.Answer = append(m.Answer, rr)
			if change != nil {
				change(m)
			}
			b, _ := m.Pack()
			return b
		}
		return [][]byte{reply(func(m *mdns.Msg) { m.Id++ }), reply(func(m *mdns.Msg) { m.Question[0].Name = "b." }), reply(func(m *mdns.Msg) { m.Response = false }), reply(nil)}
	})
	probetest.OK().Match(t, run(t, "dns://"+forged+"/a.", nil))

	bad := probetest.Listen(t, func(c net.Conn) { _, _ = c.Write([]byte("\x00\x05hello")); probetest.Hang(c) })
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "no DNS answer").Match(t, run(t, "dns://"+bad+"/a.", &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP}))
	cut := probetest.Listen(t, func(c net.Conn) { _, _ = c.Write([]byte("\xff\xffhello")) })
	probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_TRANSFER, "").Match(t, run(t, "dns://"+cut+"/a.", &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP}))
	slow := probetest.Listen(t, func(c net.Conn) { _, _ = c.Write([]byte("\xff\xff")); probetest.Hang(c) })
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_TRANSFER, "timed out").Match(t, within(t, short, "dns://"+slow+"/a.", &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP}))
}

// udp answers each datagram with those that answer gives.
func udp(t *testing.T, answer func([]byte) [][]byte) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			for _, d := range answer(b[:n]) {
				_, _ = pc.WriteTo(d, from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().String()
}
