package drill

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// start is when the made-up drills of these tests begin.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// note is a delivery: at the receiver after so many seconds, of an incident of a check that began, and was decided, after so many.
func note(received float64, tr meshv1.Notification_Transition, check, incident string, began, decided float64) Delivery {
	return Delivery{At: at(received), Key: incident + "." + tr.String(), Note: &meshv1.Notification{
		Incident: "incidents/" + incident, Transition: tr, Check: "checks/" + check,
		StartTime: timestamppb.New(at(began)), DecideTime: timestamppb.New(at(decided)),
	}}
}

const (
	opened   = meshv1.Notification_OPENED
	resolved = meshv1.Notification_RESOLVED
)

// outage is one of a check, between two times; up 0: it goes on.
func outage(check string, down, up float64) Outage {
	o := Outage{Check: check, Down: at(down), Bound: 2 * time.Second}
	if up != 0 {
		o.Up = at(up)
	}
	return o
}

// told is the record of two outages that were announced as they should be.
func told() []Delivery {
	return []Delivery{
		note(11.2, opened, "shop", "1", 10.5, 11.1), note(20.9, resolved, "shop", "1", 10.5, 20.8),
		note(41.0, opened, "shop", "2", 40.2, 40.9), note(52.0, resolved, "shop", "2", 40.2, 51.9),
	}
}

func truth() []Outage { return []Outage{outage("shop", 10, 20), outage("shop", 40, 51)} }

// counts is the tally in the order of its fields.
func counts(t Tally) string {
	return fmt.Sprintf("lost %d doubled %d false %d late %d misdated %d missing %d twice %d early %d malformed %d repeats %d", len(t.Lost), len(t.Doubled), len(t.False), len(t.Late), len(t.Misdated),
		len(t.ResolvedMissing), len(t.ResolvedDoubled), len(t.ResolvedEarly), len(t.Malformed), len(t.Repeats))
}

const nothing = "lost 0 doubled 0 false 0 late 0 misdated 0 missing 0 twice 0 early 0 malformed 0 repeats 0"

// Each case changes a record that is right, or its truth, in one way; the tally must notice that, and nothing else.
func TestEveryFaultOfAnAnnouncementIsCounted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(truth *[]Outage, record *[]Delivery)
		want   string
	}{
		{"as it should be", func(*[]Outage, *[]Delivery) {}, ""},
		{"an alert is lost, and with it its end", func(_ *[]Outage, r *[]Delivery) { *r = (*r)[:2] }, "lost 1"},
		{"an alert is lost, and its end is announced", func(_ *[]Outage, r *[]Delivery) { *r = append((*r)[:2:2], (*r)[3]) }, "lost 1 false 1"},
		{"an outage has two incidents", func(_ *[]Outage, r *[]Delivery) {
			*r = append(*r, note(12, opened, "shop", "1b", 10.6, 11.9), note(21, resolved, "shop", "1b", 10.6, 20.9))
		}, "doubled 1"},
		{"an incident is announced with two keys", func(_ *[]Outage, r *[]Delivery) {
			again := note(12, opened, "shop", "1", 10.5, 11.1)
			again.Key = "another"
			*r = append(*r, again)
		}, "doubled 1"},
		{"what was cut off, perhaps, is up again for some before the cut ends", func(o *[]Outage, r *[]Delivery) {
			(*o)[0].Fault, (*o)[0].Bound = Unreachable, Optional
			(*r)[1].Note.DecideTime = timestamppb.New(at(15))
		}, ""},
		{"what was cut off for sure must not be up again before", func(o *[]Outage, r *[]Delivery) {
			(*o)[0].Fault = Unreachable
			(*r)[1].Note.DecideTime = timestamppb.New(at(15))
		}, "early 1"},
		{"the same key comes again", func(_ *[]Outage, r *[]Delivery) { *r = append(*r, note(12, opened, "shop", "1", 10.5, 11.1)) }, "repeats 1"},
		{"an alert without an outage", func(_ *[]Outage, r *[]Delivery) { *r = append(*r, note(30, opened, "shop", "3", 29, 29.9)) }, "false 1"},
		{"an alert of another check", func(_ *[]Outage, r *[]Delivery) { *r = append(*r, note(12, opened, "mail", "3", 11, 11.9)) }, "false 1"},
		{"an alert is late", func(_ *[]Outage, r *[]Delivery) { (*r)[0].At = at(12.5) }, "late 1"},
		{"an alert says that it began before it did", func(_ *[]Outage, r *[]Delivery) { (*r)[2] = note(41, opened, "shop", "2", 12, 40.9) }, "misdated 1"},
		{"an alert of an outage that is over long since", func(_ *[]Outage, r *[]Delivery) { *r = append(*r, note(32, opened, "shop", "3", 25, 31.9)) }, "false 1"},
		{"an alert decided before the outage", func(_ *[]Outage, r *[]Delivery) { *r = append(*r, note(9, opened, "shop", "3", 8, 8.9)) }, "false 1"},
		{"the end is not announced", func(_ *[]Outage, r *[]Delivery) { *r = (*r)[:3] }, "missing 1"},
		{"the outage goes on, and no end is announced", func(o *[]Outage, r *[]Delivery) { (*o)[1].Up, *r = time.Time{}, (*r)[:3] }, ""},
		{"the outage goes on, and an end is announced", func(o *[]Outage, _ *[]Delivery) { (*o)[1].Up = time.Time{} }, "early 1"},
		{"the end is announced with two keys", func(_ *[]Outage, r *[]Delivery) {
			again := note(53, resolved, "shop", "2", 40.2, 51.9)
			again.Key = "another"
			*r = append(*r, again)
		}, "twice 1"},
		{"the end is decided before it", func(_ *[]Outage, r *[]Delivery) { (*r)[3] = note(49, resolved, "shop", "2", 40.2, 48.9) }, "early 1"},
		{"a note without a key", func(_ *[]Outage, r *[]Delivery) {
			*r = append(*r, Delivery{At: at(60), Fault: "there is no Idempotency-Key"})
		}, "malformed 1"},
		{"an outage that need not be announced is not", func(o *[]Outage, r *[]Delivery) { (*o)[1].Bound, *r = Optional, (*r)[:2] }, ""},
		{"an outage that need not be announced is, late", func(o *[]Outage, r *[]Delivery) { (*o)[1].Bound = Optional; (*r)[2].At = at(50) }, ""},
		{"an outage that nobody may hear of is not announced", func(o *[]Outage, r *[]Delivery) { (*o)[1].Bound, *r = Silent, (*r)[:2] }, ""},
		{"an outage that nobody may hear of is announced", func(o *[]Outage, _ *[]Delivery) { (*o)[1].Bound = Silent }, "false 2"},
		{"an ESCALATED that nothing calls for", func(_ *[]Outage, r *[]Delivery) {
			*r = append(*r, note(45, meshv1.Notification_ESCALATED, "shop", "2", 40.2, 44.9))
		}, "false 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o, r := truth(), told()
			c.change(&o, &r)
			want := nothing
			for words := strings.Fields(c.want); len(words) > 0; words = words[2:] {
				want = strings.Replace(want, words[0]+" 0", words[0]+" "+words[1], 1)
			}
			if got := counts(Judge(o, r)); got != want {
				t.Errorf("counted\n  %s, want\n  %s", got, want)
			}
		})
	}
}

func TestTimesAreFromTheFailureToTheReceiver(t *testing.T) {
	t.Parallel()
	got := Judge(truth(), told())
	if fmt.Sprint(got.ToAlert, got.ToResolved) != "[1.2s 1s] [900ms 1s]" {
		t.Errorf("to alert %v, to resolved %v; want [1.2s 1s] and [900ms 1s]", got.ToAlert, got.ToResolved)
	}
}

// A figure that does not hold makes the report fail; one for information does not.
func TestFiguresAreHeldAgainstTheirBounds(t *testing.T) {
	t.Parallel()
	seconds := func(v ...float64) (out []time.Duration) {
		for _, x := range v {
			out = append(out, time.Duration(x*float64(time.Second)))
		}
		return out
	}
	r := &Run{samples: map[string][]float64{}}
	r.AtMost("alerts_lost", "alerts", 1, 0, "", "one")
	r.AtLeast("writes_refused", "writes", 0, 1, "")
	r.Inform("notes_repeated", "notes", 7, "")
	r.Distribution("kill_to_decision", seconds(0.5, 0.4, 2.5, 0.6), Bounds{P50: 800 * time.Millisecond, P99: 2 * time.Second}, "")
	r.Distribution("nothing", nil, Bounds{}, "")
	failed := map[string]bool{}
	report := &Report{Figures: r.figures}
	for _, f := range report.Failed() {
		failed[f.Name] = true
	}
	for name, want := range map[string]bool{
		"alerts_lost": true, "writes_refused": true, "notes_repeated": false, "kill_to_decision_seconds_p50": false, "kill_to_decision_seconds_p99": true,
		"kill_to_decision_seconds_max": false, "nothing_seconds_samples": true,
	} {
		if failed[name] != want || report.Figure(name) == nil {
			t.Errorf("%s failed: %t, want %t (%+v)", name, failed[name], want, report.Figure(name))
		}
	}
	if f := report.Figure("kill_to_decision_seconds_p50"); f.Value != 0.5 || f.Samples != 4 {
		t.Errorf("p50 of 0.4, 0.5, 0.6 and 2.5 s is %v of %d samples, want 0.5 of 4", f.Value, f.Samples)
	}
}

func TestGapsAreIntervalsWithoutASample(t *testing.T) {
	t.Parallel()
	var samples []time.Time
	for i := range 20 {
		if i != 7 && i != 12 && i != 13 {
			samples = append(samples, at(float64(2*i)+0.3+0.1*float64(i%3))) // some late
		}
	}
	got := Gaps(samples, at(0), at(40), 2*time.Second)
	if len(got) != 2 || got[0].Missing != 1 || got[1].Missing != 2 {
		t.Errorf("gaps %v, want one of 1 and one of 2 results", got)
	}
	if got := Gaps(nil, at(0), at(40), 2*time.Second); len(got) != 1 || got[0].Missing < 18 {
		t.Errorf("without any sample in 20 intervals the gaps are %v", got)
	}
	r := &Run{Options: Options{Interval: 2 * time.Second}}
	r.Absent("a-1", at(24), at(27))
	if rest := r.excused("a-1", got); len(rest) != 1 || rest[0].Missing != 1 {
		t.Errorf("a prober that was away from 24 s to 27 s still owes %v, want the one result before", rest)
	}
	if rest := r.excused("b-1", got); len(rest) != 2 {
		t.Errorf("another prober's absence excuses: %v", rest)
	}
}

func TestMetricLinesAreReadByNameAndLabels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line string
		want float64
		ok   bool
	}{
		{`probemesh_store_fenced_total{otel_scope_name="x"} 3`, 3, true},
		{`probemesh_store_fenced_total 2`, 2, true},
		{`probemesh_store_fenced_total_created 1.7e9`, 0, false},
		{`# HELP probemesh_store_fenced_total Writes`, 0, false},
	} {
		if v, ok := sample(c.line, "probemesh_store_fenced_total", nil); v != c.want || ok != c.ok {
			t.Errorf("%s: %v, %t", c.line, v, ok)
		}
	}
	if _, ok := sample(`x{outcome="ok"} 3`, "x", []string{`outcome="fenced"`}); ok {
		t.Error("another label's series is counted")
	}
}

// A history must not say that a target answered which was down; one whose probe was under way when the target changed may say either.
func TestResultsAreHeldAgainstTheTruth(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	for _, c := range []struct {
		at   float64
		ok   bool
		want saying
	}{
		{5, true, consistent}, {5, false, contrary}, {9.5, false, consistent}, {9.5, true, consistent}, {12, false, consistent}, {12, true, impossible},
		{19.5, true, consistent}, {19.5, false, consistent}, {20.5, false, contrary}, {20.5, true, consistent}, {60, true, consistent},
	} {
		if got := says(truth(), "shop", Sample{At: at(c.at), OK: c.ok}, timeout); got != c.want {
			t.Errorf("a result of %v s, ok %t: %v, want %v", c.at, c.ok, got, c.want)
		}
	}
}
