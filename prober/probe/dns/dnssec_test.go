package dns

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestSignedAnswersAndDenialsAreSecure(t *testing.T) {
	for _, nsec3 := range []bool{false, true} {
		w := tree(t, nsec3)
		server := listenBoth(t, "127.0.0.1:0", w)
		for rest, rcode := range map[string]string{
			"a.shop.test":               "NOERROR",
			"A.SHOP.test":               "NOERROR",
			"a.shop.test?type=AAAA":     "NOERROR", // no data
			"empty.shop.test":           "NOERROR", // only names below it
			"nothing.shop.test":         "NXDOMAIN",
			"not.at.all.shop.test":      "NXDOMAIN",
			"any.wild.shop.test":        "NOERROR",
			"a.b.wild.shop.test":        "NOERROR",
			"x.wild.shop.test?type=TXT": "NOERROR", // the wildcard has no data
			"*.wild.shop.test":          "NOERROR",
			"alias.test":                "NOERROR",
			"dead.test":                 "NXDOMAIN", // an alias of nothing
			"shop.test?type=DS":         "NOERROR",
			"open.test?type=DS":         "NOERROR", // proven to have none
			"shop.test?type=DNSKEY":     "NOERROR",
			"test?type=SOA":             "NOERROR",
			".?type=NS":                 "NOERROR",
			"nothing":                   "NXDOMAIN",
		} {
			r := w.query(t, server, rest, nil)
			if r.Outcome != meshv1.Result_OK || finding(r) != "SECURE" || r.Dns.Rcode != rcode {
				t.Errorf("nsec3 %v, %s: %s: %s %v", nsec3, rest, r.Dns.GetRcode(), finding(r), r)
			}
		}
	}
}

func TestTheResultTellsTheChainAndItsDays(t *testing.T) {
	w := tree(t, false)
	w.zones["test."].end = time.Now().Add(49 * time.Hour)
	server := listenBoth(t, "127.0.0.1:0", w)
	d := w.query(t, server, "a.shop.test", nil).Dns.Dnssec
	if d.DaysLeft != 30 || len(d.Chain) != 3 || !strings.HasPrefix(d.Chain[0], ". ") || !strings.HasSuffix(d.Chain[2], " ED25519") || d.Queries != 5 {
		t.Errorf("got %v", d)
	}
	if left := time.Until(d.ChainExpiry.AsTime()); left > 50*time.Hour || left < 40*time.Hour {
		t.Errorf("the chain ends in %s", left)
	}
	r := w.query(t, server, "a.shop.test", func(o *meshv1.DnsProbe) { o.Dnssec.MinDaysLeft = 31 })
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "ends in 30 days").Match(t, r)
	probetest.OK().Match(t, w.query(t, server, "a.shop.test", func(o *meshv1.DnsProbe) {
		o.Dnssec.MinDaysLeft = 30
		o.Expect = []string{`response.dns.dnssec == "SECURE"`, `response.dns.days_left == 30`}
	}))
	probetest.OK().Match(t, w.query(t, server, "a.shop.test", func(o *meshv1.DnsProbe) { o.Dnssec.Anchors = []string{w.anchor("shop.test.")} }))
	probetest.OK().Match(t, w.query(t, server, "a.shop.test", func(o *meshv1.DnsProbe) { o.Dnssec.Anchors = []string{w.zones["shop.test."].key.String()} }))
}

func TestWhatIsProvablyUnsignedIsInsecure(t *testing.T) {
	for name, optOut := range map[string]bool{"nsec": false, "nsec3 with opt-out": true} {
		w := tree(t, optOut)
		w.zones["test."].optOut = optOut
		server := listenBoth(t, "127.0.0.1:0", w)
		for _, rest := range []string{"a.open.test", "nothing.open.test", "out.test"} {
			r := w.query(t, server, rest, nil)
			if !strings.HasPrefix(finding(r), "INSECURE ") || r.Outcome != meshv1.Result_FAIL {
				t.Errorf("%s, %s: %s", name, rest, finding(r))
			}
			probetest.OK().Match(t, w.query(t, server, rest, func(o *meshv1.DnsProbe) { o.Dnssec.AllowInsecure = true }))
		}
	}
}

func TestZonesOfUnknownAlgorithmsAreInsecure(t *testing.T) {
	w := tree(t, false)
	server := listenBoth(t, "127.0.0.1:0", w)
	w.zones["test."].records["shop.test."][dns.TypeDS][0].(*dns.DS).Algorithm = 200
	if got := finding(w.query(t, server, "a.shop.test", nil)); !strings.HasPrefix(got, "INSECURE") || !strings.Contains(got, "algorithms that are not known") {
		t.Error(got)
	}
}

func TestNSEC3WithTooManyIterationsIsInsecure(t *testing.T) {
	w := tree(t, true)
	w.zones["shop.test."].iterations = 500
	server := listenBoth(t, "127.0.0.1:0", w)
	if got := finding(w.query(t, server, "nothing.shop.test", nil)); !strings.HasPrefix(got, "INSECURE") || !strings.Contains(got, "iterations") {
		t.Error(got)
	}
}

func TestForgedAnswersAreBogus(t *testing.T) {
	is := func(m *dns.Msg, name string, kind uint16) bool {
		return m.Question[0].Name == name && m.Question[0].Qtype == kind
	}
	drop := func(section []dns.RR, kind uint16) []dns.RR {
		var out []dns.RR
		for _, rr := range section {
			if rr.Header().Rrtype != kind {
				out = append(out, rr)
			}
		}
		return out
	}
	var stolen []dns.RR // a genuine wildcard, for a name that it does not stand for
	for name, c := range map[string]struct {
		rest   string
		change func(w *world)
		tamper func(m *dns.Msg)
		want   string
	}{
		"another address": {rest: "a.shop.test", tamper: func(m *dns.Msg) {
			if is(m, "a.shop.test.", dns.TypeA) {
				a := dns.Copy(m.Answer[0]).(*dns.A)
				a.A = []byte{6, 6, 6, 6}
				m.Answer[0] = a
			}
		}, want: "the signature of a.shop.test. A by key"},
		"an address more": {rest: "a.shop.test", tamper: func(m *dns.Msg) {
			if is(m, "a.shop.test.", dns.TypeA) {
				a := dns.Copy(m.Answer[0]).(*dns.A)
				a.A = []byte{6, 6, 6, 6}
				m.Answer = append(m.Answer, a)
			}
		}, want: "does not match"},
		"no signature": {rest: "a.shop.test", tamper: func(m *dns.Msg) {
			if is(m, "a.shop.test.", dns.TypeA) {
				m.Answer = drop(m.Answer, dns.TypeRRSIG)
			}
		}, want: "a.shop.test. A is not signed, though its zone shop.test. is"},
		"ended":       {rest: "a.shop.test", change: func(w *world) { w.zones["shop.test."].end = time.Now().Add(-25 * time.Hour) }, want: "ended on"},
		"ended above": {rest: "a.shop.test", change: func(w *world) { w.zones["test."].end = time.Now().Add(-time.Hour) }, want: "the signature of test. DNSKEY by test. ended on"},
		"not yet":     {rest: "a.shop.test", change: func(w *world) { w.zones["shop.test."].begin = time.Now().Add(time.Hour) }, want: "is not valid before"},
		"another key": {rest: "a.shop.test", change: func(w *world) {
			w.zones["test."].records["shop.test."][dns.TypeDS][0].(*dns.DS).Digest = strings.Repeat("00", 32)
		}, want: "no key of shop.test. is the one"},
		"no keys": {rest: "a.shop.test", change: func(w *world) { delete(w.zones["shop.test."].records["shop.test."], dns.TypeDNSKEY) }, want: "has no DNSKEY"},
		"unsigned DS": {rest: "a.shop.test", tamper: func(m *dns.Msg) {
			m.Answer = map[bool][]dns.RR{true: drop(m.Answer, dns.TypeRRSIG), false: m.Answer}[is(m, "shop.test.", dns.TypeDS)]
		}, want: "shop.test. DS is not signed by test."},
		"DS hidden": {rest: "a.shop.test", tamper: func(m *dns.Msg) {
			m.Answer = map[bool][]dns.RR{true: nil, false: m.Answer}[is(m, "shop.test.", dns.TypeDS)]
		}, want: "nothing proves that shop.test. has no DS"},
		"name hidden":  {rest: "a.shop.test", tamper: func(m *dns.Msg) { hide(m, "a.shop.test.") }, want: "nothing proves that there is no a.shop.test. A"},
		"proof hidden": {rest: "nothing.shop.test", tamper: func(m *dns.Msg) { m.Ns = drop(m.Ns, dns.TypeNSEC) }, want: "nothing proves that nothing.shop.test. has no DS"},
		"wildcard without proof": {rest: "any.wild.shop.test", tamper: func(m *dns.Msg) {
			m.Ns = nil
		}, want: "nothing proves that"},
		"wildcard below a name that exists": {rest: "gone.here.wild.shop.test", change: func(w *world) { w.zones["shop.test."].add(t, "here.wild.shop.test. 300 IN TXT x") }, tamper: func(m *dns.Msg) {
			if is(m, "gone.here.wild.shop.test.", dns.TypeA) {
				m.Answer, m.Rcode = stolen, dns.RcodeSuccess
			}
		}, want: "comes from a wildcard, and nothing proves that the name itself does not exist"},
		"a loop": {rest: "loop.test", want: "more than 16 aliases"},
	} {
		t.Run(name, func(t *testing.T) {
			w := tree(t, false)
			if c.change != nil {
				c.change(w)
			}
			var own []dns.RR
			zone := w.zones["shop.test."]
			for _, rr := range zone.sign(zone.records["*.wild.shop.test."][dns.TypeA]) {
				rr = dns.Copy(rr)
				rr.Header().Name = "gone.here.wild.shop.test."
				own = append(own, rr)
			}
			stolen = own
			w.tamper = c.tamper
			r := w.query(t, listenBoth(t, "127.0.0.1:0", w), c.rest, func(o *meshv1.DnsProbe) { o.Rcodes = []string{"NOERROR", "NXDOMAIN", "SERVFAIL"} })
			got := finding(r)
			if name == "a loop" && strings.HasPrefix(got, "INDETERMINATE the answer is SERVFAIL") {
				return // the server of the test gives up on it itself
			}
			if !strings.HasPrefix(got, "BOGUS ") || !strings.Contains(got, c.want) || r.Outcome != meshv1.Result_FAIL || r.ErrorClass != meshv1.Result_EXPECTATION {
				t.Errorf("got %s, want %q: %v", got, c.want, r)
			}
		})
	}
}

// hide makes an answer NXDOMAIN.
func hide(m *dns.Msg, name string) {
	if m.Question[0].Name == name {
		m.Answer, m.Rcode = nil, dns.RcodeNameError
	}
}

func TestProofsAreHeldToWhatTheyProve(t *testing.T) {
	for _, nsec3 := range []bool{false, true} {
		w := tree(t, nsec3)
		var replay []dns.RR
		w.tamper = func(m *dns.Msg) {
			switch m.Question[0].Name {
			case "nothing.shop.test.": // a genuine denial, kept
				replay = append([]dns.RR(nil), m.Ns...)
			case "a.shop.test.", "deep.empty.shop.test.", "empty.shop.test.", "q.wild.shop.test.":
				m.Answer, m.Ns, m.Rcode = nil, replay, dns.RcodeNameError
			}
		}
		server := listenBoth(t, "127.0.0.1:0", w)
		if got := finding(w.query(t, server, "nothing.shop.test", nil)); got != "SECURE" {
			t.Fatal(got)
		}
		for _, rest := range []string{"a.shop.test", "deep.empty.shop.test", "q.wild.shop.test"} {
			if got := finding(w.query(t, server, rest, nil)); !strings.HasPrefix(got, "BOGUS") {
				t.Errorf("nsec3 %v: the denial of another name passes for %s: %s", nsec3, rest, got)
			}
		}
	}
}

func TestAResolverThatValidatesIsAskedWhatItHides(t *testing.T) {
	w := tree(t, false)
	w.zones["shop.test."].end = time.Now().Add(-time.Hour)
	server := listenBoth(t, "127.0.0.1:0", dns.HandlerFunc(func(to dns.ResponseWriter, q *dns.Msg) {
		if strings.HasSuffix(q.Question[0].Name, "shop.test.") && !q.CheckingDisabled {
			m := new(dns.Msg)
			m.SetRcode(q, dns.RcodeServerFailure)
			m.RecursionAvailable = true
			opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}, Option: []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: 7, ExtraText: "too old"}}}
			m.Extra = append(m.Extra, opt)
			_ = to.WriteMsg(m)
			return
		}
		w.ServeDNS(to, q)
	}))
	r := w.query(t, server, "a.shop.test", func(o *meshv1.DnsProbe) { o.Rcodes = nil })
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "the answer is SERVFAIL").Match(t, r)
	if !strings.Contains(r.Error, "ended on") || !strings.Contains(r.Error, "Signature Expired): too old") || r.Dns.Dnssec.Status != meshv1.DnssecResult_BOGUS {
		t.Errorf("got %v", r)
	}
}

func TestAServerWithoutRecursionIsHelpedByTheOwnResolver(t *testing.T) {
	w := tree(t, false)
	authority := listenBoth(t, "127.0.0.1:0", dns.HandlerFunc(func(to dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if name := strings.ToLower(q.Question[0].Name); !strings.HasSuffix(name, "shop.test.") || q.Question[0].Qtype == dns.TypeDS {
			m.Rcode = dns.RcodeRefused
		} else {
			w.mu.Lock()
			m.Authoritative = true
			w.answer(m, name, q.Question[0].Qtype, 0)
			w.mu.Unlock()
		}
		_ = to.WriteMsg(m)
	}))
	o := &meshv1.DnsProbe{Dnssec: &meshv1.DnsDnssec{Anchors: []string{w.anchor(".")}}}
	r := probed(t, "dns://"+authority+"/a.shop.test", o, "")
	if got := finding(r); !strings.HasPrefix(got, "INDETERMINATE") || !strings.Contains(got, "REFUSED") || !strings.Contains(got, "no resolver of its own") {
		t.Errorf("got %s", got)
	}
	o.Dnssec.Anchors = []string{w.anchor("shop.test.")}
	if got := finding(probed(t, "dns://"+authority+"/a.shop.test", o, "")); got != "SECURE" {
		t.Errorf("got %s", got)
	}
}

// TestAKeyTrapCostsLittle gives a zone many keys of one tag and many signatures that match none, as CVE-2023-50387 does.
func TestAKeyTrapCostsLittle(t *testing.T) {
	w := tree(t, false)
	z := w.zones["shop.test."]
	raw, _ := base64.StdEncoding.DecodeString(z.key.PublicKey)
	for i := 0; i+3 < len(raw); i += 2 { // swapped words have the same sum, and so the same tag
		k := *z.key
		b := append([]byte(nil), raw...)
		b[i], b[i+1], b[i+2], b[i+3] = b[i+2], b[i+3], b[i], b[i+1]
		k.PublicKey = base64.StdEncoding.EncodeToString(b)
		z.put(&k)
	}
	w.tamper = func(m *dns.Msg) {
		if m.Question[0].Name != "a.shop.test." || m.Question[0].Qtype != dns.TypeA {
			return
		}
		for i, rr := range m.Answer {
			if sig, ok := rr.(*dns.RRSIG); ok {
				bad := *sig
				bad.Signature = base64.StdEncoding.EncodeToString(make([]byte, 64))
				m.Answer = m.Answer[:i]
				for j := range 300 {
					b := bad
					b.Expiration += uint32(j)
					m.Answer = append(m.Answer, &b)
				}
				break
			}
		}
	}
	r := w.query(t, listenBoth(t, "127.0.0.1:0", w), "a.shop.test", func(o *meshv1.DnsProbe) { o.Transport = meshv1.DnsProbe_TCP })
	if d := r.Dns.GetDnssec(); d.GetStatus() != meshv1.DnssecResult_BOGUS || d.Verifications > maxVerifications || r.Duration.AsDuration() > 5*time.Second {
		t.Errorf("got %v in %s", d, r.Duration.AsDuration())
	}
}

// TestAZoneThatNeedsEndlessQuestionsIsGivenUp asks for a name of many labels, whose every label is said to be no zone.
func TestAZoneThatNeedsEndlessQuestionsIsGivenUp(t *testing.T) {
	w := tree(t, false)
	deep := strings.Repeat("a.", 80) + "shop.test."
	w.zones["shop.test."].add(t, deep+" 300 IN A 192.0.2.1")
	w.tamper = func(m *dns.Msg) {
		if m.Question[0].Name == deep && m.Question[0].Qtype == dns.TypeA {
			m.Answer = m.Answer[:1] // no signature
		}
	}
	r := w.query(t, listenBoth(t, "127.0.0.1:0", w), deep, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := finding(r); !strings.HasPrefix(got, "INDETERMINATE") || !strings.Contains(got, fmt.Sprintf("more than %d questions", maxQuestions)) || w.asked > maxQuestions+tries {
		t.Errorf("%d questions: %s", w.asked, got)
	}
}
