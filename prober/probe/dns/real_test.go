package dns

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// program is the path of a program, or the end of the test without it.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	t.Skipf("%s is not installed (Debian: apt-get install knot knot-dnsutils unbound)", name)
	return ""
}

// freePort is a port that was free for both UDP and TCP a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	for range 50 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := net.SplitHostPort(pc.LocalAddr().String())
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		pc.Close()
		if err != nil {
			continue
		}
		l.Close()
		port, _ := strconv.Atoi(text)
		return port
	}
	t.Fatal("no port is free")
	return 0
}

// start runs a server until the test ends, and waits until it answers the question.
func start(t *testing.T, port int, name string, path string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeSOA)
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", path, log.String())
		case <-time.After(50 * time.Millisecond):
		}
		client := dns.Client{Timeout: time.Second}
		if m, _, err := client.Exchange(q, fmt.Sprintf("127.0.0.1:%d", port)); err == nil && m.Rcode == dns.RcodeSuccess && len(m.Answer) > 0 {
			return
		}
	}
	_ = cmd.Process.Kill()
	<-ended
	t.Fatalf("%s does not answer for %s: %s", path, name, log.String())
}

// knot runs Knot DNS with the zone test. and its children, which it signs: by RSA, ECDSA with NSEC3, and Ed25519 with NSEC. It gives its port and the anchor of test.
func knot(t *testing.T) (port int, anchor string) {
	t.Helper()
	daemon, keymgr, control := program(t, "knotd"), program(t, "keymgr"), program(t, "knotc")
	dir, port := t.TempDir(), freePort(t)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const head = "$TTL 300\n@ IN SOA ns.test. host.test. 1 3600 600 86400 60\n@ NS ns.test.\n"
	config := fmt.Sprintf("server:\n    rundir: %q\n    listen: [ 127.0.0.1@%d ]\n    nsid: \"knot-a\"\ndatabase:\n    storage: %q\npolicy:\n", dir, port, dir) +
		"  - id: rsa\n    algorithm: rsasha256\n  - id: ecdsa\n    algorithm: ecdsap256sha256\n    nsec3: on\n  - id: ed\n    algorithm: ed25519\n    single-type-signing: on\nzone:\n"
	children := map[string]string{"shop": "ecdsa", "ed": "ed", "bad": "ecdsa", "open": ""}
	top := head + "ns A 127.0.0.1\n"
	for name, policy := range children {
		write(name+".zone", head+"a A 192.0.2.1\n*.wild A 192.0.2.4\ndeep.empty A 192.0.2.3\nalias CNAME a\nout CNAME a.open.test.\n")
		config += fmt.Sprintf("  - domain: %s.test.\n    storage: %q\n    file: %s.zone\n    zonefile-sync: -1\n", name, dir, name)
		if policy != "" {
			config += "    dnssec-signing: on\n    dnssec-policy: " + policy + "\n"
		}
		top += name + " NS ns\n"
	}
	write("test.zone", top)
	config += fmt.Sprintf("  - domain: test.\n    storage: %q\n    file: test.zone\n    zonefile-sync: -1\n    dnssec-signing: on\n    dnssec-policy: rsa\n    zonefile-load: difference-no-serial\n    journal-content: all\n", dir)
	write("knot.conf", config)
	conf := filepath.Join(dir, "knot.conf")
	start(t, port, "test.", daemon, "-c", conf)
	ds := func(zone string) string {
		out, err := exec.Command(keymgr, "-c", conf, zone, "ds").Output()
		line, _, _ := strings.Cut(string(out), "\n")
		if err != nil || !strings.Contains(line, " DS ") {
			t.Fatalf("keymgr: %v: %s", err, out)
		}
		return line
	}
	for name, policy := range children {
		if policy == "" {
			continue
		}
		line := ds(name + ".test.")
		if name == "bad" {
			line = line[:len(line)-4] + "0000"
		}
		top += line + "\n"
	}
	write("test.zone", top)
	if out, err := exec.Command(control, "-c", conf, "-b", "zone-reload", "test.").CombinedOutput(); err != nil {
		t.Fatalf("knotc: %v: %s", err, out)
	}
	return port, ds("test.")
}

// resolver runs Unbound, which validates, before the zones of knot. It gives the ports for plain DNS, TLS and HTTPS.
func resolver(t *testing.T, authority int, anchor string, ca *probetest.CA) (plain, overTLS, overHTTPS int) {
	t.Helper()
	daemon := program(t, "unbound")
	dir := t.TempDir()
	_, cert, key := ca.Issue(t, time.Hour, "127.0.0.1")
	plain, overTLS, overHTTPS = freePort(t), freePort(t), freePort(t)
	config := "server:\n  username: \"\"\n  chroot: \"\"\n  use-syslog: no\n  do-daemonize: no\n  pidfile: \"\"\n  do-not-query-localhost: no\n  ede: yes\n  nsid: \"ascii_unbound-a\"\n  local-zone: \"test.\" nodefault\n" +
		fmt.Sprintf("  directory: %q\n  trust-anchor: %q\n  tls-service-pem: %q\n  tls-service-key: %q\n  tls-port: %d\n  https-port: %d\n", dir, anchor, dir+"/cert.pem", dir+"/key.pem", overTLS, overHTTPS)
	for _, p := range []int{plain, overTLS, overHTTPS} {
		config += fmt.Sprintf("  interface: 127.0.0.1@%d\n", p)
	}
	for _, zone := range []string{"test.", "shop.test.", "ed.test.", "bad.test.", "open.test."} {
		config += fmt.Sprintf("stub-zone:\n  name: %q\n  stub-addr: 127.0.0.1@%d\n", zone, authority)
	}
	for name, text := range map[string]string{"unbound.conf": config, "cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, plain, "test.", daemon, "-d", "-c", filepath.Join(dir, "unbound.conf"))
	return plain, overTLS, overHTTPS
}

// TestKnotAndUnboundAreValidatedAlike validates zones that Knot DNS signed, asked directly and through Unbound, which validates them itself.
func TestKnotAndUnboundAreValidatedAlike(t *testing.T) {
	authority, anchor := knot(t)
	ca := probetest.NewCA(t)
	plain, overTLS, overHTTPS := resolver(t, authority, anchor, ca)
	servers := map[string]struct {
		port int
		o    *meshv1.DnsProbe
	}{
		"knot":             {authority, &meshv1.DnsProbe{}},
		"knot by TCP":      {authority, &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP}},
		"unbound":          {plain, &meshv1.DnsProbe{}},
		"unbound by TLS":   {overTLS, &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TLS}},
		"unbound by HTTPS": {overHTTPS, &meshv1.DnsProbe{Transport: meshv1.DnsProbe_HTTPS}},
	}
	for name, s := range servers {
		for rest, want := range map[string]string{
			"a.shop.test":               "SECURE",
			"a.shop.test?type=MX":       "SECURE",
			"nothing.shop.test":         "SECURE",
			"x.wild.shop.test":          "SECURE",
			"x.wild.shop.test?type=TXT": "SECURE",
			"empty.shop.test":           "SECURE",
			"alias.shop.test":           "SECURE",
			"a.ed.test":                 "SECURE",
			"nothing.at.all.ed.test":    "SECURE",
			"x.wild.ed.test":            "SECURE",
			"empty.ed.test":             "SECURE",
			"test?type=SOA":             "SECURE",
			"test?type=DNSKEY":          "SECURE",
			"shop.test?type=DS":         "SECURE",
			"open.test?type=DS":         "SECURE",
			"a.open.test":               "INSECURE test. delegates open.test. without keys",
			"nothing.open.test":         "INSECURE",
			"out.shop.test":             "INSECURE",
			"a.bad.test":                "BOGUS no key of bad.test. is the one that the delegation by test. names",
		} {
			if rest == "out.shop.test" && strings.HasPrefix(name, "knot") {
				want = "SECURE" // it answers with the alias alone; the rest is another zone's
			}
			o := &meshv1.DnsProbe{Transport: s.o.Transport, Dnssec: &meshv1.DnsDnssec{Anchors: []string{anchor}}, Rcodes: []string{"NOERROR", "NXDOMAIN"}, Edns: &meshv1.DnsEdns{Nsid: true, Cookie: true}}
			if o.Transport > meshv1.DnsProbe_TCP {
				o.Tls = &meshv1.TlsConfig{CaPem: ca.PEM}
			}
			r := probed(t, fmt.Sprintf("dns://127.0.0.1:%d/%s", s.port, rest), o, "")
			got := finding(r)
			if !strings.HasPrefix(got, want) || (r.Outcome == meshv1.Result_OK) != (want == "SECURE") {
				t.Errorf("%s, %s: got %s (%s), want %s", name, rest, got, r.Error, want)
			}
			if id := r.GetDns().GetNsid(); !strings.HasPrefix(name, id) && !strings.HasPrefix(id, strings.Fields(name)[0]) {
				t.Errorf("%s says that it is %q", name, id)
			}
		}
	}
	r := probed(t, fmt.Sprintf("dns://127.0.0.1:%d/a.bad.test", plain), &meshv1.DnsProbe{Dnssec: &meshv1.DnsDnssec{Anchors: []string{anchor}}}, "")
	if !strings.Contains(r.Error, "SERVFAIL") || !strings.Contains(r.Error, "no key of bad.test.") || len(r.Dns.ExtendedErrors) == 0 {
		t.Errorf("got %v", r)
	}
}

func TestKnotAnswersTheOtherQuestions(t *testing.T) {
	port, _ := knot(t)
	at := func(rest string) string { return fmt.Sprintf("dns://127.0.0.1:%d/%s", port, rest) }
	r := probed(t, at("shop.test?type=SOA"), &meshv1.DnsProbe{Serials: &meshv1.DnsSerials{}}, "")
	probetest.OK().Match(t, r)
	if len(r.Dns.Servers) != 1 || r.Dns.Servers[0].Serial == 0 || r.Dns.Servers[0].Serial != r.Dns.Serial {
		t.Errorf("got %v", r.Dns)
	}
	probetest.OK().Match(t, probed(t, at("version.server?class=CH;type=TXT"), &meshv1.DnsProbe{AllowEmpty: true, Rcodes: []string{"NOERROR", "REFUSED"}}, ""))
	probetest.OK().Match(t, probed(t, at("a.shop.test"), &meshv1.DnsProbe{Answers: []string{"192.0.2.1"}, Expect: []string{"response.dns.authoritative"}}, ""))
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "the answer is REFUSED").Match(t, probed(t, at("a.example.com"), nil, ""))
}
