package blackbox_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/probemesh/probemesh/prober/blackbox"
)

// Variables that make the wide test wider: how many combinations of each prober, and the seed they are drawn from.
const (
	wideVariable = "PROBEMESH_DIFFERENTIAL"
	seedVariable = "PROBEMESH_DIFFERENTIAL_SEED"
)

// generator draws combinations of options and targets.
type generator struct {
	*rand.Rand
	modules map[string]string // text by name
	list    []combination
}

var topLevel = regexp.MustCompile(`(?:^|, )([a-z0-9_]+): `)

// sets are the names that an option sets.
func (o option) sets() (out []string) {
	depth, text := 0, []byte(o.text)
	for i, c := range text { // what stands in braces is not at the top
		switch c {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if depth > 0 {
			text[i] = '_'
		}
	}
	for _, m := range topLevel.FindAllSubmatch(text, -1) {
		out = append(out, string(m[1]))
	}
	return out
}

// module makes a module of some options that do not meet, and gives its name. What is always there comes first.
func (g *generator) module(prober, always string, options ...option) string {
	name, set, text := prober, map[string]bool{}, always
	for _, o := range options {
		if slices.ContainsFunc(o.sets(), func(s string) bool { return set[s] }) {
			continue
		}
		for _, s := range o.sets() {
			set[s] = true
		}
		name += "+" + o.name
		if text != "" {
			text += ", "
		}
		text += o.text
	}
	if always != "" {
		name += "+" + strings.TrimPrefix(always, "query_name: ")
	}
	module := fmt.Sprintf("{prober: %s, timeout: 1s, %s: {%s}}", prober, prober, text)
	if _, err := blackbox.Parse([]byte("modules: {x: " + module + "}")); err != nil {
		return "" // options that exclude each other, of which TestDebiansExporterTakesTheSameFiles has a list
	}
	g.modules[name] = module
	return name
}

// draw adds n combinations of a prober: every option alone, then pairs and triples.
func (g *generator) draw(prober string, n int, options []option, targets [][2]string, names ...string) {
	for i := range n {
		picked := []option{options[i%len(options)]}
		for range g.IntN(3) {
			picked = append(picked, options[g.IntN(len(options))])
		}
		always := ""
		if len(names) > 0 {
			always = "query_name: " + strconv.Quote(names[g.IntN(len(names))])
		}
		t := targets[g.IntN(len(targets))]
		if m := g.module(prober, always, picked...); m != "" {
			g.list = append(g.list, combination{module: m, target: t[0], url: t[1]})
		}
	}
}

// linkLocal is an address of this machine that needs a zone, "" without one.
func linkLocal() string {
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		addresses, _ := i.Addrs()
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsLinkLocalUnicast() {
				return n.IP.String() + "%" + i.Name
			}
		}
	}
	return ""
}

// forms are ways to write an address of the world, of which some mean nothing.
func forms(at string) []string {
	host, port, _ := strings.Cut(at, ":")
	return []string{at, at, at, "localhost:" + port, "LOCALHOST:" + port, "localhost.:" + port, host + ".:" + port, "127.1:" + port, "2130706433:" + port, "0x7f.0.0.1:" + port, "0177.0.0.1:" + port, "[::ffff:127.0.0.1]:" + port,
		"[127.0.0.1]:" + port, "::1:" + port, "[::1]:" + port, "::ffff:127.0.0.1:" + port, " " + at, at + " ", host + " :" + port, host + ":0" + port, host + ":+" + port, host + ":-1", host + ":", host + ":0", host + ":65536", host + ":http",
		host, ":" + port, "good.example:" + port, "no-such-host.invalid:" + port, "bücher.invalid:" + port, "xn--bcher-kva.invalid:" + port, "_under_score.invalid:" + port, strings.Repeat("a", 64) + ".invalid:" + port, "a..b.invalid:" + port,
		"/tmp/no-such-socket", "unix:///tmp/no-such-socket", "0.0.0.0:" + port, "[::]:" + port, "[::1%lo]:" + port, "127.0.0.2:" + port, "user@" + at, at + "/", at + "?x", "http://" + at, "https://" + at, "tcp://" + at, "*:" + port, "%31:" + port, "127.0.0.1%3A" + port, "."}
}

// httpTargets are the targets of prober http.
func (w *world) httpTargets() (out [][2]string) {
	add := func(name, url string) { out = append(out, [2]string{name, url}) }
	at := w.at["http"]
	for p := range strings.FieldsSeq(`ok ok ok created empty 401 404 500 302 301 307 308 away loop chain/3 json large cookie cookieset post body basic bearer host header gzip br deflate falsegzip garbage short http10 nolength
		modified tohttps echo echo/head agent authority length fragment?q=a%20b&q=c#top ok?@ oauth bearer`) {
		add("http/"+p, "http://"+at+"/"+p)
	}
	for s := range strings.FieldsSeq("https https http2 http2 tls12 tls11 tls13 mutual expired early wrongname selfsigned chain nohandshake http") {
		for p := range strings.FieldsSeq("ok ok 404 302 away echo bearer") {
			add(s+"/"+p, "https://"+w.at[s]+"/"+p)
		}
		add(s+" by name", "https://"+strings.Replace(w.at[s], "127.0.0.1", "localhost", 1)+"/ok")
		add(s+" by http", "http://"+w.at[s]+"/ok")
	}
	for _, f := range forms(at) {
		add("form "+f, f)
		add("form http://"+f, "http://"+f+"/ok")
	}
	for _, f := range forms(w.at["https"])[:20] {
		add("form https://"+f, "https://"+f+"/ok")
	}
	for _, u := range []string{"http://user:pass@@/basic", "user:pass@@/basic", "http://user@@/basic", "http://us%65r:p%61ss@@/basic", "http:///ok", "http:/@/ok", "http:@/ok", "//@/ok", "HTTPS://@/ok", "hTTp://@/ok", "ws://@/ok", "ftp://@/ok", "http://@/ok\x01", "http://@/ok ",
		"http://@/a b", "http://@/%", "http://@/%2e%2e/ok", "http://@?x=1", "http://@#f", "http://@/ok;a=b", "http://@\\ok", "http://@/ö", "http://@/ok?ö=ü", "http://h t/ok", "mailto:a@b", "javascript:alert(1)", "http://[::1]:1/", "http://[::1/", "http://::1/", "http://[fe80::1%25lo]:1/", "http://[fe80::1]:1/", "http://http://@/ok"} {
		add("url "+u, strings.ReplaceAll(u, "@/", at+"/"))
	}
	if six := w.at["http6"]; six != "" {
		add("http6/ok", "http://"+six+"/ok")
		add("http6 bare", six)
		add("http6/away", "http://"+six+"/away")
	}
	return out
}

// addressTargets are targets host:port of servers in all their forms.
func (w *world) addressTargets(servers string) (out [][2]string) {
	for s := range strings.FieldsSeq(servers) {
		for range 6 {
			out = append(out, [2]string{s, w.at[s]})
		}
		out = append(out, [2]string{s + " by name", strings.Replace(w.at[s], "127.0.0.1", "localhost", 1)})
	}
	first, _, _ := strings.Cut(servers, " ")
	for _, f := range forms(w.at[first]) {
		out = append(out, [2]string{"form " + f, f})
	}
	return out
}

// generate draws the combinations of all probers.
func generate(w *world, n int, seed uint64) *generator {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 5)), modules: map[string]string{}} //nolint:gosec // to be the same again
	g.draw("http", 3*n, httpOptions, w.httpTargets())
	g.draw("tcp", n, tcpOptions, w.addressTargets("ssh pop lines silent ends endshalf closes irc smtp smtpplain tlsssh refused nohandshake https http2 tls12 tls13 mutual expired wrongname selfsigned http"))
	g.draw("dns", n, dnsOptions, w.addressTargets("dns dns dot refused silent"), strings.Fields("one.example many.example many.example. soa.example txt.example six.example negative.example nxdomain.example servfail.example refused.example cut.example large.example recursive.example chaos.bind . Many.EXAMPLE a@b.example bücher.example")...)
	g.draw("grpc", n, grpcOptions, w.addressTargets("grpc nohealthgrpc grpcs grpcsexpired http https http2 refused closes h2c404"))
	g.draw("icmp", n, icmpOptions, w.addressTargets("http"))
	for _, h := range []string{"127.0.0.1", "localhost", "::1", "127.0.0.9", "[::1]", "::ffff:127.0.0.1", "127.1", "no-such-host.invalid", "0.0.0.0", "::", "http://127.0.0.1"} {
		g.draw("icmp", n/10, icmpOptions, [][2]string{{h, h}})
	}
	return g
}

// configure writes the modules that were drawn, beside those that are always there.
func (g *generator) configure(t *testing.T, w *world) {
	t.Helper()
	w.write(t, "pass", []byte("pass\n"))
	w.write(t, "secret", []byte("secret"))
	w.configure(t)
	out := ""
	at := strings.NewReplacer("DIR", w.dir, "PROXY407", w.at["proxy407"], "PROXY", w.at["proxy"], "HTTPS", w.at["https"], "'http://HTTP/", "'http://"+w.at["http"]+"/", "SSH", w.at["ssh"])
	for _, name := range slices.Sorted(maps.Keys(g.modules)) {
		module := g.modules[name]
		if strings.Contains(module, "_url:") || strings.Contains(module, "DIR") {
			module = at.Replace(module)
		}
		out += "  " + strconv.Quote(name) + ": " + module + "\n"
	}
	w.appendModules(t, out)
}

// TestDrawnCombinationsSayWhatDebiansExporterSays compares what nobody thought of: options alone, in pairs and in threes, with targets in every form. The seed is fixed, so that it is the same in every
// run; PROBEMESH_DIFFERENTIAL and PROBEMESH_DIFFERENTIAL_SEED draw more of them, and others.
func TestDrawnCombinationsSayWhatDebiansExporterSays(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	n, seed := 100, uint64(1)
	if s := os.Getenv(wideVariable); s != "" {
		n, _ = strconv.Atoi(s)
	}
	if s := os.Getenv(seedVariable); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	w := newWorld(t)
	g := generate(w, n, seed)
	g.configure(t, w)
	compare(t, startBoth(t, w), g.list, false)
}
