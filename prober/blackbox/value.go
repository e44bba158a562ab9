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
		return fmt.Errorf("%q is not a regular expression: %s", s, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
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

// Size is a number of bytes, written as 512, 10KB, 10KiB or 1MB, where each prefix is a power of 1024.
type Size int64

// UnmarshalYAML reads the number and its unit.
func (s *Size) UnmarshalYAML(unmarshal func(any) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return err
	}
	digits := strings.TrimRight(text, "BKMGTi")
	factor, ok := map[string]float64{"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[strings.TrimSuffix(strings.TrimSuffix(text[len(digits):], "B"), "i")]
	number, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	switch {
	case err != nil || !ok || math.IsNaN(number):
		return fmt.Errorf("%q is not a number of bytes, such as 512B, 10KB or 1MiB", text)
	case number < 0 || number*factor > math.MaxInt64/2:
		return errors.New("a limit of bytes must be 0 or more, and below 4 EiB")
	}
	*s = Size(number * factor)
	return nil
}
