package blackbox_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/probemesh/probemesh/prober/blackbox"
)

// What blackbox_exporter loads is loaded: one odd module must not take the others of the file with it. The log says what is odd, and a probe says it with debug=true.
func TestAnOddModuleIsLoadedWithAWarningAndTheOthersWork(t *testing.T) {
	good := target(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) })
	address := strings.TrimPrefix(good, "http://")
	for _, c := range []struct{ module, target, warns, says string }{
		{"{prober: gopher}", good, `prober \"gopher\" is not known`, `Unknown prober "gopher"`},
		{"{}", good, "must be one of http, tcp", `Unknown prober ""`},
		{"", good, "must be one of http, tcp", `Unknown prober ""`},
		{"{prober: http, timeout: -1s}", good, "timeout is negative", "probe_success 1"},
		{"{prober: http, http: {preferred_ip_protocol: ipv4}}", good, "is taken for ip4", "probe_success 1"},
		{"{prober: http, http: {compression: zip}}", good, "it must be gzip, deflate, br or identity", "probe_success 0"},
		{"{prober: tcp, tcp: {source_ip_address: here}}", address, "is not an IP address", "probe_success 0"},
		{"{prober: icmp, icmp: {payload_size: -1}}", "127.0.0.1", "0 to 65000", "probe_success 0"},
		{"{prober: icmp, icmp: {source_ip_address: here}}", "127.0.0.1", "is not an IP address", "probe_success 0"},
		{"{prober: dns, timeout: 100ms}", "127.0.0.1:1", "asks for the root", "probe_success 0"},
		{"{prober: dns, timeout: 100ms, dns: {query_name: x, transport_protocol: quic}}", "127.0.0.1:1", "must be udp or tcp", "probe_success 0"},
		{"{prober: dns, timeout: 100ms, dns: {query_name: x, dns_over_tls: true}}", "127.0.0.1:1", "transport_protocol: tcp", "probe_success 0"},
		{"{prober: dns, timeout: 100ms, dns: {query_name: x, valid_rcodes: [NOPE]}}", "127.0.0.1:1", "NOPE", "probe_success 0"},
		{"{prober: dns, timeout: 100ms, dns: {query_name: x, validate_answer_rrs: {fail_if_matches_regexp: ['(']}}}", "127.0.0.1:1", "is not a regular expression", "probe_success 0"},
	} {
		var log bytes.Buffer
		base, _ := serve(t, "modules:\n  good: {prober: http}\n  odd: "+c.module+"\n", func(o *blackbox.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		if !strings.Contains(log.String(), c.warns) || !strings.Contains(log.String(), "module=odd") {
			t.Errorf("%s: the log does not say %q: %s", c.module, c.warns, &log)
		}
		wants(t, base, "good", good, "probe_success 1")
		if _, body := ask(t, base, "/probe", url.Values{"module": {"odd"}, "target": {c.target}}); !strings.Contains(body, c.says) {
			t.Errorf("%s: %s", c.module, body)
		}
	}
}

func TestAnEmptyListOfRcodesHasNoGoodOne(t *testing.T) {
	w := &world{dir: t.TempDir(), at: map[string]string{}}
	w.ca = w.issue(t, "ca", nil, nil)
	w.serveDNS(t)
	t.Cleanup(func() {
		for _, c := range w.closers {
			c()
		}
	})
	base, _ := serve(t, "modules: {none: {prober: dns, dns: {query_name: one.example, valid_rcodes: []}}, usual: {prober: dns, dns: {query_name: one.example}}}", nil)
	wants(t, base, "none", w.at["dns"], "probe_success 0", "probe_dns_query_succeeded 1")
	wants(t, base, "usual", w.at["dns"], "probe_success 1")
}

func TestSizesAreReadAsTheExporterReadsThem(t *testing.T) {
	for text, want := range map[string]blackbox.Size{"0": 0, "1B": 1, "10": 10, "1KB": 1024, "1.5KiB": 1536, "1MB512KB": 1<<20 + 512<<10, "1PB": 1 << 50, "1EB": 1 << 60, ".5KB": 512, "10 MB": 10 << 20} {
		c, err := blackbox.Parse([]byte("modules: {a: {prober: http, http: {body_size_limit: " + text + "}}}"))
		if err != nil || c.Modules["a"].HTTP.BodySizeLimit != want {
			t.Errorf("%s: %v, %v; want %d", text, c, err, want)
		}
	}
	for _, text := range []string{"9EB", "-1", "1e3", "10kB", "inf", "''", "B", "1.2.3B"} {
		if _, err := blackbox.Parse([]byte("modules: {a: {prober: http, http: {body_size_limit: " + text + "}}}")); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

// The header of a scrape may say anything: its module's timeout holds where the scrape leaves no time, and a scrape of an hour is no reason to refuse it.
func TestOddTimeoutsOfAScrapeAreProbed(t *testing.T) {
	good := target(t, func(http.ResponseWriter, *http.Request) {})
	base, _ := serve(t, "modules: {m: {prober: http, timeout: 5s}, n: {prober: http}}", nil)
	for _, c := range []struct{ module, header string }{{"m", "3600"}, {"n", "3600"}, {"m", "+Inf"}, {"m", "0.3"}, {"m", "0.5"}, {"n", "0.3"}, {"m", "-1"}, {"m", "0"}, {"n", "0"}, {"m", "1e9"}} {
		if status, body := ask(t, base, "/probe", url.Values{"module": {c.module}, "target": {good}}, "X-Prometheus-Scrape-Timeout-Seconds", c.header); status != 200 || !strings.Contains(body, "probe_success 1") {
			t.Errorf("module %s, header %s: %d %s", c.module, c.header, status, body)
		}
	}
}

func TestThePhaseResolveIsTheLookupAlone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
		return next(ctx, r)
	}))
	healthv1.RegisterHealthServer(s, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	base, _ := serve(t, "", nil)
	_, body := ask(t, base, "/probe", url.Values{"module": {"grpc_plain"}, "target": {l.Addr().String()}})
	m := regexp.MustCompile(`phase="resolve"} (\S+)`).FindStringSubmatch(body)
	if m == nil || !strings.Contains(body, "probe_success 1") {
		t.Fatal(body)
	}
	if v, _ := strconv.ParseFloat(m[1], 64); v > 0.2 {
		t.Errorf("looking up an address took %s s, says\n%s", m[1], body)
	}
}
