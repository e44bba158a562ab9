package configfile_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/configfile"
)

func faultLines(faults []configfile.Fault) string {
	var b strings.Builder
	for _, f := range faults {
		b.WriteString(f.String() + "\n")
	}
	return b.String()
}

func TestEveryFaultOfFormIsListedWithItsPlace(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"typo", "checks:\n  - name: shop\n    intervall: 30s\n", "f:3:5: checks[0].intervall: unknown field \"intervall\"; did you mean \"interval\"?\n"},
		{"nothing near", "things: []\n", "f:1:1: things: unknown field \"things\"; Config has build_policy, checks, receivers\n"},
		{"blackbox_exporter", "modules: {http_2xx: {prober: http}}\n", "f:1:1: modules: unknown field \"modules\"; this looks like a configuration of blackbox_exporter, which a prober takes by `probemesh prober --blackbox-config FILE`; here write checks\n"},
		{"text wanted", "checks:\n  - labels: {port: 80, on: true}\n",
			"f:2:20: checks[0].labels[\"port\"]: wants text, not the number 80; quote it: \"80\"\nf:2:28: checks[0].labels[\"on\"]: wants text, not true; quote it: \"true\"\n"},
		{"number wanted", "checks:\n  - quorum: many\n", "f:2:13: checks[0].quorum: wants a whole number, not the text \"many\"\n"},
		{"number too large", "checks:\n  - quorum: 3000000000\n", "f:2:13: checks[0].quorum: 3000000000 is too large for this field\n"},
		{"list wanted", "checks:\n  name: shop\n", "f:2:3: checks: wants a list, not a mapping; begin each item with `- `\n"},
		{"mapping wanted", "checks:\n  - shop\n", "f:2:5: checks[0]: wants fields of Check, not the text \"shop\"\n"},
		{"bool wanted", "checks:\n  - paused: yes\n", "f:2:13: checks[0].paused: wants true or false, not the text \"yes\"\n"},
		{"duration without a unit", "checks:\n  - interval: 30\n", "f:2:15: checks[0].interval: the duration \"30\" has no unit; write 30s for seconds\n"},
		{"no duration", "checks:\n  - interval: soon\n", "f:2:15: checks[0].interval: \"soon\" is not a duration; write it like 30s, 1m30s, 500ms or 2h\n"},
		{"enum", "checks:\n  - http: {ip_family: ipv5}\n", "f:2:23: checks[0].http.ip_family: \"ipv5\" is not one of ANY, IPV4, IPV6; did you mean IPV4?\n"},
		{"duplicate key", "checks:\n  - name: a\n    uri: tcp://a:1\n    name: b\n", "f:4:5: checks[0].name: is written twice, first in line 2; keep one\n"},
		{"empty item", "checks:\n  - receivers: [ops, ]\n    datacenters:\n      - a\n      -\n", "f:5:8: checks[0].datacenters[1]: the item is empty; write text, or remove it\n"},
		{"second document", "checks: []\n---\nchecks: []\n", "f:2:1: a second document begins here; a file holds one: put everything into one list of checks, or use several files\n"},
		{"tab", "checks:\n\t- name: a\n", "f:2:1: this is not YAML: the line is indented with a tab; use spaces\n"},
		{"item broken off", "checks:\n  - name: a\n   uri: x\n  - name: b\n", "f:3: this is not YAML: did not find expected '-' indicator\n"},
		{"key too far in", "checks:\n  - name: a\n\n# first\nreceivers: []\n other: x\nlast: 1\n", "f:6: this is not YAML: did not find expected key\n"},
		{"open bracket", "checks: [\n", "f:1: this is not YAML: did not find expected node content\n"},
		{"empty", "# nothing\n", "f: the file is empty; write a list of checks under `checks:`\n"},
		{"a word", "hello\n", "f:1:1: wants a mapping with `checks:` and `receivers:`, not the text \"hello\"\n"},
		{"all at once", "checks:\n  - nam: a\n    interval: x\n    quorum: y\n",
			"f:2:5: checks[0].nam: unknown field \"nam\"; did you mean \"name\"?\nf:3:15: checks[0].interval: \"x\" is not a duration; write it like 30s, 1m30s, 500ms or 2h\nf:4:13: checks[0].quorum: wants a whole number, not the text \"y\"\n"},
		{"json", `{"checks": [{"name": "a", "probers": "x"}]}`, "f:1:38: checks[0].probers: wants a whole number, not the text \"x\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, faults := configfile.Parse("f", []byte(c.in))
			if got := faultLines(faults); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

func TestYAMLBecomesTheMessage(t *testing.T) {
	doc, faults := configfile.Parse("f", []byte(`
checks:
  - &base
    name: shop
    uri: https://shop.example.com/
    interval: 1m30s
    timeout: "0.5s"
    probers: 5
    labels: {team: payments}
    http:
      follow_redirects: false
      ip_family: IPV6
      body_limit: "1024"
      expect:
        - response.status == 200
  - <<: *base
    name: shop-2
    http:
    labels: {since: 2026-03-01}
`))
	if len(faults) > 0 {
		t.Fatal(faultLines(faults))
	}
	a, b := doc.Config.GetChecks()[0], doc.Config.GetChecks()[1]
	if a.GetInterval().AsDuration() != 90*time.Second || a.GetTimeout().AsDuration() != 500*time.Millisecond || a.GetProbers() != 5 {
		t.Errorf("got %v", a)
	}
	if h := a.GetHttp(); h.FollowRedirects == nil || h.GetFollowRedirects() || h.GetIpFamily().String() != "IPV6" || h.GetBodyLimit() != 1024 || len(h.GetExpect()) != 1 {
		t.Errorf("got %v", h)
	}
	if b.GetName() != "shop-2" || b.GetUri() != a.GetUri() || b.GetHttp() != nil || b.GetLabels()["since"] != "2026-03-01" || b.GetLabels()["team"] != "" {
		t.Errorf("the merged check is %v", b)
	}
	if at := doc.Position("checks[1].name").String(); at != "f:17:5" {
		t.Errorf("checks[1].name is at %s", at)
	}
}

func TestAliasBombIsRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString("checks:\n  - name: a\n    receivers: &r0 [a,b,c,d,e,f,g,h,i,j]\n")
	b.WriteString("    http:\n      expect: [x]\n")
	b.WriteString("  - &c {name: b, labels: {a: b, c: d}}\n")
	for range 400_000 {
		b.WriteString("  - *c\n")
	}
	_, faults := configfile.Parse("f", []byte(b.String()))
	if len(faults) != 1 || !strings.Contains(faults[0].Problem, "more than 1000000 values") {
		t.Fatalf("got %d faults, first %v", len(faults), faults[:min(1, len(faults))])
	}
}

func TestSelfContainingAliasIsRefused(t *testing.T) {
	for _, in := range []string{"checks: &a [*a]\n", "checks:\n  - &a\n    <<: *a\n    name: x\n", "&a {checks: *a}\n"} {
		if _, faults := configfile.Parse("f", []byte(in)); len(faults) == 0 {
			t.Errorf("%q is accepted", in)
		}
	}
}

func TestOversizeFileIsRefused(t *testing.T) {
	_, faults := configfile.Parse("f", make([]byte, configfile.MaxBytes+1))
	if got := faultLines(faults); got != "f: the file has more than 8 MiB; split it and apply the parts together\n" {
		t.Errorf("got %s", got)
	}
}

func TestDurationsAreReadAndWrittenAsPeopleDo(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "1m30s": 90 * time.Second, "500ms": 500 * time.Millisecond, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour,
		"1.5d": 36 * time.Hour, "0": 0, "-5s": -5 * time.Second, "-1d": -24 * time.Hour, "90.000000001s": 90*time.Second + 1,
	} {
		got, err := configfile.ParseDuration(in)
		if err != nil || got != want {
			t.Errorf("%s is read as %s, %v", in, got, err)
		}
		again, err := configfile.ParseDuration(configfile.FormatDuration(got))
		if err != nil || again != got {
			t.Errorf("%s is written %s and read as %s, %v", got, configfile.FormatDuration(got), again, err)
		}
	}
	for _, in := range []string{"", "30", "s", "1y", "300000d", "1e9h"} {
		if d, err := configfile.ParseDuration(in); err == nil {
			t.Errorf("%q is read as %s", in, d)
		}
	}
	for d, want := range map[time.Duration]string{30 * time.Second: "30s", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m", time.Minute: "1m", 10 * time.Minute: "10m", 0: "0s"} {
		if got := configfile.FormatDuration(d); got != want {
			t.Errorf("%v is written %s, not %s", d, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	seeds, _ := filepath.Glob("testdata/*.yaml")
	for _, s := range seeds {
		if data, err := os.ReadFile(s); err == nil {
			f.Add(data)
		}
	}
	f.Add([]byte("checks:\n  - &a {name: x, uri: 'tcp://a:1', http: {body: \"\\u0001\\n x\", expect: ['a', \"b: c\"]}}\n  - <<: *a\n    name: y\n"))
	f.Add([]byte("{\"receivers\": [{\"name\": \"a\", \"give_up_after\": \"7d\", \"create_time\": \"2026-03-01T12:00:00Z\"}]}"))
	f.Add([]byte("checks: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		hang := time.AfterFunc(10*time.Second, func() { panic("reading hangs on " + strconv.Quote(string(data))) })
		defer hang.Stop()
		doc, faults := configfile.Parse("f", data)
		if len(faults) > 0 {
			return
		}
		text, err := configfile.Marshal(doc.Config)
		if err != nil {
			t.Fatal(err)
		}
		again, faults := configfile.Parse("g", text)
		if len(doc.Config.GetChecks())+len(doc.Config.GetReceivers()) == 0 {
			return // written as {}
		}
		if len(faults) > 0 || !proto.Equal(doc.Config, again.Config) {
			t.Fatalf("what was written is read differently: %s\n%s", faultLines(faults), text)
		}
	})
}
