//go:build linux

package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// page gets a page; an empty text without an answer.
func page(base, path string) (status int, text string) {
	resp, err := http.Get("http://" + base + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func TestAProberAnswersProbeOnlyWhenAskedTo(t *testing.T) {
	t.Parallel()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	t.Cleanup(target.Close)
	file := filepath.Join(t.TempDir(), "blackbox.yml")
	modules := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	probe := func(base, module string) (int, string) {
		return page(base, "/probe?"+url.Values{"module": {module}, "target": {target.URL}}.Encode())
	}
	start := func(args ...string) (*process, string) {
		address := quietAddress(t)
		p := begin(t, "prober", append([]string{"prober", "--name", "box", "--server", "127.0.0.1:1", "--data", t.TempDir(), "--http-listen", address}, args...))
		until(t, "the prober serves HTTP", func() (bool, string) { s, text := page(address, "/healthz"); return s == http.StatusOK, text })
		return p, address
	}
	_, plain := start()
	if s, _ := probe(plain, "http_2xx"); s != http.StatusNotFound {
		t.Errorf("without the flag /probe answers %d", s)
	}
	_, builtin := start("--blackbox")
	if s, text := probe(builtin, "http_2xx"); s != http.StatusOK || !strings.Contains(text, "\nprobe_success 1\n") {
		t.Errorf("built-in module: %d %s", s, text)
	}
	modules("modules: {hello: {prober: http, http: {fail_if_body_not_matches_regexp: [hello]}}}")
	p, address := start("--blackbox-config", file)
	if s, text := probe(address, "hello"); s != http.StatusOK || !strings.Contains(text, "\nprobe_success 1\n") {
		t.Errorf("module of the file: %d %s", s, text)
	}
	modules("modules: {bye: {prober: http, http: {fail_if_body_not_matches_regexp: [bye]}}}")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "SIGHUP has the file read again", func() (bool, string) { s, text := probe(address, "bye"); return s == http.StatusOK, text })
	modules("modules: {bye: {prober: http, htpp: {}}}")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "a bad file is logged", func() (bool, string) { return p.log.has("htpp"), "" })
	if s, text := probe(address, "bye"); s != http.StatusOK || !strings.Contains(text, "\nprobe_success 0\n") {
		t.Errorf("after a bad file: %d %s", s, text)
	}
	_, metrics := page(address, "/metrics")
	for _, m := range []string{"probemesh_prober_blackbox_probes_total{", "probemesh_prober_blackbox_config_last_reload_successful", "probemesh_prober_blackbox_in_flight"} {
		if !strings.Contains(metrics, m) {
			t.Errorf("no %s in /metrics", m)
		}
	}
	if code, took := p.interrupt(); code != 0 || took > 10*time.Second {
		t.Errorf("exit code %d after %s", code, took)
	}
	bad := begin(t, "prober", []string{"prober", "--name", "box", "--data", t.TempDir(), "--blackbox"})
	if code := bad.code(); code == 0 || !bad.log.has("--http-listen") {
		t.Errorf("without --http-listen: %d %s", code, bad.log.String())
	}
}
