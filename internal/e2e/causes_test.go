//go:build linux

package e2e

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// sharing is how many checks share a cause. The first twenty turn before it is known that many do, and may be told of by themselves.
const sharing = 60

// awaitAll waits until all checks have the verdict.
func (m *mesh) awaitAll(v meshv1.CheckStatus_Verdict) {
	m.t.Helper()
	until(m.t, fmt.Sprintf("all checks are %s", v), func() (bool, string) {
		list, err := m.statuses.ListStatuses(m.ctx(), &meshv1.ListStatusesRequest{Filter: fmt.Sprintf("verdict = %s", v), PageSize: 1000})
		return err == nil && len(list.GetStatuses()) == sharing, fmt.Sprintf("%d of them, %v", len(list.GetStatuses()), err)
	})
}

// groups are what the receiver was told of groups, and how many other checks it was told of.
func groups(hook *receiver, want meshv1.Notification_Transition) (list []*meshv1.Notification, others int) {
	for _, d := range hook.distinct() {
		switch {
		case d.note.GetTransition() != want:
		case d.note.GetKind() == meshv1.Incident_GROUP:
			list = append(list, d.note)
		default:
			others++
		}
	}
	return list, others
}

// wantOneCause waits until one group is told of, and compares what it names.
func wantOneCause(t *testing.T, hook *receiver, dimension, value, words string) {
	t.Helper()
	var list []*meshv1.Notification
	others := 0
	until(t, "a group is told of", func() (bool, string) {
		list, others = groups(hook, meshv1.Notification_OPENED)
		return len(list) > 0, fmt.Sprintf("%d groups, %d others", len(list), others)
	})
	note := list[0]
	t.Logf("%s (%d were told of before)", note.GetSummary(), others)
	if x := note.GetShared(); x.GetDimension() != dimension || x.GetValue() != value || !strings.Contains(note.GetSummary(), words) || x.GetMembers() < sharing/3 {
		t.Errorf("told %s, shared %v", note.GetSummary(), x)
	}
}

// wantOneEnd waits until the end of the group is told, and counts what was told besides.
func wantOneEnd(t *testing.T, hook *receiver) {
	t.Helper()
	until(t, "the end of the group is told", func() (bool, string) {
		list, others := groups(hook, meshv1.Notification_RESOLVED)
		return len(list) > 0, fmt.Sprintf("%d groups, %d others", len(list), others)
	})
	if list, others := groups(hook, meshv1.Notification_OPENED); len(list) != 1 || others > sharing/10 {
		t.Errorf("%d groups and %d others were told of:\n%s", len(list), others, story(hook.distinct()))
	}
}

// Sixty hosts are aliases of one name, which ceases to exist and comes back: its checks are told of together, by its name.
func TestHostsThatAreAliasesOfANameThatIsGoneAreToldOfTogether(t *testing.T) {
	t.Parallel()
	var gone atomic.Bool
	answer := func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		name, edge := q.Question[0].Name, "edge.cdn.test."
		head := func(of string, kind uint16) dns.RR_Header {
			return dns.RR_Header{Name: of, Rrtype: kind, Class: dns.ClassINET}
		}
		m.Answer = []dns.RR{&dns.CNAME{Hdr: head(name, dns.TypeCNAME), Target: edge}}
		switch {
		case !strings.HasPrefix(name, "shop-"):
			m.Answer, m.Rcode = nil, dns.RcodeNameError
		case gone.Load():
			m.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: head(edge, dns.TypeA), A: net.IPv4(127, 0, 0, 1)})
		}
		_ = w.WriteMsg(m)
	}
	const resolver = "127.83.7.53"
	socket, err := net.ListenPacket("udp", resolver+":53")
	if err != nil {
		t.Skipf("this test needs a name server on port 53: %v", err)
	}
	server, ended := &dns.Server{PacketConn: socket, Handler: dns.HandlerFunc(answer)}, make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = socket.Close()
		<-ended
	})
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+resolver+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	own := []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, file}
	if out, err := exec.Command(own[0], append(own[1:], "grep", "-q", resolver, "/etc/resolv.conf")...).CombinedOutput(); err != nil {
		t.Skipf("this test gives a process an /etc/resolv.conf of its own, for which it must be root: %v %s", err, out)
	}
	target, hook := startWebTarget(t, nil), startReceiver(t)
	_, port, _ := net.SplitHostPort(target.address)
	m := startMesh(t, "up", nil, wrapped(own...))
	m.awaitProber("local-1")
	yaml := hook.yaml("ops") + "checks:\n"
	for i := range sharing {
		yaml += strings.TrimPrefix(webCheck(fmt.Sprintf("shop-%02d", i), fmt.Sprintf("http://shop-%02d.test:%s/", i, port), pace, 1, 1, "receivers: [receivers/ops]"), "checks:\n")
	}
	m.apply(yaml)
	m.awaitAll(meshv1.CheckStatus_UP)
	gone.Store(true)
	wantOneCause(t, hook, "cname", "edge.cdn.test", "checks that are aliases of edge.cdn.test are DOWN together")
	m.awaitAll(meshv1.CheckStatus_DOWN)
	if out, _, _ := m.cli("", "explain", "check", "shop-07"); !containsAll(out, "an alias of edge.cdn.test") {
		t.Errorf("explain says\n%s", out)
	}
	gone.Store(false)
	wantOneEnd(t, hook)
}

// Sixty servers have certificates of one authority, which begins to issue expired ones: their checks are told of together, by its name.
func TestServersWhoseIssuerFailsAreToldOfTogether(t *testing.T) {
	t.Parallel()
	ca := probetest.NewCA(t)
	sub := ca.Sub(t)
	var chain atomic.Pointer[stdtls.Certificate]
	issue := func(days int) {
		pair := sub.Make(t, nil, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().AddDate(0, 0, -30), time.Now().AddDate(0, 0, days)
		})
		pair.Certificate = append(pair.Certificate, sub.DER())
		chain.Store(&pair)
	}
	issue(30)
	config := &stdtls.Config{GetCertificate: func(*stdtls.ClientHelloInfo) (*stdtls.Certificate, error) { return chain.Load(), nil }}
	hook := startReceiver(t)
	yaml := hook.yaml("ops") + "checks:\n"
	pem := "        " + strings.ReplaceAll(strings.TrimSpace(ca.PEM), "\n", "\n        ")
	for i := range sharing {
		address := probetest.Listen(t, func(c net.Conn) {
			s := stdtls.Server(c, config)
			if s.Handshake() == nil {
				probetest.Hang(s)
			}
		})
		yaml += strings.TrimPrefix(webCheck(fmt.Sprintf("tls-%02d", i), "tls://"+address, pace, 1, 1, "receivers: [receivers/ops]", "tls:\n      tls:\n        ca_pem: |\n"+strings.ReplaceAll(pem, "        ", "          ")), "checks:\n")
	}
	m := startMesh(t, "up", nil)
	m.awaitProber("local-1")
	m.apply(yaml)
	m.awaitAll(meshv1.CheckStatus_UP)
	issue(-1)
	wantOneCause(t, hook, "issuer", "CN=Test Sub-CA", "checks with certificates issued by CN=Test Sub-CA")
	m.awaitAll(meshv1.CheckStatus_DOWN)
	issue(30)
	wantOneEnd(t, hook)
}
