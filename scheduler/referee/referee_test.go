package referee

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

// plain is a truth without faults and losses.
func plain(checks int, faults ...Fault) *Truth {
	return &Truth{seed: 7, Places: Places(), Length: roundLength, Checks: checks, Faults: faults}
}

// dead is check 0 that refuses everything from the tenth to the thirtieth minute.
func dead() Fault {
	f := Fault{Class: Classes()[0], Target: 0, Share: 1, Takes: 20 * time.Millisecond}
	f.at(10*time.Minute, 20*time.Minute)
	return f
}

func TestEveryRuleFindsAnOutageAndItsEndAndNothingElse(t *testing.T) {
	for _, r := range Rules() {
		w := plain(3, dead())
		alerts, probes := r.Play(w)
		if len(alerts) != 1 || alerts[0].Check != 0 || probes == 0 {
			t.Errorf("%s: alerts %v, %d probes", r.Name, alerts, probes)
			continue
		}
		found, over := alerts[0].Start-10*time.Minute, alerts[0].End-30*time.Minute
		if found < 0 || found > 4*time.Minute || over < 0 || over > 11*time.Minute {
			t.Errorf("%s: found after %s, over after %s", r.Name, found, over)
		}
	}
}

func TestEveryRuleIsQuietWhenNothingFails(t *testing.T) {
	for _, r := range Rules() {
		if alerts, _ := r.Play(plain(3)); len(alerts) != 0 {
			t.Errorf("%s: %v", r.Name, alerts)
		}
	}
}

// Goal: equal options give equal figures, however many processors there are.
func TestFiguresFollowFromTheSeed(t *testing.T) {
	o := Options{Seed: 3, Rounds: 2, Checks: 5, Rules: []*Rule{Rules()[0], Rules()[8]}}
	a, errA := Play(t.Context(), o)
	b, errB := Play(t.Context(), o)
	if errA != nil || errB != nil || !reflect.DeepEqual(figures(a), figures(b)) {
		t.Fatalf("%v, %v\n%+v\n%+v", errA, errB, figures(a), figures(b))
	}
}

func figures(lines []Line) (all []any) {
	for _, l := range lines {
		all = append(all, l.Rule.Name, l.P50, l.P99, l.FalsePerMillion, l.ProbesPerDay)
		for _, s := range l.ByClass {
			all = append(all, s.False, s.Partial, s.Missed, s.Probes, len(s.Detections))
		}
	}
	return all
}

// Goal: none of the rules is both faster and less often wrong than ours at equal or lower cost. A short run; `probemesh simulate` plays a longer one.
func TestNoRuleIsBothFasterAndLessOftenWrongThanOurs(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	lines, err := Play(t.Context(), Options{Seed: 11, Rounds: rounds, Checks: 12})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := Table(&b, lines); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + b.String())
	for _, c := range Dominated(lines) {
		t.Errorf("%s %s (ours: %s)", c.Rule, c.How, c.Ours)
	}
	for _, l := range lines {
		if l.Rule.Ours && l.MissedShare > 0 {
			t.Errorf("%s missed %.1f %% of the outages", l.Rule.Name, 100*l.MissedShare)
		}
	}
}

func TestRuleThatIsBetterInBothIsToldOf(t *testing.T) {
	lines := []Line{
		{Rule: &Rule{Name: "ours", Ours: true}, P50: 10 * time.Second, FalsePerMillion: 5, ProbesPerDay: 1000},
		{Rule: &Rule{Name: "slower"}, P50: 20 * time.Second, FalsePerMillion: 1, ProbesPerDay: 1000},
		{Rule: &Rule{Name: "hasty"}, P50: 5 * time.Second, FalsePerMillion: 50, ProbesPerDay: 1000},
		{Rule: &Rule{Name: "better"}, P50: 5 * time.Second, FalsePerMillion: 1, ProbesPerDay: 1000},
		{Rule: &Rule{Name: "cheap"}, P50: 50 * time.Second, FalsePerMillion: 9, ProbesPerDay: 100},
	}
	got := Dominated(lines)
	if len(got) != 2 || got[0].Rule != "better" || got[1].Rule != "cheap" {
		t.Fatalf("%+v", got)
	}
}

func TestReportsCanBeRead(t *testing.T) {
	lines, err := Play(t.Context(), Options{Seed: 1, Rounds: 1, Checks: 3, Rules: Rules()[:1]})
	if err != nil {
		t.Fatal(err)
	}
	var plot, doc bytes.Buffer
	if err := errors.Join(Plot(&plot, lines), JSON(&doc, lines)); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(&plot); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	var list []report
	if err := json.Unmarshal(doc.Bytes(), &list); err != nil || len(list) != 1 || list[0].Rule != "second opinion" || len(list[0].Classes) != len(Classes()) {
		t.Fatalf("%v, %+v", err, list)
	}
}

func TestPlayEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Play(ctx, Options{Rounds: 1000}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func BenchmarkRoundOfOurs(b *testing.B) {
	r := Rules()[8]
	for b.Loop() {
		r.Play(plain(30, dead()))
	}
}
