package referee

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Table writes what came out for people: a line a rule, then what fools each.
func Table(w io.Writer, lines []Line) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RULE\tDETECTS, P50\tP99\tFALSE ALERTS, PER MILLION CHECK-DAYS\tMISSED\tPROBES A DAY")
	for _, l := range lines {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.2f %%\t%.0f\n", l.Rule.Name, seconds(l.P50), seconds(l.P99), l.falseText(), 100*l.MissedShare, l.ProbesPerDay)
	}
	fmt.Fprintln(t)
	classes := Classes()
	head := []string{"FALSE ALERTS A ROUND, BY WHAT FAILS"}
	for _, c := range classes {
		head = append(head, c.Name)
	}
	fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, l := range lines {
		row := []string{l.Rule.Name}
		for i := range classes {
			s := &l.ByClass[i]
			cell := "-"
			if s.False > 0 {
				cell = fmt.Sprintf("%.2f", float64(s.False)/float64(s.Rounds))
			}
			row = append(row, cell)
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

func (l *Line) falseText() string {
	if l.FalsePerMillion == 0 {
		return "none seen"
	}
	return fmt.Sprintf("%.1f +- %.1f", l.FalsePerMillion, l.Error)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// report is the form for machines.
type report struct {
	Rule            string        `json:"rule"`
	Note            string        `json:"note"`
	Ours            bool          `json:"ours"`
	P50             float64       `json:"detection_p50_seconds"`
	P99             float64       `json:"detection_p99_seconds"`
	FalsePerMillion float64       `json:"false_alerts_per_million_check_days"`
	Error           float64       `json:"false_alerts_error"`
	MissedShare     float64       `json:"missed_share"`
	ProbesPerDay    float64       `json:"probes_per_check_day"`
	Classes         []classReport `json:"classes"`
}

type classReport struct {
	Class       string `json:"class"`
	Rounds      int    `json:"rounds"`
	False       int    `json:"false_alerts"`
	FalseRounds int    `json:"rounds_with_false_alerts"`
	Partial     int    `json:"partial_alerts"`
	Detected    int    `json:"detected"`
	Missed      int    `json:"missed"`
}

// JSON writes what came out for machines: a list with one object a rule.
func JSON(w io.Writer, lines []Line) error {
	list := make([]report, 0, len(lines))
	for _, l := range lines {
		r := report{
			Rule: l.Rule.Name, Note: l.Rule.Note, Ours: l.Rule.Ours, P50: l.P50.Seconds(), P99: l.P99.Seconds(), FalsePerMillion: l.FalsePerMillion, Error: l.Error,
			MissedShare: l.MissedShare, ProbesPerDay: l.ProbesPerDay,
		}
		for i, c := range Classes() {
			s := &l.ByClass[i]
			r.Classes = append(r.Classes, classReport{c.Name, s.Rounds, s.False, s.FalseRounds, s.Partial, len(s.Detections), s.Missed})
		}
		list = append(list, r)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(list)
}

// Challenge is a rule that is better than ours in some way.
type Challenge struct {
	// Rule is it, Ours our best at no higher cost.
	Rule, Ours string
	// How it is better, in words.
	How string
}

// Dominated compares every other rule with ours at equal or lower cost (a twentieth of tolerance, for confirmations): it lists the rules that are both faster, in the
// median and by more than a tenth, and less often wrong than each of ours.
func Dominated(lines []Line) (challenges []Challenge) {
	for _, l := range lines {
		if l.Rule.Ours {
			continue
		}
		affordable := slices.DeleteFunc(slices.Clone(lines), func(o Line) bool { return !o.Rule.Ours || o.ProbesPerDay > 1.05*l.ProbesPerDay })
		if len(affordable) == 0 {
			challenges = append(challenges, Challenge{Rule: l.Rule.Name, How: fmt.Sprintf("costs %.0f probes a day, less than any of ours", l.ProbesPerDay)})
			continue
		}
		beaten := slices.ContainsFunc(affordable, func(o Line) bool {
			return o.P50 <= l.P50 || o.FalsePerMillion < l.FalsePerMillion || o.FalsePerMillion == 0
		})
		if !beaten {
			challenges = append(challenges, Challenge{Rule: l.Rule.Name, Ours: affordable[0].Rule.Name, How: "is both faster and less often wrong"})
		}
	}
	return challenges
}
