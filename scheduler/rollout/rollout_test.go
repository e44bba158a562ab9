package rollout

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestEveryTransition(t *testing.T) {
	p := Policy{}
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	for _, c := range []struct {
		name  string
		now   time.Time
		p     Policy
		f     Facts
		want  Stage
		waits string
	}{
		{"a new build waits", at(time.Minute), p, Facts{Stage: Shadow, Probers: 1, Alone: -1}, Shadow, "9m0s and 100 comparisons more"},
		{"time alone does not do", at(time.Hour), p, Facts{Stage: Shadow, Probers: 1, Comparisons: 99, Alone: -1}, Shadow, "1 comparisons more"},
		{"comparisons alone do not do", at(time.Minute), p, Facts{Stage: Shadow, Probers: 1, Comparisons: 1000, Alone: -1}, Shadow, "9m0s more"},
		{"both do", at(10 * time.Minute), p, Facts{Stage: Shadow, Probers: 1, Comparisons: 100, Alone: -1}, Canary, ""},
		{"a canary is settled", at(20 * time.Minute), p, Facts{Stage: Canary, Probers: 1, Comparisons: 100, Alone: -1}, Settled, ""},
		{"people decide", at(time.Hour), Policy{Manual: true}, Facts{Stage: Shadow, Probers: 1, Comparisons: 100, Alone: -1}, Shadow, "an operator"},
		{"halted in the shadow", at(time.Hour), Policy{Manual: true}, Facts{Stage: Shadow, Probers: 1, Halt: "x", Alone: -1}, Halted, ""},
		{"halted as a canary", at(time.Hour), p, Facts{Stage: Canary, Probers: 1, Comparisons: 1000, Halt: "x", Alone: -1}, Halted, ""},
		{"halted stays halted", at(24 * time.Hour), p, Facts{Stage: Halted, Probers: 9, Comparisons: 1000, Alone: time.Hour, Next: true}, Halted, ""},
		{"settled stays settled", at(0), p, Facts{Stage: Settled, Halt: "x", Alone: -1}, Settled, ""},
		{"somebody must look", at(time.Hour), p, Facts{Stage: Shadow, Probers: 1, Comparisons: 1000, Doubt: "x", Alone: -1}, Shadow, "approve it: x"},
		{"nobody runs it", at(time.Hour), p, Facts{Stage: Shadow, Comparisons: 100, Alone: -1}, Shadow, "no prober runs it"},
		{"nobody is left, not for long", at(time.Second), p, Facts{Stage: Shadow, Probers: 3, Alone: 10 * time.Second, Next: true}, Shadow, "settled in 50s"},
		{"nobody is left", at(time.Minute), p, Facts{Stage: Shadow, Probers: 3, Alone: time.Minute, Next: true}, Settled, ""},
		{"another one is next", at(time.Minute), p, Facts{Stage: Shadow, Probers: 1, Alone: time.Minute}, Shadow, "9m0s and"},
		{"bad and alone is halted", at(time.Minute), p, Facts{Stage: Shadow, Probers: 3, Halt: "x", Alone: time.Hour, Next: true}, Halted, ""},
	} {
		c.f.Since = epoch
		d := Decide(c.now, Config{}, c.p, c.f)
		if d.Stage != c.want || !strings.Contains(d.Waits, c.waits) || (d.Reason == "") != (c.want == c.f.Stage) {
			t.Errorf("%s: %+v, want %s waiting for %q", c.name, d, c.want, c.waits)
		}
	}
}

// play has a build vote on checks of as many hosts in turn; wrong says on which it disagrees. It gives the number of disagreements and of comparisons until it is halted,
// or -1.
func play(hosts, comparisons int, wrong func(host, n int) bool) (dissents int64, at int) {
	trial, rows := NewTrial(Config{}), make([]int, hosts)
	for n := range comparisons {
		h := n % hosts
		now := epoch.Add(time.Duration(n) * time.Minute / time.Duration(hosts))
		if name := fmt.Sprint("h", h); wrong(h, n) {
			rows[h]++
			trial.Dissent(now, Dissent{Prober: "p", Check: "checks/" + name, Subject: name, Kind: "http", Failed: true, InARow: rows[h]})
		} else {
			rows[h] = 0
			trial.Agree()
		}
		if trial.Halt(now, hosts) != "" {
			return trial.Dissents, n + 1
		}
	}
	return trial.Dissents, -1
}

func TestBrokenBuildIsHaltedWithinTheStatedNumberOfDisagreements(t *testing.T) {
	for _, c := range []struct {
		name        string
		hosts       int
		wrong       func(h int) bool
		most        int64
		comparisons int
	}{
		{"wrong about everything", 100, func(int) bool { return true }, 5, 5},
		{"wrong about every other", 100, func(h int) bool { return h%2 == 0 }, 5, 10},
		{"wrong about one in 20", 100, func(h int) bool { return h%20 == 0 }, 8, 160},
		{"wrong about 3 of 1,000", 1000, func(h int) bool { return h < 3 }, 9, 3000},
		{"wrong about 2 of 1,000", 1000, func(h int) bool { return h < 2 }, 6, 3000},
		{"wrong about 10 of 1,000", 1000, func(h int) bool { return h%100 == 0 }, 22, 3000},
		{"wrong about all of two hosts", 2, func(int) bool { return true }, 6, 6},
		{"wrong about the only host", 1, func(int) bool { return true }, 3, 3},
	} {
		n, at := play(c.hosts, 100*c.hosts, func(h, _ int) bool { return c.wrong(h) })
		t.Logf("%s: halted by disagreement %d, comparison %d", c.name, n, at)
		if at < 0 || n > c.most || at > c.comparisons {
			t.Errorf("%s: halted after %d disagreements and %d comparisons, want %d and %d", c.name, n, at, c.most, c.comparisons)
		}
	}
}

func TestHostsOwnReasonHaltsNothing(t *testing.T) {
	if n, at := play(20, 100_000, func(h, _ int) bool { return h < 1 }); at >= 0 {
		t.Errorf("a host that treats it differently halted it after %d disagreements", n)
	}
	trial := NewTrial(Config{})
	for i := range 3 {
		trial.Agree()
		trial.Dissent(epoch, Dissent{Prober: "p", Check: "checks/c", Subject: "h", Kind: "http", InARow: i + 1})
	}
	if got := trial.Doubt(epoch); got != "each time it disagrees on h" || trial.Halt(epoch, 9) != "" {
		t.Errorf("doubt %q, halt %q", got, trial.Halt(epoch, 9))
	}
}

func TestSoundBuildIsNotHalted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		if n, at := play(500, 100_000, func(int, int) bool { return r.Float64() < 0.001 }); at >= 0 {
			t.Errorf("halted after %d disagreements in %d comparisons", n, at)
		}
	}
}

func TestHaltNamesChecksAndKinds(t *testing.T) {
	trial := NewTrial(Config{})
	for i := range 5 {
		trial.Dissent(epoch, Dissent{Prober: fmt.Sprint("p", i%2), Check: fmt.Sprint("checks/c", i), Subject: fmt.Sprint("h", i), Kind: []string{"http", "http", "tls"}[i%3], Failed: true, Error: "redirected", InARow: 1})
	}
	want := "it saw failures where settled builds saw answers on 5 hosts, in 5 of 5 comparisons (http 4, tls 1) by 2 probers; for example checks/c0"
	if got := trial.Halt(epoch, 9); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if k := trial.Kinds(); len(k) != 2 || k[0].Kind != "http" || k[0].Failed != 4 || len(k[0].Examples) != 4 || k[1].Examples[0].Error != "redirected" {
		t.Errorf("%+v", k)
	}
}
