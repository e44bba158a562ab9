package blackbox

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestNoModuleGetsPastTheFence(t *testing.T) {
	fence, err := probe.NewFence(nil, []string{"127.0.0.2"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{Env: probe.Env{UserAgent: "test", Capabilities: kinds.Capabilities(), Fence: fence}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)

	var visits atomic.Int32
	path := filepath.Join(t.TempDir(), "s")
	address := ""
	for _, network := range []string{"tcp", "unix"} {
		at := "127.0.0.2:0"
		if network == "unix" {
			at = path
		}
		l, err := net.Listen(network, at)
		if err != nil {
			t.Fatal(err)
		}
		if network == "tcp" {
			address = l.Addr().String()
		}
		s := &http.Server{ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				visits.Add(1)
			}
		}}
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(l) }()
		t.Cleanup(func() { s.Close(); <-done })
	}
	open := httptest.NewServer(http.RedirectHandler("http://"+address, http.StatusFound))
	t.Cleanup(open.Close)

	dnsModule := module("dns", func(m *Module) { m.DNS.QueryName, m.DNS.TransportProtocol = "a.test", "tcp" })
	for name, c := range map[string]struct {
		module *Module
		target string
	}{
		"http": {module("http", nil), "http://" + address}, "redirect": {module("http", nil), open.URL}, "tcp": {module("tcp", nil), address},
		"dns": {dnsModule, address}, "grpc": {module("grpc", nil), address}, "icmp": {module("icmp", nil), "127.0.0.2"}, "unix": {module("unix", nil), path},
	} {
		if name == "icmp" && !e.options.Env.Can("icmp") {
			continue
		}
		j := &job{exporter: e, clients: e.active.Load().clients, name: "m", module: c.module, target: c.target, timeout: 5 * time.Second, log: slog.New(slog.DiscardHandler)}
		r := pick(c.module.Prober)(context.Background(), j)
		if r.GetOutcome() != meshv1.Result_ERROR || !strings.Contains(r.GetError(), "this prober may not connect to") {
			t.Errorf("%s: got %v: %s", name, r.GetOutcome(), r.GetError())
		}
	}
	if n := visits.Load(); n != 0 {
		t.Errorf("what is behind the fence was reached %d times", n)
	}
}
