package kinds_test

import (
	"context"
	"fmt"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// forbidden is what no probe of the test may reach: a listener for TCP and UDP at 127.0.0.2, and a Unix socket. It counts who comes.
type forbidden struct {
	port, socket string
	visits       atomic.Int32
}

func newForbidden(t *testing.T) *forbidden {
	t.Helper()
	f := &forbidden{socket: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	_, f.port, _ = net.SplitHostPort(l.Addr().String())
	packets, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	local, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	for _, l := range []net.Listener{l, local} {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				f.visits.Add(1)
				conn.Close()
			}
		}()
	}
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			if _, _, err := packets.ReadFrom(make([]byte, 1)); err != nil {
				return
			}
			f.visits.Add(1)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		local.Close()
		packets.Close()
		for range 3 {
			<-done
		}
	})
	return f
}

func TestNoProbeGetsPastTheFence(t *testing.T) {
	f := newForbidden(t)
	there := "127.0.0.2:" + f.port
	open := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/away" {
			nethttp.Redirect(w, r, "http://"+there+"/latest/meta-data/", nethttp.StatusFound)
			return
		}
		fmt.Fprintf(w, `{"next": "http://%s/"}`, there)
	}))
	t.Cleanup(open.Close)
	env := probetest.Env()
	var err error
	if env.Fence, err = probe.NewFence([]string{"127.0.0.0/8", "::1"}, []string{"127.0.0.2"}, nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*meshv1.Check{
		"http":       {Uri: "http://" + there},
		"kept":       {Uri: "http://" + there, Http: &meshv1.HttpProbe{KeepAlive: true}},
		"https":      {Uri: "https://" + there},
		"http/2":     {Uri: "http://" + there, Http: &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP2}},
		"http/3":     {Uri: "https://" + there, Http: &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP3}},
		"redirect":   {Uri: open.URL + "/away"},
		"resolve_to": {Uri: open.URL, Http: &meshv1.HttpProbe{ResolveTo: there}},
		"proxy":      {Uri: open.URL, Http: &meshv1.HttpProbe{ProxyUrl: "http://" + there}},
		"tunnel":     {Uri: "https://" + strings.TrimPrefix(open.URL, "http://"), Http: &meshv1.HttpProbe{ProxyUrl: "http://" + there}},
		"token":      {Uri: open.URL, Http: &meshv1.HttpProbe{Oauth2: &meshv1.OAuth2ClientCredentials{TokenUrl: "http://" + there, ClientId: "a"}}},
		"step": {Uri: open.URL, Http: &meshv1.HttpProbe{Steps: []*meshv1.HttpStep{
			{Captures: []*meshv1.Capture{{Name: "next", JsonPath: "next"}}}, {Url: "${next}"}}}},
		"tcp":       {Uri: "tcp://" + there},
		"unix":      {Uri: "unix://" + f.socket},
		"tls":       {Uri: "tls://" + there},
		"starttls":  {Uri: "tls://" + there, Tls: &meshv1.TlsProbe{Starttls: "smtp"}},
		"udp":       {Uri: "udp://" + there, Udp: &meshv1.UdpProbe{Send: "x"}},
		"websocket": {Uri: "ws://" + there},
		"wss":       {Uri: "wss://" + there},
		"grpc":      {Uri: "grpc://" + there},
		"grpcs":     {Uri: "grpcs://" + there},
		"dns":       {Uri: "dns://" + there + "/a."},
		"dns/tcp":   {Uri: "dns://" + there + "/a.", Dns: &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP}},
		"dot":       {Uri: "dns://" + there + "/a.", Dns: &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TLS}},
		"doh":       {Uri: "dns://" + there + "/a.", Dns: &meshv1.DnsProbe{Transport: meshv1.DnsProbe_HTTPS}},
		"doq":       {Uri: "dns://" + there + "/a.", Dns: &meshv1.DnsProbe{Transport: meshv1.DnsProbe_QUIC}},
		"icmp":      {Uri: "icmp://127.0.0.2"},
	} {
		c.Name, c.Timeout, c.Interval = "checks/a", durationpb.New(5*time.Second), durationpb.New(time.Minute)
		r, err := kinds.Compile(c, env)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, o := range []probe.Options{{}, {Fresh: true}} {
			got := r.Probe(context.Background(), o)
			probetest.Promises(t, got)
			outcome := meshv1.Result_ERROR
			if name == "redirect" || name == "step" { // the target chose where to
				outcome = meshv1.Result_FAIL
			}
			if got.GetOutcome() != outcome || !strings.Contains(got.GetError(), "this prober may not connect to ") ||
				!strings.Contains(got.GetError(), "--deny-networks") && !strings.Contains(got.GetError(), "--unix-sockets") {
				t.Errorf("%s: got %v %s", name, got.GetOutcome(), got.GetError())
			}
		}
		r.Close()
	}
	if n := f.visits.Load(); n != 0 {
		t.Errorf("what is behind the fence was reached %d times", n)
	}
}

// The address is judged and not the name, after it is resolved: a name that is another's tomorrow leads nowhere else.
func TestTheFenceJudgesWhatANameResolvesTo(t *testing.T) {
	open := httptest.NewServer(nethttp.NotFoundHandler())
	t.Cleanup(open.Close)
	_, port, _ := net.SplitHostPort(open.Listener.Addr().String())
	env := probetest.Env()
	env.Fence, _ = probe.NewFence(nil, []string{"127.0.0.0/8", "::1"}, nil)
	for name, each := range map[string]*meshv1.EachAddress{"one": nil, "each": {}} {
		c := &meshv1.Check{Name: "checks/a", Uri: "http://localhost:" + port, EachAddress: each, Timeout: durationpb.New(5 * time.Second), Interval: durationpb.New(time.Minute)}
		r, err := kinds.Compile(c, env)
		if err != nil {
			t.Fatal(err)
		}
		got := r.Probe(context.Background(), probe.Options{})
		if got.GetOutcome() != meshv1.Result_ERROR || !strings.Contains(got.GetError(), "this prober may not connect to") {
			t.Errorf("%s: got %v %s", name, got.GetOutcome(), got.GetError())
		}
		r.Close()
	}
}
