package incident

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/probemesh/probemesh/scheduler/verdict"
)

var rewrite = flag.Bool("rewrite", false, "write the expected output of the goldens anew")

// The whole transition table as text: every combination of what is open, what is counted, and the evidence.
func TestTransitionTableIsAsWritten(t *testing.T) {
	var b strings.Builder
	b.WriteString("# What becomes of a check: every combination of the open incident, the count of the votes, and the evidence.\n# recovered: as strong evidence as opened it says that it is over. confirming: others are being asked.\n# alerts: the check asks for an incident when it is DEGRADED. Before, it was shown as UP, or as what is open.\n\n")
	fmt.Fprintf(&b, "%-9s %-9s %-10s %-11s %-7s    %-9s %-10s %s\n", "open", "votes", "evidence", "", "alerts", "shown", "wish", "why")
	for _, open := range []verdict.Verdict{verdict.Unknown, verdict.Degraded, verdict.Down} {
		for _, tally := range []verdict.Verdict{verdict.Unknown, verdict.Up, verdict.Degraded, verdict.Down} {
			for bits := range 8 {
				f := Facts{Tally: verdict.Tally{Verdict: tally}, Open: open, Recovered: bits&1 != 0, Confirming: bits&2 != 0, OnDegraded: bits&4 != 0, Shown: verdict.Up}
				if open != verdict.Unknown {
					f.Shown = open
				}
				if open == verdict.Unknown && f.Recovered {
					continue
				}
				d := Decide(f)
				mark := func(on bool, s string) string {
					if on {
						return s
					}
					return "-"
				}
				name := open.String()
				if open == verdict.Unknown {
					name = "-"
				}
				why := mark(d.Recovering, "recovering")
				if d.Held {
					why = "held"
				}
				fmt.Fprintf(&b, "%-9s %-9s %-10s %-11s %-7s -> %-9s %-10s %s\n", name, tally, mark(f.Recovered, "recovered"), mark(f.Confirming, "confirming"),
					mark(f.OnDegraded, "alerts"), d.Verdict, d.Wish, why)
			}
		}
	}
	const file = "testdata/transitions.txt"
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
		t.Errorf("the table has changed:\n%s", got)
	}
}

func genFacts(t *rapid.T) Facts {
	return Facts{
		Tally: verdict.Tally{Verdict: verdict.Verdict(rapid.IntRange(0, 3).Draw(t, "tally"))}, Open: []verdict.Verdict{0, verdict.Degraded, verdict.Down}[rapid.IntRange(0, 2).Draw(t, "open")],
		Recovered: rapid.Bool().Draw(t, "recovered"), Confirming: rapid.Bool().Draw(t, "confirming"), OnDegraded: rapid.Bool().Draw(t, "alerts"),
		Shown: verdict.Verdict(rapid.IntRange(0, 4).Draw(t, "shown")), Waiting: rapid.Bool().Draw(t, "waiting"),
	}
}

func TestUnknownNeitherOpensNorCloses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := genFacts(t)
		f.Tally.Verdict = verdict.Unknown
		if d := Decide(f); d.Wish != Nothing || d.Verdict != verdict.Unknown {
			t.Fatalf("%+v", d)
		}
	})
}

func TestNothingOpensTwiceAndNothingClosesThatIsNotOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := genFacts(t)
		d := Decide(f)
		switch {
		case d.Wish == Open && f.Open != verdict.Unknown, d.Wish == Resolve && f.Open == verdict.Unknown, d.Wish == Escalate && f.Open != verdict.Degraded:
			t.Fatalf("%s while %s is open", d.Wish, f.Open)
		case d.Wish == Resolve && !f.Recovered:
			t.Fatal("closed without the evidence")
		case d.Wish == Open && f.Tally.Verdict == verdict.Down && f.Waiting && f.Shown != verdict.Down:
			t.Fatal("opened before those who were asked had their moment")
		case d.Wish == Open && f.Tally.Verdict == verdict.Degraded && (!f.OnDegraded || f.Confirming && f.Shown != verdict.Down):
			t.Fatal("opened for DEGRADED although nobody asked for it, or before it was confirmed")
		}
	})
}

func TestDampingForgivesTwoIncidentsAndThenHoldsLonger(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var d Damping
	var last time.Duration
	for i := 1; i <= 40; i++ {
		d = d.Add(now)
		hold := d.Hold(time.Minute, now)
		if i <= forgiven && hold != 0 {
			t.Fatalf("incident %d holds for %s", i, hold)
		}
		if hold < last {
			t.Fatalf("incident %d holds for %s, the one before for %s", i, hold, last)
		}
		last = hold
	}
	if last != 18*time.Minute {
		t.Fatalf("the hold grew to %s, the ceiling is 18 intervals", last)
	}
	if hold := d.Hold(time.Minute, now.Add(time.Hour)); hold > 0 {
		t.Fatalf("after an hour it still holds for %s", hold)
	}
	if half := d.At(now.Add(halfLife)); half < 9.99 || half > 10.01 {
		t.Fatalf("penalty %g after a half-life, want 10", half)
	}
}

// One message when it begins and one when it is steady: in between each answer would close the incident, and the next failure open another.
func TestAnIncidentStaysOpenAsLongAsTheCheckFailsIntermittently(t *testing.T) {
	again := verdict.Tally{Verdict: verdict.Degraded, Reason: verdict.Intermittent}
	for name, c := range map[string]struct {
		facts Facts
		want  Decision
	}{
		"it answers, not yet for long":     {Facts{Tally: again, Open: verdict.Down, Shown: verdict.Down}, Decision{Verdict: verdict.Down, Recovering: true}},
		"it answers for long enough":       {Facts{Tally: again, Open: verdict.Down, Shown: verdict.Down, Recovered: true}, Decision{Verdict: verdict.Degraded}},
		"one fails again":                  {Facts{Tally: again, Open: verdict.Down, Shown: verdict.Degraded, Confirming: true}, Decision{Verdict: verdict.Degraded}},
		"it is steady":                     {Facts{Tally: verdict.Tally{Verdict: verdict.Up}, Open: verdict.Down, Shown: verdict.Degraded, Recovered: true}, Decision{Verdict: verdict.Up, Wish: Resolve}},
		"nothing open, nobody asks for it": {Facts{Tally: again, Shown: verdict.Up}, Decision{Verdict: verdict.Degraded}},
		"nothing open, others are asked":   {Facts{Tally: again, Shown: verdict.Up, OnDegraded: true, Confirming: true}, Decision{Verdict: verdict.Degraded}},
		"nothing open, who asks is told":   {Facts{Tally: again, Shown: verdict.Degraded, OnDegraded: true}, Decision{Verdict: verdict.Degraded, Wish: Open}},
	} {
		if got := Decide(c.facts); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
