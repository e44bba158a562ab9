package blackbox

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestAnExpressionThatTakesMinutesEndsWithItsProbe(t *testing.T) {
	body := strings.Repeat("a", 8<<20)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
	t.Cleanup(s.Close)
	costly := regexp.MustCompile("(?:a?){900}b") // each character of the body is nine hundred places in it
	for name, change := range map[string]func(*Module){
		"must not match": func(m *Module) { m.HTTP.FailIfBodyMatchesRegexp = []Regexp{{costly}} },
		"must match":     func(m *Module) { m.HTTP.FailIfBodyNotMatchesRegexp = []Regexp{{costly}} },
	} {
		begin := time.Now()
		r, _ := once(t, module("http", change), s.URL, time.Second)
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("%s: it took %s with a timeout of 1s", name, took)
		}
		if r.GetOutcome() != meshv1.Result_FAIL || r.GetErrorClass() != meshv1.Result_TIMEOUT {
			t.Errorf("%s: got %v %v: %s", name, r.GetOutcome(), r.GetErrorClass(), r.GetError())
		}
	}
}

func TestALongTextIsMatchedAsAShortOneIs(t *testing.T) {
	filler := bytes.Repeat([]byte("0123456789 abcdef\xff\xfe \xe2\x82\xac\n"), 2000)
	for _, text := range []string{"needle", "Needle at the beginning", "ends with needle", "x needle y", "\xffneedle", "€needle€", ""} {
		for where, long := range map[string][]byte{"before": append([]byte(text), filler...), "behind": append(bytes.Clone(filler), text...),
			"between": append(append(bytes.Clone(filler), text...), filler...)} {
			for _, p := range []string{"needle", "^Needle", "needle$", "(?i)NEEDLE", `\bneedle\b`, "(?m)^x needle y$", "€needle", "n.*dle y", `\x{FFFD}needle`, "zzz", "needlz*e y", "needle|nadel", "ne(e)dle$", `needle\b`, `e\Bdle`, "nee+dle .", "^", "$", `\A\z`, "a.c"} {
				r := regexp.MustCompile(p)
				got, err := matches(context.Background(), r, long)
				if err != nil || got != r.Match(long) {
					t.Errorf("%q %s in a long text: got %v %v, want %v", p, where, got, err, r.Match(long))
				}
			}
		}
	}
}

func BenchmarkMatchLongBody(b *testing.B) {
	text := bytes.Repeat([]byte("<p>The quick brown fox jumps over the lazy dog.</p>\n"), 4000)
	for _, p := range []string{"Welcome", "(?i)welcome", "<title>.*Welcome"} {
		r := regexp.MustCompile(p)
		b.Run("whole/"+p, func(b *testing.B) {
			for b.Loop() {
				r.Match(text)
			}
		})
		b.Run("sliced/"+p, func(b *testing.B) {
			for b.Loop() {
				_, _ = matches(context.Background(), r, text)
			}
		})
	}
}
