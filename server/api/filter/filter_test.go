package filter

import (
	"strings"
	"testing"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func keys() []Key {
	return []Key{
		{Name: "labels."},
		{Name: "verdict", Values: []string{"UP", "DOWN"}},
		{Name: "receiver", Collection: "receivers"},
		{Name: "name", Collection: "checks"},
	}
}

func shop(key string) []string {
	switch key {
	case "labels.team":
		return []string{"pay ments"}
	case "labels.say":
		return []string{`a"b\c`}
	case "verdict":
		return []string{"UP"}
	case "receiver":
		return []string{"receivers/ops", "receivers/boss"}
	case "name":
		return []string{"checks/shop"}
	}
	return nil
}

func TestAFilterAcceptsWhatItSays(t *testing.T) {
	for _, c := range []struct {
		filter string
		want   bool
	}{
		{"", true},
		{"  \t\n", true},
		{`verdict = UP`, true},
		{`verdict=UP`, true},
		{`verdict!=UP`, false},
		{`verdict != "DOWN"`, true},
		{`labels.team = "pay ments"`, true},
		{`labels.team = "pay ments" AND verdict = UP`, true},
		{`labels.team = "pay ments" AND verdict = DOWN`, false},
		{`labels.say = "a\"b\\c"`, true},
		{`receiver = ops`, true},
		{`receiver = "receivers/boss"`, true},
		{`receiver != ops`, false},
		{`receiver != other`, true},
		{`name = shop AND receiver = ops AND receiver = boss`, true},
		{`name = checks/shop`, true},
		{`labels.none = ""`, true},
		{`labels.none != ""`, false},
		{`labels.none != x`, true},
		{`labels.team != ""`, true},
		{`labels.AND = ""`, true},
	} {
		f, err := Parse(c.filter, keys())
		if err != nil {
			t.Errorf("%q: %v", c.filter, err)
			continue
		}
		if got := f.Match(shop); got != c.want {
			t.Errorf("%q matches: %v, want %v", c.filter, got, c.want)
		}
	}
}

func TestAFaultyFilterIsExplained(t *testing.T) {
	const known = "the keys are labels.<key>, verdict, receiver, name"
	for filter, want := range map[string]string{
		`team = x`:                      `the key team is not known; ` + known,
		`verdit = UP`:                   `the key verdit is not known; ` + known + `; did you mean "verdict"?`,
		`verdict = DWON`:                `verdict cannot be "DWON"; it is one of UP, DOWN; did you mean "DOWN"?`,
		`labels. = x`:                   `the key labels. is not known; ` + known,
		`= x`:                           `at character 1 is "= x" where a key is expected; ` + known,
		`verdict`:                       `after the key verdict, = or != is expected`,
		`verdict ~ UP`:                  `after the key verdict, = or != is expected`,
		`verdict == UP`:                 `== at character 9 must be written =`,
		`verdict =`:                     `verdict is compared with nothing; write a value, or "" for the empty one`,
		`verdict = (UP)`:                `at character 11 is "(UP)" where the value of verdict is expected; put it into double quotes`,
		`verdict = up`:                  `verdict cannot be "up"; it is one of UP, DOWN; did you mean "UP"?`,
		`verdict = UP name = x`:         `at character 14 a term ends, and "name = x" follows; join terms by AND, and put values with blanks into double quotes`,
		`verdict = UP and name = x`:     `and at character 14 must be written AND`,
		`verdict = UP OR name = x`:      `OR at character 14 is not supported; terms can only be joined by AND, and negated by !=`,
		`verdict = UP AND`:              `nothing follows the last AND; write another term or leave it out`,
		`name = "x`:                     `the quote that opens at character 8 is never closed`,
		`name = "x\n"`:                  `at character 10 is a backslash that escapes nothing; in quotes write \" for a quote and \\ for a backslash`,
		`name = ` + long(LengthMax):     `the filter has 4103 bytes; at most 4096 are allowed`,
		`name = "x" "` + long(60) + `"`: `at character 12 a term ends, and "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxx..." follows; join terms by AND, and put values with blanks into double quotes`,
	} {
		_, err := Parse(filter, keys())
		if !fault.IsReason(err, meshv1.ErrorReason_FILTER_INVALID) {
			t.Errorf("%q: %v, want FILTER_INVALID", filter, err)
			continue
		}
		e, _ := fault.From(err)
		if got := strings.TrimPrefix(e.Message, "the filter is not valid: "); got != want {
			t.Errorf("%q:\n got %s\nwant %s", filter, got, want)
		}
	}
}

func TestExcludesFindsOnlyWhatCannotPass(t *testing.T) {
	for _, c := range []struct {
		filter, value string
		want          bool
	}{
		{"verdict = UP", "DOWN", true}, {"verdict = UP", "UP", false}, {"verdict != UP", "UP", true}, {"verdict != UP", "DOWN", false}, {"", "UP", false},
	} {
		f, err := Parse(c.filter, keys())
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Excludes("verdict", c.value); got != c.want {
			t.Errorf("%q excludes %s: %v, want %v", c.filter, c.value, got, c.want)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

// Whatever the text, reading it does not panic; and what is read means the same in its canonical form.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", `verdict = UP AND labels.team != "a b"`, `name="\\\""`, `receiver = x AND`, "labels.\xff = \xff", `a = "`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		one, err := Parse(text, keys())
		if err != nil {
			if !fault.IsReason(err, meshv1.ErrorReason_FILTER_INVALID) {
				t.Fatalf("error without the reason FILTER_INVALID: %v", err)
			}
			return
		}
		if len(one.String()) > LengthMax {
			return
		}
		two, err := Parse(one.String(), keys())
		if err != nil {
			t.Fatalf("%q reads, its canonical form %q does not: %v", text, one.String(), err)
		}
		if one.String() != two.String() || one.Match(shop) != two.Match(shop) {
			t.Fatalf("%q and its canonical form %q differ", text, one.String())
		}
	})
}
