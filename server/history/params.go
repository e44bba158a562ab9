package history

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// Times beyond these would overflow in milliseconds. Clients send them to mean "all".
const (
	earliest = math.MinInt64/1000 + 62135596801
	latest   = math.MaxInt64/1000 - 62135596801
)

// parameterError says which parameter is wrong.
func parameterError(name, value string, err error) error {
	return fmt.Errorf("invalid parameter %q (%.200q): %w", name, value, err)
}

// readTime reads a time as Prometheus takes it: Unix seconds with fractions, or RFC 3339.
func readTime(s string) (time.Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) {
			return time.Time{}, errors.New("not a number of seconds")
		}
		whole, fraction := math.Modf(min(max(f, earliest), latest))
		return time.Unix(int64(whole), int64(math.Round(fraction*1000))*int64(time.Millisecond)).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	return time.Time{}, errors.New("not a time; use Unix seconds such as 1767225600.5 or RFC 3339 such as 2026-01-01T00:00:00Z")
}

// readDuration reads a duration as Prometheus takes it: seconds with fractions, or with units such as 1h30m.
func readDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if ns := f * float64(time.Second); math.IsNaN(f) || ns > math.MaxInt64 || ns < math.MinInt64 {
			return 0, errors.New("it is too long")
		}
		return time.Duration(f * float64(time.Second)), nil
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, errors.New("not a duration; use seconds such as 15 or units such as 1m30s")
}

func timeParam(r *http.Request, name string, unset time.Time) (time.Time, error) {
	s := r.Form.Get(name)
	if s == "" {
		return unset, nil
	}
	t, err := readTime(s)
	if err != nil {
		return t, parameterError(name, s, err)
	}
	return t, nil
}

func durationParam(r *http.Request, name string, unset time.Duration) (time.Duration, error) {
	s := r.Form.Get(name)
	if s == "" {
		return unset, nil
	}
	d, err := readDuration(s)
	if err == nil && d <= 0 {
		err = errors.New("it must be longer than 0")
	}
	if err != nil {
		return d, parameterError(name, s, err)
	}
	return d, nil
}

// limitParam is how many series the client wants at most; 0 or unset means as many as we give.
func limitParam(r *http.Request) (int, error) {
	s := r.Form.Get("limit")
	if s == "" {
		return maxSeries, nil
	}
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = errors.New("it is below 0")
	}
	if err != nil {
		return 0, parameterError("limit", s, err)
	}
	if n == 0 {
		return maxSeries, nil
	}
	return min(n, maxSeries), nil
}

// queryOptions are those of PromQL that a client may set.
func queryOptions(r *http.Request) (promql.QueryOpts, error) {
	lookback, err := durationParam(r, "lookback_delta", 0)
	if err != nil {
		return nil, err
	}
	return promql.NewPrometheusQueryOpts(false, lookback), nil
}

// rangeParams are those of query_range.
func rangeParams(r *http.Request) (start, end time.Time, step time.Duration, err error) {
	for _, name := range []string{"start", "end", "step"} {
		if r.Form.Get(name) == "" {
			return start, end, 0, parameterError(name, "", errors.New("it is missing"))
		}
	}
	if start, err = timeParam(r, "start", start); err != nil {
		return start, end, 0, err
	}
	if end, err = timeParam(r, "end", end); err != nil {
		return start, end, 0, err
	}
	if end.Before(start) {
		return start, end, 0, parameterError("end", r.Form.Get("end"), errors.New("it is before the start"))
	}
	if step, err = durationParam(r, "step", 0); err != nil {
		return start, end, 0, err
	}
	if end.Sub(start)/step > maxPoints {
		return start, end, 0, parameterError("step", r.Form.Get("step"), fmt.Errorf("it would give more than %d points a series; use a longer step", maxPoints))
	}
	return start, end, step, nil
}

// selection is which series a request is about; times are Unix milliseconds.
type selection struct {
	first, last int64
	matchers    [][]*labels.Matcher
	limit       int
}

// readSelection reads start, end, match[] and limit. Without a start or end, all of the history is meant.
func readSelection(s *store, r *http.Request, needed bool) (selection, error) {
	start, err := timeParam(r, "start", time.Unix(0, 0))
	if err != nil {
		return selection{}, err
	}
	end, err := timeParam(r, "end", time.Now().Add(futureLimit))
	if err != nil {
		return selection{}, err
	}
	if end.Before(start) {
		return selection{}, parameterError("end", r.Form.Get("end"), errors.New("it is before the start"))
	}
	out := selection{first: start.UnixMilli(), last: end.UnixMilli()}
	if out.limit, err = limitParam(r); err != nil {
		return out, err
	}
	if needed && len(r.Form["match[]"]) == 0 {
		return out, parameterError("match[]", "", errors.New("it is missing; give at least one selector such as probe_success"))
	}
	for _, m := range r.Form["match[]"] {
		matchers, err := s.parser.ParseMetricSelector(m)
		if err == nil && !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			err = errors.New("it would select everything; give at least one label a value")
		}
		if err != nil {
			return out, parameterError("match[]", m, err)
		}
		out.matchers = append(out.matchers, matchers)
	}
	return out, nil
}
