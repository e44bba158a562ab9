package blackbox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/blackbox"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
)

// theirs is the program that ours is compared with.
const theirs = "prometheus-blackbox-exporter"

// combination is one request that both are sent.
type combination struct {
	module, target string // target as it is named in the world, then what follows
	url            string // the target itself
	hostname       string
}

func (c combination) String() string {
	s := c.module + " " + c.target
	if c.hostname != "" {
		s += " as " + c.hostname
	}
	return s
}

// exporters are both programs on the same configuration.
type exporters struct{ theirs, ours string }

// configure writes the configuration that both are given.
func (w *world) configure(t testing.TB) {
	t.Helper()
	w.write(t, "token", []byte("token"))
	text, err := os.ReadFile("testdata/modules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer("DIR", w.dir, "PROXY407", w.at["proxy407"], "PROXY", w.at["proxy"]).Replace(string(text))
	w.write(t, "modules.yml", []byte(config))
}

// appendModules adds modules to the configuration.
func (w *world) appendModules(t testing.TB, more string) {
	t.Helper()
	text, err := os.ReadFile(w.path("modules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "modules.yml", append(text, more...))
}

// succeeded is in what an exporter says of a good target.
var succeeded = regexp.MustCompile(`(?m)^probe_success 1$`)

func startBoth(t *testing.T, w *world) exporters {
	t.Helper()
	program, err := exec.LookPath(theirs)
	if err != nil {
		t.Skipf("%s is not installed: apt-get install -y --no-install-recommends %s", theirs, theirs)
	}
	box, err := blackbox.New(blackbox.Options{File: w.path("modules.yml"), Env: probe.Env{UserAgent: "probemesh/test", Capabilities: kinds.Capabilities()}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	box.Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.Close()
		box.Close()
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, program, "--config.file="+w.path("modules.yml"), "--web.listen-address="+address, "--log.level=error")
	var said strings.Builder
	command.Stderr = &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = command.Wait()
	})
	for range 200 {
		if resp, err := http.Get("http://" + address + "/-/healthy"); err == nil {
			resp.Body.Close()
			return exporters{theirs: "http://" + address, ours: server.URL}
		}
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	_ = command.Wait()
	t.Fatalf("%s does not start: %s", theirs, said.String())
	return exporters{}
}

// answer is what one exporter said.
type answer struct {
	status int
	body   string
	series map[string]float64 // by name and labels
}

func get(base string, c combination) (*answer, error) {
	q := url.Values{"module": {c.module}, "target": {c.url}}
	if c.hostname != "" {
		q.Set("hostname", c.hostname)
	}
	client := http.Client{Timeout: 8 * time.Second}
	resp, err := client.Get(base + "/probe?" + q.Encode())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{status: resp.StatusCode, body: string(text), series: map[string]float64{}}
	lines := bufio.NewScanner(strings.NewReader(a.body))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "# TYPE ") {
			a.series[line] = 1
		}
		if strings.HasPrefix(line, "probe_") {
			at := strings.LastIndexByte(line, ' ')
			v, err := strconv.ParseFloat(line[at+1:], 64)
			if err != nil {
				return nil, fmt.Errorf("%q is no sample", line)
			}
			a.series[normal(line[:at])] = v
		}
	}
	return a, nil
}

// normal is a series without the label serialnumber, which Debian's version does not have, and with its labels in order.
func normal(s string) string {
	name, labels, ok := strings.Cut(strings.TrimSuffix(s, "}"), "{")
	if !ok {
		return s
	}
	list := splitLabels(labels)
	list = slices.DeleteFunc(list, func(l string) bool { return strings.HasPrefix(l, "serialnumber=") })
	slices.Sort(list)
	return name + "{" + strings.Join(list, ",") + "}"
}

func splitLabels(s string) (out []string) {
	quoted, begin := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			out, begin = append(out, s[begin:i]), i+1
		}
	}
	return append(out, s[begin:])
}

// timed are series whose values differ from run to run.
func timed(series string) bool {
	return strings.Contains(series, "duration_seconds") || strings.Contains(series, "lookup_time")
}

// newer are series of later versions than Debian's 0.23.
func newer(series string) bool {
	series = strings.TrimPrefix(series, "# TYPE ")
	return strings.HasPrefix(series, "probe_tls_cipher_info") || strings.HasPrefix(series, "probe_failed_due_to_bytes")
}

// differences lists what is not the same.
func differences(their, our *answer) (out []string) {
	if their.status != our.status {
		return []string{fmt.Sprintf("status %d, ours %d", their.status, our.status)}
	}
	for s, v := range their.series {
		o, ok := our.series[s]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("%s is missing (%v)", s, v))
		case !timed(s) && o != v:
			out = append(out, fmt.Sprintf("%s %v, ours %v", s, v, o))
		}
	}
	for s, v := range our.series {
		if _, ok := their.series[s]; !ok && !newer(s) {
			out = append(out, fmt.Sprintf("%s is ours only (%v)", s, v))
		}
	}
	slices.Sort(out)
	return out
}

func TestProbesSayWhatDebiansExporterSays(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	w := newWorld(t)
	w.configure(t)
	compare(t, startBoth(t, w), combinations(w), true)
}

// compare sends both the same requests, and fails the test for every difference without a reason; with all, also for every reason without a difference.
func compare(t *testing.T, both exporters, list []combination, all bool) {
	t.Helper()
	results := make([]verdict, len(list))
	var wait sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i, c := range list {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = both.ask(c)
		})
	}
	wait.Wait()
	counts, known, same := map[string]int{}, map[string]int{}, 0
	for _, v := range results {
		for range 2 { // one that is left to chance, such as a datagram that was dropped, does not differ each time
			if !v.unknown() {
				break
			}
			again := both.ask(v.c)
			t.Logf("again   %-40s %q, then %q", v.c, v.why, again.why)
			v = again
		}
		counts[strings.FieldsFunc(v.c.module, func(r rune) bool { return r == '_' || r == '+' })[0]]++
		if v.same {
			same++
		}
		for _, d := range v.why {
			if reason := explained(v.c, d); reason != "" {
				known[reason]++
				t.Logf("known   %-40s %s", v.c, d)
				continue
			}
			t.Errorf("UNKNOWN %-40s %s", v.c, d)
		}
	}
	t.Logf("%d combinations (%v); the same probe_success in %d; differences by reason:", len(list), counts, same)
	for _, r := range reasons() {
		t.Logf("%5d  %s", known[r.text], r.text)
		if all && known[r.text] == 0 {
			t.Errorf("nothing differs any more because %s: take it from the list and from the manual", r.text)
		}
	}
}

// verdict is what was found of a combination.
type verdict struct {
	c    combination
	why  []string // what differs
	same bool     // probe_success
}

// unknown tells whether anything differs without a reason.
func (v verdict) unknown() bool {
	return slices.ContainsFunc(v.why, func(d string) bool { return explained(v.c, d) == "" })
}

// ask sends both one request.
func (e exporters) ask(c combination) verdict {
	their, err := get(e.theirs, c)
	our, err2 := get(e.ours, c)
	switch {
	case err2 != nil:
		return verdict{c: c, why: []string{"ours: " + err2.Error()}}
	case err != nil:
		return verdict{c: c, why: []string{"theirs does not answer"}}
	}
	return verdict{c: c, why: differences(their, our), same: their.series["probe_success"] == our.series["probe_success"]}
}

func TestTheManualNamesEveryDifference(t *testing.T) {
	manual, err := os.ReadFile("../../docs/blackbox.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reasons() {
		if !strings.Contains(string(manual), "| "+r.text+" |") {
			t.Errorf("docs/blackbox.md does not say: %s", r.text)
		}
	}
}

func TestTheManualsModulesAreValid(t *testing.T) {
	manual, err := os.ReadFile("../../docs/blackbox.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for block := range strings.SplitSeq(string(manual), "```yaml\n") {
		text, _, ok := strings.Cut(block, "\n```")
		if !ok || !strings.HasPrefix(text, "modules:") {
			continue
		}
		n++
		if _, err := blackbox.Parse([]byte(text)); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
	}
	if n == 0 {
		t.Error("the manual shows no modules")
	}
}
