package alert

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var rewrite = flag.Bool("rewrite", false, "write the expected output of the goldens anew")

func TestSentencesReadAsWritten(t *testing.T) {
	many := strings.Split("ams,bom,cdg,dfw,ewr,fra,gru,hkg,iad,jnb", ",")
	shop := Facts{Check: "shop", URI: "https://shop.example.com/health", Verdict: "DOWN", Failing: []string{"fra", "iad", "nrt"}, Heard: 3, Quorum: 2,
		Error: "connect to 192.0.2.7:443: connection refused"}
	with := func(f Facts, change func(*Facts)) Facts { change(&f); return f }
	var b strings.Builder
	b.WriteString("# The sentences people are told, one for each kind of transition.\n")
	say := func(what, sentence string) { fmt.Fprintf(&b, "\n%s\n  %s\n", what, sentence) }
	say("a total outage", Opened(shop))
	say("a part of the mesh sees it", Opened(with(shop, func(f *Facts) { f.Failing = f.Failing[:2] })))
	say("one datacenter, a quorum of one, no error said", Opened(with(shop, func(f *Facts) { f.Failing, f.Heard, f.Quorum, f.Error = f.Failing[:1], 1, 1, "" })))
	say("one datacenter of several, a quorum of one", Opened(with(shop, func(f *Facts) { f.Failing, f.Quorum = f.Failing[:1], 1 })))
	say("a sentence of its own as the error", Opened(with(shop, func(f *Facts) { f.Error = "The certificate expired on 3 May." })))
	say("many datacenters", Opened(with(shop, func(f *Facts) { f.Failing, f.Heard, f.Quorum = many, 12, 7 })))
	slow := with(shop, func(f *Facts) {
		f.Verdict, f.Failing, f.Limping, f.Error = "DEGRADED", nil, f.Failing[:2], "the whole probe took 912ms, more than 800ms (degraded_above.total)"
	})
	say("a quorum sees it degraded", Opened(slow))
	say("it fails again and again", Opened(with(shop, func(f *Facts) {
		f.Verdict, f.Failing, f.Unsteady, f.Failed, f.Probes = "DEGRADED", nil, f.Failing, 12, 24
		f.Until = "it has answered 10 times in a row"
	})))
	say("it is down for the third time in a short while", Opened(with(shop, func(f *Facts) { f.Until = "it has answered for 2m0s without a break" })))
	over := Facts{Check: "shop", URI: shop.URI, Verdict: "UP", Heard: 3, Quorum: 2, Lasted: 185 * time.Second}
	say("it answers again", Resolved(over))
	say("it answers again, but not to all", Resolved(with(over, func(f *Facts) { f.Verdict, f.Failing = "DEGRADED", []string{"fra"} })))
	say("it answers again, but slowly", Resolved(with(over, func(f *Facts) { f.Verdict, f.Limping = "DEGRADED", []string{"fra", "iad"} })))
	say("the check was deleted meanwhile", Resolved(with(over, func(f *Facts) { f.Note = "the check was deleted" })))
	const file = "testdata/sentences.txt"
	if *rewrite {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("the sentences have changed:\n%s", got)
	}
}

func TestSpanIsForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 850 * time.Millisecond: "850ms", 12 * time.Second: "12s", 59*time.Second + 700*time.Millisecond: "1m0s", 185 * time.Second: "3m5s",
		time.Hour - time.Millisecond: "1h0m", 130 * time.Minute: "2h10m", 24*time.Hour - time.Second: "1d0h", 76 * time.Hour: "3d4h",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestRecipientsAreEachOnceAndSorted(t *testing.T) {
	if got := fmt.Sprint(Recipients([]string{"b", "a"}, nil, []string{"a", "c"})); got != "[a b c]" {
		t.Fatal(got)
	}
}

func TestDifferentNotificationsHaveDifferentKeys(t *testing.T) {
	id := rapid.StringMatching(`[a-z0-9-]{1,8}`)
	rapid.Check(t, func(t *rapid.T) {
		i, j, r, s := id.Draw(t, "i"), id.Draw(t, "j"), id.Draw(t, "r"), id.Draw(t, "s")
		if (Key(i, "OPENED", r) == Key(j, "OPENED", s)) != (i == j && r == s) || Key(i, "OPENED", r) == Key(i, "RESOLVED", r) {
			t.Fatal("two notifications share a key")
		}
	})
}
