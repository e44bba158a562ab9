package dns

import (
	"context"
	"encoding/binary"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// raw answers each datagram with what answer sends.
func raw(t testing.TB, answer func(query []byte, send func([]byte))) string {
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
			answer(b[:n], func(out []byte) { _, _ = pc.WriteTo(out, from) })
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().String()
}

// rawStream answers the first message of each connection.
func rawStream(t testing.TB, answer func(query []byte, c net.Conn)) string {
	return probetest.Listen(t, func(c net.Conn) {
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil || n < 2 {
			return
		}
		answer(b[2:n], c)
	})
}

// forged is a message that begins as an answer to the query would, with counts of answer records and a body after the question.
func forged(query []byte, answers uint16, body []byte) []byte {
	out := append([]byte(nil), query[:questionEnd(query)]...)
	out[2] |= bitResponse
	binary.BigEndian.PutUint16(out[6:], answers)
	binary.BigEndian.PutUint16(out[10:], 0)
	return append(out, body...)
}

// TestMessagesMadeToHurtEndQuickly sends over TCP what is legal by its length and made to be costly.
func TestMessagesMadeToHurtEndQuickly(t *testing.T) {
	long := strings.Repeat("\x3f"+strings.Repeat("\x01", 63), 3) + "\x3c" + strings.Repeat("\x02", 60) + "\x00" // 254 bytes, each four as text
	record := func(kind uint16, rdata string) string {
		b := binary.BigEndian.AppendUint16(nil, kind)
		b = append(b, 0, 1, 0, 0, 0, 1)
		b = binary.BigEndian.AppendUint16(b, uint16(len(rdata)))
		return string(b) + rdata
	}
	for name, c := range map[string]struct {
		body  string
		count int
		want  string
	}{
		"a pointer to itself":      {"\xc0\x18" + record(1, "abcd"), 1, "a name in it is a loop"},
		"a pointer beyond the end": {"\xff\xff" + record(1, "abcd"), 1, "ends in the middle"},
		"records of long names":    {long + record(1, "abcd") + strings.Repeat("\xc0\x18"+record(1, "abcd"), 4090), 4091, ""},
		"too many records":         {"", 60000, "more than 8192 records"},
		"HIP of pointers":          {"\x00" + record(55, "\x00\x02\x00\x00"+strings.Repeat("\xc0\x0c", 20000)), 1, "HIP"},
		"a record that lies":       {"\x00" + record(1, "abcd")[:8] + "\xff\xff", 1, "ends in the middle"},
		"TXT of nothing":           {strings.Repeat("\x00"+record(16, "\x00"), 5000), 5000, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := rawStream(t, func(query []byte, conn net.Conn) {
				m := forged(query, uint16(c.count), []byte(c.body))
				_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
			})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begin := time.Now()
			r := probed(t, "dns://"+server+"/a.test", &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP,
				AnswerSection: &meshv1.DnsSection{FailIfMatchesRegexp: []string{"(x+x+)+y"}}, Expect: []string{`response.dns.answers.all(a, a != "")`}}, "")
			runtime.ReadMemStats(&after)
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
				t.Errorf("it allocated %d MiB", used>>20)
			}
			if !strings.Contains(r.Error, c.want) || c.want != "" && r.ErrorClass != meshv1.Result_PROTOCOL {
				t.Errorf("got %v", r.Error)
			}
		})
	}
}

// TestAFloodOfDatagramsEndsTheProbe sends answers to other questions without end.
func TestAFloodOfDatagramsEndsTheProbe(t *testing.T) {
	server := raw(t, func(query []byte, send func([]byte)) {
		m := forged(query, 0, nil)
		m[0]++
		for range 20000 {
			send(m)
		}
	})
	c, target := probetest.Check(t, "dns://"+server+"/a.test", time.Second, nil)
	r, err := Compile(c, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	got := r.Probe(context.Background(), probe.Options{})
	if got.ErrorClass != meshv1.Result_PROTOCOL && got.ErrorClass != meshv1.Result_TIMEOUT || got.Duration.AsDuration() > 1500*time.Millisecond {
		t.Errorf("got %v", got)
	}
}

// TestSlowBytesEndInTime sends a byte now and then, over TCP.
func TestSlowBytesEndInTime(t *testing.T) {
	server := rawStream(t, func(query []byte, c net.Conn) {
		m := forged(query, 0, make([]byte, 500))
		for _, b := range append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			<-time.After(20 * time.Millisecond)
		}
	})
	c, target := probetest.Check(t, "dns://"+server+"/a.test", 300*time.Millisecond, func(c *meshv1.Check) { c.Dns = &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP} })
	r, err := Compile(c, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	got := r.Probe(context.Background(), probe.Options{})
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_TRANSFER, "timed out after 300ms").Match(t, got)
}

// FuzzMessage unpacks and judges whatever comes as an answer.
func FuzzMessage(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("a.test.", dns.TypeA)
	m.Response = true
	for _, l := range []string{"a.test. 1 IN A 192.0.2.1", `a.test. 1 IN TXT "x" "y"`, "a.test. 1 IN SOA a. b. 1 2 3 4 5", "a.test. 1 IN HTTPS 1 . alpn=h2", "a.test. 1 IN NSEC b.test. A NS"} {
		rr, _ := dns.NewRR(l)
		m.Answer = append(m.Answer, rr)
	}
	m.SetEdns0(1232, true)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "61"}, &dns.EDNS0_EDE{InfoCode: 1}, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, Address: net.IP{0, 0, 0, 0}}}
	seed, _ := m.Pack()
	f.Add(seed)
	f.Add([]byte("\x00\x00\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00\xc0\x0c\x00\x37"))
	c, target := probetest.Check(f, "dns://192.0.2.1/a.test", time.Second, func(c *meshv1.Check) {
		c.Dns = &meshv1.DnsProbe{Answers: []string{"192.0.2.1"}, AnswerSection: &meshv1.DnsSection{Exact: []string{"a.test. A 192.0.2.1"}, FailIfMatchesRegexp: []string{"x"}}, Rcodes: []string{"NOERROR", "NXDOMAIN"}}
	})
	r, err := compile(c, target, probetest.Env(), "")
	if err != nil {
		f.Fatal(err)
	}
	program, err := expect.Compile([]string{`response.dns.rcode == "NOERROR"`})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxMessage {
			return
		}
		query, _ := r.question.wire(0, true, nil)
		_ = answersQuestion(b, query)
		msg, err := unpack(b)
		if err != nil {
			return
		}
		g := newAnswer(r, reply{msg: msg, bytes: len(b)})
		_ = r.rules.judge(context.Background(), g)
		_ = foreignCookie(msg, []byte("12345678"))
		g.Record(new(meshv1.Result))
		g.Evidence(new(meshv1.Evidence))
		g.Respond(new(meshv1.Response), program)
	})
}

// FuzzValidation validates whatever comes, with the answers to all further questions made of the same message.
func FuzzValidation(f *testing.F) {
	for _, nsec3 := range []bool{false, true} {
		w := tree(f, nsec3)
		for _, q := range []dns.Question{{Name: "a.shop.test.", Qtype: dns.TypeA}, {Name: "no.shop.test.", Qtype: dns.TypeA}, {Name: "x.wild.shop.test.", Qtype: dns.TypeA}, {Name: "test.", Qtype: dns.TypeDNSKEY},
			{Name: "open.test.", Qtype: dns.TypeDS}, {Name: "alias.test.", Qtype: dns.TypeA}} {
			m := new(dns.Msg)
			m.Response, m.RecursionAvailable = true, true
			m.Question = []dns.Question{{Name: q.Name, Qtype: q.Qtype, Qclass: dns.ClassINET}}
			w.answer(m, q.Name, q.Qtype, 0)
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, q.Name, q.Qtype)
		}
	}
	anchor, _ := dns.NewRR(rootAnchors()[0])
	f.Fuzz(func(t *testing.T, b []byte, name string, kind uint16) {
		msg, err := unpack(b)
		if _, ok := dns.IsDomainName(name); err != nil || !ok || len(name) > 250 {
			return
		}
		name = dns.CanonicalName(name)
		begin := time.Now()
		k := &asker{known: make(map[dns.Question]*dns.Msg), questions: maxQuestions, r: &runner{options: &meshv1.DnsProbe{}, target: &spec.Target{}}, server: &peer{}}
		for n := name; ; n = parent(n) {
			for _, t := range []uint16{dns.TypeDS, dns.TypeDNSKEY} {
				k.known[dns.Question{Name: n, Qtype: t, Qclass: dns.ClassINET}] = msg
			}
			if n == "." {
				break
			}
		}
		v := newValidator(k, []dns.RR{anchor}, time.Now())
		_ = v.result(v.answer(context.Background(), msg, name, kind))
		p := &proofs{zone: &zone{name: "test."}}
		for _, s := range group(append(append([]dns.RR(nil), msg.Ns...), msg.Answer...)) {
			if len(s.rrs) > 0 {
				p.add(s)
			}
		}
		_, _, _ = p.noName(name), p.noType(name, kind), p.optOut(name)
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
