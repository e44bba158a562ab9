package blackbox_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/probemesh/probemesh/prober/blackbox"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
)

func TestMain(m *testing.M) {
	var others []goleak.Option
	for _, f := range []string{
		"net/http.(*persistConn).readLoop", "net/http.(*persistConn).writeLoop",
		// Package net lets a question to the machine's resolver run to its own end when its asker has left; a slow one outlives the tests.
		"net.(*Resolver).lookupIPAddr.func1", "net.(*Resolver).lookupIPAddr.func2", "net.(*Resolver).tryOneName",
	} {
		others = append(others, goleak.IgnoreAnyFunction(f))
	}
	goleak.VerifyTestMain(m, others...)
}

// serve starts an exporter with the modules, or the built-in ones when there are none, and gives its address.
func serve(t *testing.T, modules string, change func(*blackbox.Options)) (base, file string) {
	t.Helper()
	o := blackbox.Options{Env: probe.Env{UserAgent: "probemesh/test", Capabilities: kinds.Capabilities()}}
	if modules != "" {
		o.File = filepath.Join(t.TempDir(), "modules.yml")
		if err := os.WriteFile(o.File, []byte(modules), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(&o)
	}
	e, err := blackbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	e.Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.Close()
		e.Close()
	})
	return server.URL, o.File
}

// ask gets a path with parameters.
func ask(t *testing.T, base, path string, q url.Values, header ...string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, base+path+"?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// wants fails the test unless a probe of the module says the series.
func wants(t *testing.T, base, module, target string, series ...string) {
	t.Helper()
	status, body := ask(t, base, "/probe", url.Values{"module": {module}, "target": {target}})
	for _, s := range series {
		if status != http.StatusOK || !strings.Contains(body, "\n"+s+"\n") {
			t.Errorf("module %s: no %q in the answer, %d:\n%s", module, s, status, body)
		}
	}
}

func target(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestBadRequestsGetTheAnswersOfTheExporter(t *testing.T) {
	base, _ := serve(t, "modules:\n  host: {prober: http, http: {headers: {Host: a.example}}}\n  http_2xx: {prober: http}\n", nil)
	for _, c := range []struct {
		q      url.Values
		header []string
		status int
		says   string
	}{
		{q: url.Values{"module": {"nosuch"}, "target": {"x"}}, status: 400, says: `Unknown module "nosuch"`},
		{q: url.Values{}, status: 400, says: "Target parameter is missing"},
		{q: url.Values{"module": {"host"}, "target": {"x"}, "hostname": {"b.example"}}, status: 400, says: "a.example"},
		{q: url.Values{"target": {"127.0.0.1:1"}}, header: []string{"X-Prometheus-Scrape-Timeout-Seconds", "soon"}, status: 500, says: "Failed to parse timeout"},
		{q: url.Values{"target": {"127.0.0.1:1"}}, header: []string{"X-Prometheus-Scrape-Timeout-Seconds", "NaN"}, status: 500, says: "Failed to parse timeout"},
		{q: url.Values{"target": {"127.0.0.1:1"}}, status: 200, says: "probe_success 0"},
	} {
		status, body := ask(t, base, "/probe", c.q, c.header...)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%v: %d %s; want %d and %q", c.q, status, body, c.status, c.says)
		}
	}
}

func TestTheScrapeTimeoutEndsTheProbeHalfASecondSooner(t *testing.T) {
	base, _ := serve(t, "", nil)
	silent := target(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	begin := time.Now()
	status, body := ask(t, base, "/probe", url.Values{"target": {silent}}, "X-Prometheus-Scrape-Timeout-Seconds", "0.8")
	if took := time.Since(begin); status != 200 || !strings.Contains(body, "probe_success 0") || took < 250*time.Millisecond || took > 700*time.Millisecond {
		t.Errorf("after %s: %d %s", took, status, body)
	}
}

func TestDebugShowsTrailMetricsAndModuleWithoutSecrets(t *testing.T) {
	base, _ := serve(t, "modules: {m: {prober: http, http: {basic_auth: {username: u, password: hunter2}}}}", nil)
	_, body := ask(t, base, "/probe", url.Values{"module": {"m"}, "target": {"127.0.0.1:1"}, "debug": {"true"}})
	for _, s := range []string{"Logs for the probe:", "connection refused", "Metrics that would have been returned:", "probe_success 0", "Module configuration:", "username: u"} {
		if !strings.Contains(body, s) {
			t.Errorf("no %q in:\n%s", s, body)
		}
	}
	_, config := ask(t, base, "/config", nil)
	if strings.Contains(body+config, "hunter2") {
		t.Errorf("the password is shown:\n%s\n%s", body, config)
	}
}

func TestMoreProbesThanMayRunAreAnsweredWith503(t *testing.T) {
	base, _ := serve(t, "", func(o *blackbox.Options) { o.InFlight = 1 })
	arrived, leave := make(chan struct{}), make(chan struct{})
	slow := target(t, func(http.ResponseWriter, *http.Request) { close(arrived); <-leave })
	done := make(chan string)
	go func() {
		_, body := ask(t, base, "/probe", url.Values{"target": {slow}})
		done <- body
	}()
	<-arrived
	status, body := ask(t, base, "/probe", url.Values{"target": {slow}})
	if status != http.StatusServiceUnavailable || strings.Contains(body, "probe_success") {
		t.Errorf("%d %s", status, body)
	}
	close(leave)
	if body := <-done; !strings.Contains(body, "probe_success 1") {
		t.Error(body)
	}
}

func TestReloadTakesAGoodFileAndRefusesABadOne(t *testing.T) {
	base, file := serve(t, "modules: {old: {prober: tcp}}", nil)
	reload := func(text string) int {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(base+"/-/reload", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if s := reload("modules: {broken: {prober: http, smoke: {}}}"); s != http.StatusInternalServerError {
		t.Errorf("a bad file: %d", s)
	}
	wants(t, base, "old", "127.0.0.1:1", "probe_success 0")
	if s := reload("modules: {new: {prober: tcp}}"); s != http.StatusOK {
		t.Errorf("a good file: %d", s)
	}
	wants(t, base, "new", "127.0.0.1:1", "probe_success 0")
	if s, _ := ask(t, base, "/probe", url.Values{"module": {"old"}, "target": {"x"}}); s != http.StatusBadRequest {
		t.Errorf("the old module is still known: %d", s)
	}
	if resp, err := http.Get(base + "/-/reload"); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v %v", resp, err)
	}
}

func TestNewerOptionsWork(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "body"), []byte("payload"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "\x01\x02\xffREADY 1.2 \"x\"\nmore\n")
			c.Close()
		}
	}()
	base, _ := serve(t, fmt.Sprintf(`modules:
  file: {prober: http, http: {method: POST, body_file: %s/body, fail_if_body_not_matches_regexp: [payload]}}
  nofile: {prober: http, http: {method: POST, body_file: %s/none}}
  up: {prober: http, http: {fail_if_body_json_not_matches_cel: "body.status == 'up' && body.n > 2.0"}}
  down: {prober: http, http: {fail_if_body_json_matches_cel: "body.status == 'up'"}}
  nokey: {prober: http, http: {fail_if_body_json_not_matches_cel: "body.nokey == 1.0"}}
  unix: {prober: unix, unix: {query_response: [{expect: "READY ([^ ]+) (.*)", labels: [{name: version, value: "v${1}"}, {name: rest, value: "${2}"}]}]}}
  bytes: {prober: unix, unix: {query_response: [{expect_bytes: "\x01\x02"}]}}
  wrongbytes: {prober: unix, unix: {query_response: [{expect_bytes: "\x01\x03"}]}}
`, dir, dir), nil)
	echo := target(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.Copy(w, r.Body)
			return
		}
		_, _ = io.WriteString(w, `{"status": "up", "n": 3}`)
	})
	wants(t, base, "file", echo, "probe_success 1", "probe_failed_due_to_regex 0", "probe_http_uncompressed_body_length 7")
	wants(t, base, "nofile", echo, "probe_success 0")
	wants(t, base, "up", echo, "probe_success 1", "probe_failed_due_to_cel 0")
	wants(t, base, "down", echo, "probe_success 0", "probe_failed_due_to_cel 1")
	wants(t, base, "nokey", echo, "probe_success 0", "probe_failed_due_to_cel 1")
	wants(t, base, "unix", path, "probe_success 1", `probe_expect_info{version="v1.2",rest="\"x\""} 1`)
	wants(t, base, "bytes", path, "probe_success 1", "probe_failed_due_to_bytes 0")
	wants(t, base, "wrongbytes", path, "probe_success 0", "probe_failed_due_to_bytes 1")
	wants(t, base, "unix", path+"-not", "probe_success 0")
}

func TestWrongFilesAreRefusedWithASentence(t *testing.T) {
	for text, says := range map[string]string{
		"modules: {a: {prober: http, htpp: {}}}":                                                                "did you mean http?",
		"modules: {a: {prober: http, http: {valid_status_code: [200]}}}":                                        "did you mean valid_status_codes?",
		"modules:\n  a:\n    prober: http\n    http:\n      tls_config: {ca_fil: x}":                            "line 5: there is no option ca_fil here; did you mean ca_file?",
		"modules: {a: {prober: dns, dns: {}}}":                                                                  "query_name",
		"modules: {a: {prober: dns, dns: {query_name: x, query_type: a}}}":                                      "capitals",
		"modules: {a: {prober: http, http: {fail_if_body_matches_regexp: ['(']}}}":                              "is not a regular expression",
		"modules: {a: {prober: http, http: {fail_if_header_matches: [{header: X}]}}}":                           "both header and regexp",
		"modules: {a: {prober: http, http: {body: x, body_file: y}}}":                                           "keep one",
		"modules: {a: {prober: http, http: {compression: gzip, headers: {Accept-Encoding: 'br, gzip;q=0.0'}}}}": "Accept-Encoding",
		"modules: {a: {prober: http, http: {body_size_limit: 3 apples}}}":                                       "is not a number of bytes",
		"modules: {a: {prober: http, http: {fail_if_body_json_matches_cel: 'body.'}}}":                          "CEL",
		"modules: {a: {prober: tcp, tcp: {query_response: [{send: x, labels: [{name: a, value: b}]}]}}}":        "labels",
		"modules: {a: {prober: tcp, tcp: {query_response: [{expect: x, labels: [{name: a-b, value: b}]}]}}}":    "a-b",
		"modules: {a: {prober: icmp, icmp: {ttl: 256}}}":                                                        "0 to 255",
		"modules: {a: {prober: http, http: {bearer_token: a, bearer_token_file: b}}}":                           "bearer_token",
		"modules: [": "line 1",
	} {
		_, err := blackbox.Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s\n  error %v; want %q", text, err, says)
		}
	}
}

func TestTheBuiltInModulesAreValid(t *testing.T) {
	for _, m := range []string{"http_2xx", "http_post_2xx", "tcp_connect", "icmp", "icmp_ttl5", "grpc", "grpc_plain", "dns_udp", "dns_tcp", "pop3s_banner", "ssh_banner", "irc_banner"} {
		if blackbox.Builtin().Modules[m] == nil {
			t.Errorf("there is no module %s", m)
		}
	}
}

func TestAnEndlessBodyIsGivenUpAtItsLimit(t *testing.T) {
	base, _ := serve(t, "modules:\n  re: {prober: http, timeout: 20s, http: {fail_if_body_matches_regexp: [zzz]}}\n  limit: {prober: http, timeout: 20s, http: {body_size_limit: 1MB}}\n", nil)
	endless := target(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	wants(t, base, "re", endless, "probe_success 0", "probe_failed_due_to_regex 1")
	wants(t, base, "limit", endless, "probe_success 0", "probe_http_uncompressed_body_length 1.048576e+06")
}

func FuzzParseNeverPanics(f *testing.F) {
	f.Add([]byte("modules: {a: {prober: http, http: {body_size_limit: 10KB, headers: {a: b}}}}"))
	f.Add([]byte("modules: {a: {prober: tcp, tcp: {query_response: [{expect: 'a(b)', labels: [{name: x, value: '${1}'}]}]}}}"))
	f.Fuzz(func(_ *testing.T, text []byte) { _, _ = blackbox.Parse(text) })
}
