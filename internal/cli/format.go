package cli

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/configfile"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// age is how long ago t was, in at most two units: `42s`, `3m12s`, `5h3m`, `12d4h`. An unset time is `-`; one in the future is `0s`.
func age(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return "-"
	}
	return span(now.Sub(t.AsTime()))
}

// span is a stretch of time as ages are written.
func span(d time.Duration) string {
	d = max(0, d).Truncate(time.Second)
	two := func(big, small time.Duration, units string) string {
		s := fmt.Sprintf("%d%c", d/big, units[0])
		if rest := d % big / small; rest > 0 {
			s += fmt.Sprintf("%d%c", rest, units[1])
		}
		return s
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return two(time.Minute, time.Second, "ms")
	case d < 24*time.Hour:
		return two(time.Hour, time.Minute, "hm")
	}
	return two(24*time.Hour, time.Hour, "dh")
}

// brief is a measured duration with three digits: `42.1ms`, `1.23s`, `870µs`. Unset is `-`.
func brief(d *durationpb.Duration) string {
	if d == nil {
		return "-"
	}
	return briefly(d.AsDuration())
}

func briefly(d time.Duration) string {
	digits := func(unit time.Duration) time.Duration {
		switch v := d.Abs(); {
		case v >= 100*unit:
			return unit
		case v >= 10*unit:
			return unit / 10
		}
		return unit / 100
	}
	switch v := d.Abs(); {
	case v >= time.Minute:
		return span(d)
	case v >= time.Second:
		return d.Round(digits(time.Second)).String()
	case v >= time.Millisecond:
		return d.Round(digits(time.Millisecond)).String()
	}
	return d.Round(time.Microsecond).String()
}

// wished is a configured duration: `30s`, `1m30s`. Unset is `-`.
func wished(d *durationpb.Duration) string {
	if d == nil {
		return "-"
	}
	return configfile.FormatDuration(d.AsDuration())
}

// list joins ids, `-` when there are none.
func list(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	ids := make([]string, len(names))
	for i, n := range names {
		ids[i] = spec.ID(n)
	}
	return strings.Join(ids, ",")
}

// pairs joins a map as `a=1,b=2`, by key; `-` when it is empty.
func pairs(m map[string]string) string {
	if len(m) == 0 {
		return "-"
	}
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

// orDash is the text, or `-` for none.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// statusCell is the verdict of a status, marked when nobody can act on it.
func statusCell(s *meshv1.CheckStatus) cell {
	c := verdictCell(s.GetVerdict())
	if s.GetUndecided() {
		c.text += " (undecided)"
	}
	return c
}

// verdictCell is a verdict in its colour.
func verdictCell(v meshv1.CheckStatus_Verdict) cell {
	switch v {
	case meshv1.CheckStatus_UP:
		return cell{"UP", green}
	case meshv1.CheckStatus_DOWN:
		return cell{"DOWN", red}
	case meshv1.CheckStatus_DEGRADED:
		return cell{"DEGRADED", yellow}
	case meshv1.CheckStatus_UNKNOWN:
		return cell{"UNKNOWN", magenta}
	case meshv1.CheckStatus_PAUSED:
		return cell{"PAUSED", dim}
	}
	return cell{"-", dim}
}

// outcomeCell is an outcome in its colour.
func outcomeCell(o meshv1.Result_Outcome) cell {
	switch o {
	case meshv1.Result_OK:
		return cell{"OK", green}
	case meshv1.Result_FAIL:
		return cell{"FAIL", red}
	case meshv1.Result_SLOW:
		return cell{"SLOW", yellow}
	case meshv1.Result_ERROR:
		return cell{"ERROR", magenta}
	}
	return cell{"-", dim}
}

// count is `1 check`, `2 checks`.
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
