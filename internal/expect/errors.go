package expect

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/probemesh/probemesh/internal/nearest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Error is one fault of one expression.
type Error struct {
	// Index is the position of the expression in the list given to Compile, from 0.
	Index int
	// Expression is the expression as written.
	Expression string
	// Line and Column say where, from 1; both are 0 when the fault is of the expression as a whole.
	Line, Column int
	// Problem says what is wrong and what would be right.
	Problem string
}

// Error is the fault with its place within the expression, without the index.
func (e Error) Error() string {
	switch {
	case e.Column == 0:
		return e.Problem
	case e.Line > 1:
		return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Problem)
	}
	return fmt.Sprintf("column %d: %s", e.Column, e.Problem)
}

// Errors are all faults of a list of expressions, in order.
type Errors []Error

// Error is one line per fault, each naming its expression.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = fmt.Sprintf("expectation %d (%s): %s", one.Index, one.Expression, one.Error())
	}
	return strings.Join(lines, "\n")
}

var (
	undefinedField = regexp.MustCompile(`^undefined field '([^']*)'`)
	undeclared     = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	noOverload     = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'`)
	strayToken     = regexp.MustCompile(`^Syntax error: token recognition error at: '([=&|])`)
	functionName   = regexp.MustCompile(`^[a-z][A-Za-z_]*$`)
	operatorName   = regexp.MustCompile(`^_?([^_a-z]+|in)_?$`)
)

// explain turns CEL's own messages into sentences.
func explain(env *cel.Env, index int, source string, issues *cel.Issues) Errors {
	var out Errors
	for _, issue := range issues.Errors() {
		e := Error{Index: index, Expression: source, Problem: issue.Message}
		if issue.Location != nil && issue.Location.Line() > 0 {
			e.Line, e.Column = issue.Location.Line(), issue.Location.Column()+1
		}
		switch m := issue.Message; {
		case strayToken.MatchString(m):
			// What the parser says after it is a consequence.
			e.Problem = halfOperator(strayToken.FindStringSubmatch(m)[1])
			return append(out, e)
		case strings.HasPrefix(m, "Syntax error: "):
			e.Problem = syntaxError(strings.TrimPrefix(m, "Syntax error: "))
		case undefinedField.MatchString(m):
			e.Problem = unknownField(env, source, issue.ExprID, undefinedField.FindStringSubmatch(m)[1])
		case undeclared.MatchString(m):
			e.Problem = unknownName(env, source, issue.ExprID, undeclared.FindStringSubmatch(m)[1])
		case noOverload.MatchString(m):
			parts := noOverload.FindStringSubmatch(m)
			e.Problem = misapplied(parts[1], parts[2])
		}
		out = append(out, e)
	}
	if len(out) == 0 {
		out = Errors{{Index: index, Expression: source, Problem: issues.Err().Error()}}
	}
	return out
}

// halfOperator explains an operator that other languages write with one character.
func halfOperator(op string) string {
	does := map[string]string{"=": "compare", "&": "ask for both", "|": "ask for one of two"}[op]
	return fmt.Sprintf("%q is no operator; write %s to %s", op, op+op, does)
}

// syntaxError shortens what the parser says, which lists every token that it knows.
func syntaxError(m string) string {
	m, _, _ = strings.Cut(m, " expecting {")
	if strings.Contains(m, "'<EOF>'") {
		return "syntax error: the expression ends too early"
	}
	return "syntax error: " + m
}

// unknownField names the fields that there are, where the faulty selection can be found again.
func unknownField(env *cel.Env, source string, id int64, field string) string {
	problem := fmt.Sprintf("there is no field %q", field)
	parsed, issues := env.Parse(source)
	if issues.Err() != nil {
		return problem
	}
	var desc protoreflect.MessageDescriptor
	var path []string
	ast.PostOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if desc == nil && e.ID() == id && e.Kind() == ast.SelectKind {
			path, desc = messageAt(e.AsSelect().Operand())
		}
	}))
	if desc == nil {
		return problem
	}
	names := make([]string, 0, desc.Fields().Len())
	for i := range desc.Fields().Len() {
		names = append(names, string(desc.Fields().Get(i).Name()))
	}
	sort.Strings(names)
	return fmt.Sprintf("%s has no field %q; it has %s", strings.Join(path, "."), field, strings.Join(names, ", "))
}

// messageAt is the message that a chain of selections from the response ends at, nil when it ends at something else.
func messageAt(e ast.Expr) ([]string, protoreflect.MessageDescriptor) {
	switch e.Kind() {
	case ast.IdentKind:
		if e.AsIdent() == variable {
			return []string{variable}, (&meshv1.Response{}).ProtoReflect().Descriptor()
		}
	case ast.SelectKind:
		path, desc := messageAt(e.AsSelect().Operand())
		if desc == nil {
			return nil, nil
		}
		f := desc.Fields().ByName(protoreflect.Name(e.AsSelect().FieldName()))
		if f != nil && f.Message() != nil && !f.IsMap() && !f.IsList() {
			return append(path, e.AsSelect().FieldName()), f.Message()
		}
	}
	return nil, nil
}

// unknownName explains a name that is neither a variable nor a function.
func unknownName(env *cel.Env, source string, id int64, name string) string {
	if isCall(env, source, id) {
		return unknownFunction(env, name)
	}
	if (&meshv1.Response{}).ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name)) != nil {
		return fmt.Sprintf("%q is not known; write response.%s", name, name)
	}
	return fmt.Sprintf("%q is not known; the only variable is response, and texts need quotes", name)
}

// isCall tells whether the expression that CEL complains of is the call of a function.
func isCall(env *cel.Env, source string, id int64) (call bool) {
	parsed, issues := env.Parse(source)
	if issues.Err() != nil {
		return false
	}
	ast.PostOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		call = call || e.ID() == id && e.Kind() == ast.CallKind
	}))
	return call
}

// unknownFunction explains the call of a function that there is not, with the one that was likely meant.
func unknownFunction(env *cel.Env, name string) string {
	var known []string
	for f := range env.Functions() {
		if functionName.MatchString(f) {
			known = append(known, f)
		}
	}
	for _, m := range env.Macros() {
		known = append(known, m.Function())
	}
	sort.Strings(known) // so that of two that are equally near it is always the same
	if near := nearest.Hint(name, slices.Compact(known)); near != "" {
		return fmt.Sprintf("there is no function %q%s", name, near)
	}
	return fmt.Sprintf("there is no function %q; among those that there are: contains, startsWith, endsWith, matches, size, exists, all", name)
}

// misapplied explains an operator or function that does not take what it was given.
func misapplied(function, signature string) string {
	types := strings.TrimSuffix(strings.TrimPrefix(signature, "("), ")")
	if m := operatorName.FindStringSubmatch(function); m != nil {
		return fmt.Sprintf("%s cannot be applied to %s; both sides must be of types that go together", m[1], strings.ReplaceAll(types, ", ", " and "))
	}
	return fmt.Sprintf("%s cannot be applied to %s", function, strings.ReplaceAll(signature, "probemesh.v1.", ""))
}

// comparison suggests a comparison that makes a bool of an expression of type t.
func comparison(source string, t *cel.Type) string {
	switch {
	case t.IsExactType(cel.IntType), t.IsExactType(cel.DoubleType):
		return source + " > 0"
	case t.IsExactType(cel.StringType):
		return source + ` == "..."`
	case t.IsExactType(cel.DurationType):
		return source + ` < duration("1s")`
	}
	return `response.status == 200`
}

// evalError turns an evaluation error into a sentence.
func evalError(err error) error {
	m := err.Error()
	switch {
	case strings.Contains(m, "cost limit exceeded"):
		return fmt.Errorf("it costs more than %d CEL cost units to evaluate; simplify it, or lower the body limit of the check", CostLimit)
	case strings.Contains(m, "no such key: "):
		_, key, _ := strings.Cut(m, "no such key: ")
		return fmt.Errorf("there is no %q in the response", key)
	case strings.Contains(m, "no such overload"):
		return errors.New("a value in the response is of another type than the expression needs, or is missing")
	}
	return err
}
