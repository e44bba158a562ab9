package blackbox

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// exporter makes one without HTTP.
func exporter(t testing.TB) *Exporter {
	t.Helper()
	e, err := New(Options{Env: probe.Env{UserAgent: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// once makes one probe without HTTP.
func once(t testing.TB, m *Module, target string, timeout time.Duration) (*meshv1.Result, *job) {
	t.Helper()
	e := exporter(t)
	j := &job{exporter: e, clients: e.active.Load().clients, name: "m", module: m, target: target, timeout: timeout, log: slog.New(slog.DiscardHandler)}
	return pick(m.Prober)(context.Background(), j), j
}

func module(prober string, change func(*Module)) *Module {
	m := defaults()
	m.Prober = prober
	if change != nil {
		change(&m)
	}
	return &m
}

// sends serves every connection the bytes of f until f or the client ends.
func sends(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err == nil {
			f(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

func TestAnEndlessDialogueEndsAtItsLimits(t *testing.T) {
	wait := func(m *Module) { m.TCP.Steps = []Step{{Expect: Regexp{regexp.MustCompile("^never$")}}} }
	for name, line := range map[string]string{"a line without end": strings.Repeat("x", 32<<10), "lines without end": strings.Repeat("hello\n", 5<<10), "null bytes": strings.Repeat("\x00", 32<<10)} {
		address := sends(t, func(c net.Conn) {
			for _, err := io.WriteString(c, line); err == nil; _, err = io.WriteString(c, line) {
			}
		})
		begin := time.Now()
		r, _ := once(t, module("tcp", wait), address, 20*time.Second)
		if took := time.Since(begin); r.GetOutcome() != meshv1.Result_FAIL || took > 15*time.Second {
			t.Errorf("%s: %v after %s", name, r, took)
		}
	}
}

func TestAGzipBombEndsAtTheLimitOfBodies(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 64 {
		_, _ = z.Write(zeros)
	}
	z.Close()
	member := bytes.Clone(bomb.Bytes())
	for range 17 { // members of one file, 1.1 GiB in all
		bomb.Write(member)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	}))
	defer s.Close()
	if testing.Short() {
		t.Skip("it unpacks 1 GiB")
	}
	m := module("http", func(m *Module) {
		m.HTTP.Compression = "gzip"
		m.HTTP.FailIfBodyMatchesRegexp = []Regexp{{regexp.MustCompile("zzz")}}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, _ := once(t, m, s.URL, 30*time.Second)
	runtime.ReadMemStats(&after)
	if r.GetOutcome() != meshv1.Result_FAIL || !strings.Contains(r.GetError(), "16 MiB") {
		t.Errorf("%v", r)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 128<<20 {
		t.Errorf("%d MiB were allocated for it", used>>20)
	}
	if r, _ := once(t, module("http", func(m *Module) { m.HTTP.Compression = "gzip" }), s.URL, 30*time.Second); r.GetOutcome() != meshv1.Result_FAIL || !strings.Contains(r.GetError(), "1024 MiB") {
		t.Errorf("unread: %v", r)
	}
}

func TestWithoutMemoryThereIsNoVerdict(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }))
	defer s.Close()
	e := exporter(t)
	e.bodies.left = 100 << 10
	e.active.Store(&loaded{config: &Config{Modules: map[string]*Module{"http_2xx": module("http", func(m *Module) {
		m.HTTP.FailIfBodyMatchesRegexp = []Regexp{{regexp.MustCompile("zzz")}}
	})}}, clients: newClients(nil)})
	w := httptest.NewRecorder()
	e.serveProbe(w, httptest.NewRequest(http.MethodGet, "/probe?target="+s.URL, nil))
	if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "probe_success") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if e.bodies.left != 100<<10 {
		t.Errorf("%d bytes of the budget were not given back", 100<<10-e.bodies.left)
	}
}

func TestATargetsLabelsCannotBreakTheFormat(t *testing.T) {
	address := sends(t, func(c net.Conn) { fmt.Fprintf(c, "id \"\\\xff%s\r\n", strings.Repeat("y", 20<<10)) })
	r, j := once(t, module("tcp", func(m *Module) {
		m.TCP.Steps = []Step{{Expect: Regexp{regexp.MustCompile("^id (.*)$")}, Labels: []Label{{"id", "${1}\n"}}}}
	}), address, 5*time.Second)
	var out bytes.Buffer
	_ = j.out.writeTo(&out)
	if r.GetOutcome() != meshv1.Result_OK || !strings.Contains(out.String(), `probe_expect_info{id="\"\\`+"\uFFFD"+`yyy`) || out.Len() > 10<<10 {
		t.Errorf("%v\n%.300s", r, out.String())
	}
	for l := range strings.Lines(out.String()) {
		if !strings.HasPrefix(l, "# ") && !strings.HasPrefix(l, "probe_") {
			t.Errorf("the line %.80q is no series", l)
		}
	}
}

func FuzzDialogueNeverPanics(f *testing.F) {
	f.Add([]byte("220 x\r\n250 STARTTLS\r\n220 \r\n\x16\x03\x01"))
	f.Add([]byte("\n\n\n\x00\xff"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		client, server := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, server) }()
		go func() {
			_, _ = server.Write(sent)
			server.Close()
		}()
		m := module("tcp", func(m *Module) {
			m.TCP.Steps = []Step{{Expect: Regexp{regexp.MustCompile(`^(\d+) (.*)`)}, Send: "${1}", Labels: []Label{{"a", "${2}"}}}, {ExpectBytes: "250"}, {StartTLS: true}}
		})
		e := exporter(t)
		j := &job{exporter: e, clients: newClients(nil), name: "m", module: m, timeout: time.Second, log: slog.New(slog.DiscardHandler)}
		r := j.run(context.Background(), func(ctx context.Context, a *probe.Attempt) error {
			defer client.Close()
			return j.converse(ctx, a, client, &m.TCP.Dialogue, "x")
		})
		if r.GetErrorClass() == meshv1.Result_PROBER {
			t.Errorf("%v", r)
		}
	})
}

func FuzzAnswerOfANameServerNeverPanics(f *testing.F) {
	q := (&DNS{QueryName: "x"}).question()
	good, _ := q.Pack()
	f.Add(good)
	f.Fuzz(func(_ *testing.T, packet []byte) {
		var m dns.Msg
		if m.Unpack(packet) != nil {
			return
		}
		all := []Pattern{{text: "A", compiled: regexp.MustCompile("A")}}
		d := DNS{ValidRcodes: []string{dns.RcodeToString[m.Rcode]}, ValidateAnswer: RRs{all, all, all, all}, ValidateAdditional: RRs{FailIfNoneMatches: all}}
		_ = d.judge(&probe.Attempt{}, &m)
		_ = m.String()
	})
}
