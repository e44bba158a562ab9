package blackbox

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
)

// celCost is what one evaluation of an expression may cost, in CEL cost units: some tens of milliseconds of a core.
const celCost = 1_000_000

// Regexp is a regular expression of the file, compiled. The zero value is none.
type Regexp struct{ *regexp.Regexp }

// UnmarshalYAML compiles the expression.
func (r *Regexp) UnmarshalYAML(unmarshal func(any) error) error {
	var s string
	if err := unmarshal(&s); err != nil {
		return err
	}
	compiled, err := regexp.Compile(s)
	if err != nil {
		return notRegexp(s, err)
	}
	r.Regexp = compiled
	return nil
}

// MarshalYAML gives the expression as it was written.
func (r Regexp) MarshalYAML() (any, error) {
	if r.Regexp == nil {
		return "", nil
	}
	return r.String(), nil
}

// IsZero tells whether there is none.
func (r Regexp) IsZero() bool { return r.Regexp == nil }

// Pattern is a regular expression that is looked at when it is needed. One that is wrong fails the probe then.
type Pattern struct {
	text     string
	compiled *regexp.Regexp
	fault    error // why compiled is nil
}

// UnmarshalYAML compiles the expression, and keeps what is wrong with it.
func (p *Pattern) UnmarshalYAML(unmarshal func(any) error) error {
	if err := unmarshal(&p.text); err != nil {
		return err
	}
	var err error
	if p.compiled, err = regexp.Compile(p.text); err != nil {
		p.fault = notRegexp(p.text, err)
	}
	return nil
}

// MarshalYAML gives the expression as it was written.
func (p Pattern) MarshalYAML() (any, error) { return p.text, nil }

func notRegexp(text string, err error) error {
	return fmt.Errorf("%q is not a regular expression: %s", text, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
}

// CEL is an expression over `body`, the JSON object that a target answers.
type CEL struct {
	text    string
	program cel.Program
}

// UnmarshalYAML compiles the expression.
func (c *CEL) UnmarshalYAML(unmarshal func(any) error) error {
	if err := unmarshal(&c.text); err != nil {
		return err
	}
	env, err := cel.NewEnv(cel.Variable("body", cel.MapType(cel.StringType, cel.DynType)))
	if err != nil {
		return err
	}
	ast, issues := env.Compile(c.text)
	if issues.Err() != nil {
		return fmt.Errorf("%q is not an expression in CEL over body: %w", c.text, issues.Err())
	}
	c.program, err = env.Program(ast, cel.CostLimit(celCost), cel.InterruptCheckFrequency(100))
	return err
}

// MarshalYAML gives the expression as it was written.
func (c CEL) MarshalYAML() (any, error) { return c.text, nil }

// Size is a number of bytes, written as 512, 10KB, 10KiB, 1.5MB or 1MB512KB, where each prefix, up to E, is a power of 1024.
type Size int64

// sizePart is a number and its unit.
var sizePart = regexp.MustCompile(`^ *([0-9]+\.?[0-9]*|\.[0-9]+) *(?:([KMGTPE])i?)?(B?)`)

// UnmarshalYAML reads the number and its unit.
func (s *Size) UnmarshalYAML(unmarshal func(any) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return err
	}
	total, rest := 0.0, strings.TrimPrefix(text, "+")
	for first := true; first || rest != ""; first = false {
		m := sizePart.FindStringSubmatch(rest)
		if m == nil {
			return fmt.Errorf("%q is not a number of bytes, such as 512B, 10KB or 1MiB", text)
		}
		number, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return fmt.Errorf("%q is not a number of bytes: %w", text, err)
		}
		if m[2] != "" {
			number *= math.Pow(1024, float64(strings.Index("KMGTPE", m[2])+1))
		}
		total, rest = total+number, rest[len(m[0]):]
		if rest != "" && m[2] == "" && m[3] == "" {
			return fmt.Errorf("%q is not a number of bytes: %s has no unit before what follows it", text, m[1])
		}
	}
	if total > math.MaxInt64/2 {
		return errors.New("a limit of bytes must be below 4 EiB")
	}
	*s = Size(total)
	return nil
}
