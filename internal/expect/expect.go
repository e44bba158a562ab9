// Package expect compiles and evaluates the expectations of checks: CEL expressions (https://cel.dev) of type bool over a
// [meshv1.Response], which they see as `response`.
//
//	response.status == 200 && response.duration < duration("300ms")
//
// [Compile] is called where a check is accepted, which refuses what cannot work with a sentence for every faulty
// expression, and again where it is run. It costs about half a millisecond an expression and is done once for each
// revision of a check. [Program.Eval] costs a few microseconds an expression.
//
// An evaluation is bounded: see [CostLimit]. CEL has no loops other than over the response's own lists and maps, and no
// functions with effects, so an expression can neither hang a prober nor reach anything outside the response.
//
// The package has no state besides the CEL environment, which is built once and never changes.
package expect

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// CostLimit is what one evaluation of one expression may cost, in CEL cost units: about 10 ms of one core. A search in
// the body costs one unit per 200 bytes (contains) or 20 bytes (matches, more with long patterns), so that
// any substring search fits within the largest body that a check may ask for.
const CostLimit = 100_000

// variable is the name by which expressions see the response.
const variable = "response"

// environment is the CEL environment of every expression. It is built at first use and immutable afterwards.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Types(&meshv1.Response{}),
		cel.Variable(variable, cel.ObjectType("probemesh.v1.Response")),
		cel.RegexProgramSizeLimit(1_000),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
	)
})

// Program is a list of compiled expectations. It is immutable: any number of goroutines may use it at once. The nil
// Program has no expectations.
type Program struct {
	env    *cel.Env
	parts  []*expression
	fields map[string]bool // that any expression reads; true when one relies on it
	whole  bool
}

// expression is one compiled expectation.
type expression struct {
	source  string
	program cel.Program
	leaves  func() []leaf
}

// Compile compiles the expressions in order. When any is faulty the error is an [Errors] that lists every fault of
// every expression. Without expressions it returns the nil Program.
func Compile(exprs []string) (*Program, error) {
	if len(exprs) == 0 {
		return nil, nil
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("build the CEL environment: %w", err)
	}
	p := &Program{env: env, fields: make(map[string]bool)}
	var faults Errors
	for i, source := range exprs {
		part, bad := p.compile(i, source)
		faults = append(faults, bad...)
		if part != nil {
			p.parts = append(p.parts, part)
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return p, nil
}

// compile compiles one expression and notes which fields of the response it reads.
func (p *Program) compile(index int, source string) (*expression, Errors) {
	if source == "" {
		return nil, Errors{{Index: index, Problem: "is empty; write an expression such as response.status == 200, or remove it"}}
	}
	ast, issues := p.env.Compile(source)
	if issues.Err() != nil {
		return nil, explain(p.env, index, source, issues)
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, Errors{{Index: index, Expression: source,
			Problem: fmt.Sprintf("is of type %s, not bool; compare it with something, for example %s", cel.FormatCELType(t), comparison(source, t))}}
	}
	program, err := p.env.Program(ast, cel.CostLimit(CostLimit), cel.CostTracking(costs{}))
	if err != nil {
		return nil, Errors{{Index: index, Expression: source, Problem: err.Error()}}
	}
	fields, whole := reads(ast)
	p.whole = p.whole || whole
	for f, relies := range fields {
		p.fields[f] = p.fields[f] || relies
	}
	part := &expression{source: source, program: program}
	part.leaves = sync.OnceValue(func() []leaf { return leavesOf(p.env, ast) })
	return part, nil
}

// Len is the number of expressions.
func (p *Program) Len() int {
	if p == nil {
		return 0
	}
	return len(p.parts)
}

// Reads tells whether any expression reads the field of the response, by its proto name, for example "json". A caller need not
// fill in fields that nobody reads.
func (p *Program) Reads(field string) bool {
	if p == nil {
		return false
	}
	_, ok := p.fields[field]
	return ok || p.whole
}

// Relies are the fields of the response, by their proto names and sorted, that some expression reads without asking with has() whether they, or a part of them, are there. A field that an expression reads
// through the response as a value (`[response].all(r, r.status == 200)`) is not found.
func (p *Program) Relies() []string {
	if p == nil {
		return nil
	}
	var out []string
	for f, relies := range p.fields {
		if relies {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return out
}

// Eval evaluates the expressions in order against r and stops at the first that does not hold. failed is that expression
// as it was written, and why says what was seen instead, for example "response.status is 503". When all hold, failed is
// empty and why is nil. An expression that cannot be evaluated (no such key, cost limit exceeded) does not hold. r is not changed.
func (p *Program) Eval(r *meshv1.Response) (failed string, why error) {
	if p.Len() == 0 {
		return "", nil
	}
	scope := activation{value: p.env.CELTypeAdapter().NativeToValue(r)}
	for _, part := range p.parts {
		out, _, err := part.program.Eval(scope)
		if out == types.True && err == nil {
			continue
		}
		return part.source, part.reason(scope, out, err)
	}
	return "", nil
}

// reason says why an expression does not hold.
func (e *expression) reason(scope activation, out ref.Val, err error) error {
	if err != nil {
		return evalError(err)
	}
	if out != types.False {
		return fmt.Errorf("it is %s, not a bool", show(out))
	}
	if seen := describe(e.leaves(), scope); seen != "" {
		return errors.New(seen)
	}
	return errors.New("it is false")
}

// activation resolves the one variable.
type activation struct{ value ref.Val }

// ResolveName implements cel.Activation.
func (a activation) ResolveName(name string) (any, bool) {
	if name == variable {
		return a.value, true
	}
	return nil, false
}

// Parent implements cel.Activation.
func (a activation) Parent() cel.Activation { return nil }

// costs prices the searches in long texts nearer to what they take than CEL's defaults, which would refuse to look
// through one mebibyte.
type costs struct{}

// CallCost implements the estimator of actual costs; nil leaves the default.
func (costs) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	if len(args) != 2 {
		return nil
	}
	text, ok := args[0].(types.String)
	if !ok {
		return nil
	}
	other, ok := args[1].(types.String)
	if !ok {
		return nil
	}
	var cost uint64
	switch function {
	case "startsWith", "endsWith":
		cost = 1 + uint64(len(other))/200
	case "contains":
		cost = 1 + uint64(len(text)+len(other))/200
	case "matches":
		cost = 1 + uint64(len(text))/20*uint64(1+len(other)/32)
	default:
		return nil
	}
	return &cost
}
