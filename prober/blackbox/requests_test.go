package blackbox_test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// requests are method, path with HTTP for the address of a good target and SLOW for that of one that never answers, and the timeout of the scrape, if any. The part behind " # " is why ours differs on purpose.
const requests = `
GET /-/healthy
HEAD /-/healthy
GET /-/reload
HEAD /-/reload
POST /-/reload
PUT /-/reload # PUT reloads too
DELETE /-/reload
GET /config
POST /config
GET /probe
GET /probe?module=http_2xx
GET /probe?module=http_2xx&target=
GET /probe?module=&target=http://HTTP/ok
GET /probe?target=http://HTTP/ok
GET /probe?module=nosuch&target=http://HTTP/ok
GET /probe?module=HTTP_2XX&target=http://HTTP/ok
GET /probe?Module=http_ip4&Target=http://HTTP/ok
GET /probe?module=http_2xx&module=tcp_connect&target=http://HTTP/ok
GET /probe?module=http_2xx&target=http://HTTP/ok&target=http://127.0.0.1:1/
GET /probe?module=http_2xx&target=http://HTTP/ok&debug=true
GET /probe?module=http_2xx&target=http://HTTP/404&debug=true
GET /probe?module=http_2xx&target=http://HTTP/ok&debug=1
GET /probe?module=http_2xx&target=http://HTTP/ok&debug=false
GET /probe?module=http_2xx&target=http://HTTP/ok&hostname=
GET /probe?module=http_2xx&target=http://HTTP/host&hostname=virtual.example
GET /probe?module=http_2xx&target=http%3A%2F%2FHTTP%2Fok
GET /probe?module=http_2xx;target=x
GET /probe?module=http_2xx&target=%zz
GET /probe/?module=http_2xx&target=http://HTTP/ok # there is no page for every other path
POST /probe?module=http_2xx&target=http://HTTP/ok
HEAD /probe?module=http_2xx&target=http://HTTP/ok
OPTIONS /probe?module=http_2xx&target=http://HTTP/ok
GET /probe?module=http_2xx&target=http://HTTP/ok 1
GET /probe?module=http_2xx&target=http://HTTP/ok 0
GET /probe?module=http_2xx&target=http://HTTP/ok 0.5 # a scrape of half a second, from which nothing is left, has the module's timeout
GET /probe?module=http_2xx&target=http://HTTP/ok 0.4
GET /probe?module=http_2xx&target=http://HTTP/ok 3600
GET /probe?module=http_2xx&target=http://HTTP/ok 1e9
GET /probe?module=http_2xx&target=http://HTTP/ok -5
GET /probe?module=http_2xx&target=http://HTTP/ok +Inf
GET /probe?module=http_2xx&target=http://HTTP/ok NaN # what is not a number is refused
GET /probe?module=http_2xx&target=http://HTTP/ok soon
GET /probe?module=http_2xx&target=http://HTTP/ok 10s
GET /probe?module=nosuch&target=http://HTTP/ok soon
GET /probe?module=http_2xx soon
GET /probe?module=unlimited&target=http://HTTP/ok 10
GET /probe?module=unlimited&target=http://HTTP/ok 0.3 # a scrape shorter than half a second is probed for as long as it takes
GET /probe?module=unlimited&target=http://HTTP/slow 0.8
GET /probe?module=short&target=http://HTTP/slow 5
GET /probe?module=gopher&target=http://HTTP/ok
GET /probe?module=gopher
GET /probe?module=empty&target=http://HTTP/ok
GET /probe?module=negative&target=http://HTTP/ok
GET /probe?module=family&target=http://HTTP/ok
GET /probe?module=zip&target=http://HTTP/ok
GET /probe?module=rootdns&target=DNS
GET /probe?module=quicdns&target=DNS
GET /probe?module=tlsdns&target=DNS
GET /probe?module=rcodedns&target=DNS
GET /probe?module=regexdns&target=DNS
GET /probe?module=regexdns2&target=DNS
GET /probe?module=sourcedns&target=DNS
GET /probe?module=sourcetcp&target=HTTP
GET /probe?module=sourceicmp&target=127.0.0.1
GET /probe?module=largeicmp&target=127.0.0.1
GET /nothing # there is no page for every other path
`

// oddModules are what Debian's exporter loads and few would write.
const oddModules = `
  unlimited: {prober: http}
  short: {prober: http, timeout: 200ms}
  gopher: {prober: gopher}
  empty:
  negative: {prober: http, timeout: -1s}
  family: {prober: http, http: {preferred_ip_protocol: ipv6}}
  zip: {prober: http, http: {compression: zip}}
  rootdns: {prober: dns, timeout: 1s}
  quicdns: {prober: dns, timeout: 1s, dns: {query_name: one.example, transport_protocol: quic}}
  tlsdns: {prober: dns, timeout: 1s, dns: {query_name: one.example, dns_over_tls: true}}
  rcodedns: {prober: dns, timeout: 1s, dns: {query_name: one.example, valid_rcodes: [NOERROR, NOPE]}}
  regexdns: {prober: dns, timeout: 1s, dns: {query_name: one.example, validate_answer_rrs: {fail_if_matches_regexp: ['(']}}}
  regexdns2: {prober: dns, timeout: 1s, dns: {query_name: empty.example, validate_answer_rrs: {fail_if_matches_regexp: ['(']}}}
  sourcedns: {prober: dns, timeout: 1s, dns: {query_name: one.example, source_ip_address: here}}
  sourcetcp: {prober: tcp, timeout: 1s, tcp: {source_ip_address: here}}
  sourceicmp: {prober: icmp, timeout: 1s, icmp: {source_ip_address: here}}
  largeicmp: {prober: icmp, timeout: 1s, icmp: {payload_size: 70000}}
`

var success = regexp.MustCompile(`(?m)^probe_success \d$`)

// oddly sends one of the requests, and gives the status, and probe_success where it is told.
func oddly(t *testing.T, base, line string) (said string, took time.Duration) {
	t.Helper()
	parts := strings.Fields(line)
	r, err := http.NewRequest(parts[0], base+parts[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) > 2 {
		r.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", parts[2])
	}
	begin := time.Now()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error(), 0
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.Status + " " + success.FindString(string(text)), time.Since(begin)
}

func TestDebiansExporterAnswersOddRequestsAlike(t *testing.T) {
	w := newWorld(t)
	w.configure(t)
	w.appendModules(t, oddModules)
	both := startBoth(t, w)
	at := strings.NewReplacer("HTTP_2XX", "HTTP_2XX", "HTTP/", w.at["http"]+"/", "HTTP", w.at["http"], "DNS", w.at["dns"])
	for line := range strings.SplitSeq(strings.Trim(requests, "\n"), "\n") {
		line, reason, _ := strings.Cut(line, " # ")
		request := at.Replace(line)
		their, _ := oddly(t, both.theirs, request)
		our, took := oddly(t, both.ours, request)
		switch {
		case their != our && reason == "":
			t.Errorf("%s\n\t%s\n\tours: %s", line, their, our)
		case their == our && reason != "":
			t.Errorf("%s\n\tboth say %s; there is nothing to explain", line, our)
		case took > 4*time.Second:
			t.Errorf("%s took %s", line, took)
		}
	}
}
