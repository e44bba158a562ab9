package drill

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Figure is one thing that a drill has counted or measured, and what it is held against.
type Figure struct {
	// Name is stable, snake_case, and ends with the unit where there is one: "alerts_lost", "kill_to_decision_seconds_p99".
	Name string `json:"name"`
	// Value is the figure; seconds for times.
	Value float64 `json:"value"`
	// Unit is "seconds", "ratio" or what is counted: "alerts", "notes", "results", "writes".
	Unit string `json:"unit"`
	// Relation is "at_most" or "at_least", and Bound what it relates to. Empty and null: for information only.
	Relation string   `json:"relation"`
	Bound    *float64 `json:"bound"`
	// Passed is whether the relation holds; true for what is for information only.
	Passed bool `json:"passed"`
	// Samples is how many measurements a time of a distribution rests on, else 0.
	Samples int `json:"samples"`
	// Why says where the bound comes from.
	Why string `json:"why"`
	// Details are the cases that a count counts, one sentence each, at most 20.
	Details []string `json:"details"`
}

const (
	atMost  = "at_most"
	atLeast = "at_least"
)

// maxDetails bounds what a figure tells of its cases; the rest is counted.
const maxDetails = 20

func newFigure(name, unit string, value float64, why string, details []string) Figure {
	if len(details) > maxDetails {
		more := len(details) - maxDetails
		details = append(slices.Clone(details[:maxDetails]), fmt.Sprintf("... and %d more", more))
	}
	if details == nil {
		details = []string{}
	}
	return Figure{Name: name, Value: value, Unit: unit, Passed: true, Why: why, Details: details}
}

func (f Figure) held(relation string, bound float64) Figure {
	f.Relation, f.Bound = relation, &bound
	f.Passed = !math.IsNaN(f.Value) && (relation == atMost && f.Value <= bound || relation == atLeast && f.Value >= bound)
	return f
}

// text is the value for people.
func (f Figure) text(v float64) string {
	switch {
	case math.IsNaN(v):
		return "none"
	case f.Unit == "seconds":
		return strconv.FormatFloat(v, 'f', 3, 64) + " s"
	case v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// ValueText is the value as people read it: "0", "0.412 s".
func (f Figure) ValueText() string { return f.text(f.Value) }

// BoundText is the bound as people read it, empty without one: "at most 2.000 s".
func (f Figure) BoundText() string {
	switch {
	case f.Bound == nil:
		return ""
	case f.Relation == atLeast:
		return "at least " + f.text(*f.Bound)
	case *f.Bound == 0:
		return "0"
	}
	return "at most " + f.text(*f.Bound)
}

// Bounds are what a distribution is held against; 0 holds it against nothing.
type Bounds struct{ P50, P90, P99, Max time.Duration }

// distribution gives p50, p90, p99 and max of times as figures. Without samples it gives one figure that does not pass: nothing was measured.
func distribution(name string, samples []time.Duration, b Bounds, why string) []Figure {
	if len(samples) == 0 {
		f := newFigure(name+"_seconds_samples", "samples", 0, "nothing was measured", nil)
		return []Figure{f.held(atLeast, 1)}
	}
	sorted := slices.Sorted(slices.Values(samples))
	var out []Figure
	for _, q := range []struct {
		suffix string
		share  float64
		bound  time.Duration
	}{{"p50", 0.5, b.P50}, {"p90", 0.9, b.P90}, {"p99", 0.99, b.P99}, {"max", 1, b.Max}} {
		f := newFigure(name+"_seconds_"+q.suffix, "seconds", Quantile(sorted, q.share).Seconds(), why, nil)
		f.Samples = len(sorted)
		if q.bound > 0 {
			f = f.held(atMost, q.bound.Seconds())
		} else {
			f.Why = ""
		}
		out = append(out, f)
	}
	return out
}

// Quantile is the nearest-rank quantile of sorted times: the smallest that at least the share q of them does not exceed. It panics without any.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
