package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/cli"
)

// run runs one command line and returns what it printed and its exit code.
func run(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = cli.Run(context.Background(), cli.Environment{Args: args, In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }})
	return out.String(), errs.String(), code
}

func has(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("there is no %q in\n%s", w, text)
		}
	}
}

func TestProbeShowsPhasesExpectationsAndVerdict(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Got", r.Method+" "+r.Header.Get("X-Key"))
		_, _ = w.Write([]byte(`{"ok": true}`))
	}))
	defer target.Close()
	out, stderr, code := run("probe", target.URL, "--method", "PUT", "--header", "X-Key: k", "--expect", "response.status == 200", "--expect", "response.json.ok")
	if code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	has(t, out, target.URL, "connect", "processing", "━", "HTTP/1.1 200, 12 bytes of body", "✓ response.status == 200", "✓ response.json.ok", "OK  answered as expected in")

	out, _, code = run("probe", target.URL, "--expect", "response.status == 200", "--expect", "response.status == 204", "--expect", "response.status == 205")
	if code != 1 {
		t.Errorf("exit code %d after a failed expectation", code)
	}
	has(t, out, "✓ response.status == 200", "✗ response.status == 204", "? response.status == 205", "FAIL  EXPECTATION during expect")

	out, _, code = run("probe", target.URL, "-o", "json")
	var result struct {
		Outcome string
		HTTP    struct{ Status int }
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 || result.Outcome != "OK" || result.HTTP.Status != 200 {
		t.Errorf("as JSON, %d: %v, %s", code, err, out)
	}
}

func TestProbeShowsWhatIsSlowAndEachAddress(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { time.Sleep(20 * time.Millisecond) }))
	defer target.Close()
	out, stderr, code := run("probe", target.URL, "--degraded-above", "10ms")
	if code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	has(t, out, "DEGRADED  answered as expected in", ", but the whole probe took", "more than 10ms (degraded_above.total)")
	out, _, code = run("probe", target.URL, "--fail-above", "10ms")
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	has(t, out, "FAIL  SLOW_PHASE after", "more than 10ms (fail_above.total)")
	out, stderr, code = run("probe", strings.Replace(target.URL, "127.0.0.1", "localhost", 1), "--each-address")
	if !strings.Contains(out, "  OK     127.0.0.1:") {
		t.Errorf("%d: no line of the address in\n%s%s", code, out, stderr)
	}
	_, stderr, code = run("probe", target.URL, "--each-address")
	if code != 2 {
		t.Errorf("exit code %d", code)
	}
	has(t, stderr, "each_address: is for a name, and 127.0.0.1 is one address; remove it")
}

func TestProbeOfARefusedPortExitsWithOne(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	out, _, code := run("probe", "tcp://"+addr, "--timeout", "2s")
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	has(t, out, "FAIL  CONNECTION_REFUSED during connect", addr)
}

func TestProbeRefusesWhatItCannotProbe(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"probe"}, "what to probe? Write: probemesh probe URI"},
		{[]string{"probe", "gopher://x"}, `scheme "gopher" is not known`},
		{[]string{"probe", "tcp://x"}, "uri: has no port"},
		{[]string{"probe", "tcp://x:1", "--method", "GET"}, "a probe of kind tcp has no --method; leave it out"},
		{[]string{"probe", "http://x", "--header", "nothing"}, "write NAME:VALUE"},
		{[]string{"probe", "http://x", "--expect", "response.statuss == 1"}, "http.expect[0]: "},
		{[]string{"probe", "tcp://x:1", "--expect", "response.status == 200"}, "tcp.expect[0]: reads response.status, which is never set for kind tcp"},
		{[]string{"probe", "http://x", "--timeout", "90s"}, "timeout: "},
	} {
		if _, stderr, code := run(c.args...); code != cli.ExitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%v exits with %d and says %s", c.args, code, stderr)
		}
	}
}

func TestProberRefusesABadConfigurationByItsFlags(t *testing.T) {
	_, stderr, code := run("prober", "--name", "Not_A_Name", "--spool-bytes", "5", "--label", "build=1", "--validate")
	if code != cli.ExitUsage {
		t.Errorf("exit code %d", code)
	}
	has(t, stderr, "--name: ", "--spool-bytes: ", "--label build: ")
	out, stderr, code := run("prober", "--name", "fra-1", "--validate")
	if code != 0 || !strings.Contains(out, "the configuration is valid") {
		t.Errorf("a good one exits with %d: %s", code, stderr)
	}
}

// TestProbeBeginsTLSByTheProtocolThatIsAskedFor: --starttls is for tls:// alone, and is checked like a check's.
func TestProbeBeginsTLSByTheProtocolThatIsAskedFor(t *testing.T) {
	for uri, want := range map[string]string{
		"https://127.0.0.1:1": "a probe of kind http has no --starttls",
		"tls://127.0.0.1":     `"gopher" is not a protocol with STARTTLS`,
	} {
		if _, stderr, code := run("probe", uri, "--starttls", "gopher"); code != cli.ExitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s exits with %d: %s", uri, code, stderr)
		}
	}
	if out, _, code := run("probe", "tls://127.0.0.1:1", "--starttls", "smtp"); code != cli.ExitNo || !strings.Contains(out, "CONNECTION_REFUSED") {
		t.Errorf("nobody listens, and it exits with %d: %s", code, out)
	}
}
