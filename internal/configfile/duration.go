package configfile

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var daysPrefix = regexp.MustCompile(`^(-?)([0-9]+(?:\.[0-9]+)?)d(.*)$`)

// ParseDuration reads a duration as people and protojson write it: `30s`, `1m30s`, `500ms`, `1.5h`, `7d`, `1d12h`. The units are d, h, m, s,
// ms, us and ns; a number without a unit is refused. The error says what would be right.
func ParseDuration(s string) (time.Duration, error) {
	if _, err := strconv.ParseFloat(s, 64); err == nil && s != "0" {
		return 0, fmt.Errorf("the duration %q has no unit; write %ss for seconds", s, s)
	}
	rest, days := s, 0.0
	if m := daysPrefix.FindStringSubmatch(s); m != nil {
		days, _ = strconv.ParseFloat(m[2], 64)
		rest = m[1] + m[3]
		if m[3] == "" {
			rest = "0"
		}
		if m[1] == "-" {
			days = -days
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write it like 30s, 1m30s, 500ms or 2h", s)
	}
	total := float64(d) + days*float64(24*time.Hour)
	if math.Abs(total) >= math.MaxInt64 {
		return 0, fmt.Errorf("the duration %q is longer than 290 years", s)
	}
	return d + time.Duration(days*float64(24*time.Hour)), nil
}

// FormatDuration is the shortest text that [ParseDuration] reads as d: `30s`, `1m30s`, `24h`.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
