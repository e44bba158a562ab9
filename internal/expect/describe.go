package expect

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// What a description of a failed expectation shows at most.
const (
	maxLeaves     = 3
	maxValueBytes = 80
)

// leaf is a part of the response that an expression reads, such as `response.tls.days_left`.
type leaf struct {
	source  string
	program cel.Program
}

// reads are the fields of the response that the expression reads, by name; whole is true when it uses the response as a value. A field is true when the
// expression relies on it, and false when it asks somewhere with has() whether the field, or a part of it, is there.
func reads(checked *cel.Ast) (fields map[string]bool, whole bool) {
	fields = make(map[string]bool)
	tested := make(map[string]bool)
	mentions, selected := 0, 0
	ast.PostOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch {
		case isResponse(e):
			mentions++
		case e.Kind() == ast.SelectKind && isResponse(e.AsSelect().Operand()):
			selected++
			fields[e.AsSelect().FieldName()] = true
		}
		if e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly() {
			tested[fieldOf(e)] = true
		}
	}))
	for f := range fields {
		fields[f] = !tested[f]
	}
	return fields, mentions > selected
}

// fieldOf is the field of the response in which a chain of selections begins, empty when it begins elsewhere.
func fieldOf(e ast.Expr) string {
	for e.Kind() == ast.SelectKind {
		if s := e.AsSelect(); isResponse(s.Operand()) {
			return s.FieldName()
		}
		e = e.AsSelect().Operand()
	}
	return ""
}

// isResponse tells whether e is the variable itself.
func isResponse(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == variable }

// leavesOf compiles the longest chains of selections in the expression, so that a failure can say what they were. It is
// done at the first failure only, since it costs as much as compiling the expression did.
func leavesOf(env *cel.Env, checked *cel.Ast) []leaf {
	rep := checked.NativeRep()
	var out []leaf
	seen := make(map[string]bool)
	var walk func(ast.NavigableExpr)
	walk = func(e ast.NavigableExpr) {
		if len(out) >= maxLeaves {
			return
		}
		if !isChain(e) || isResponse(e) {
			for _, child := range e.Children() {
				walk(child)
			}
			return
		}
		source, err := cel.ExprToString(e, rep.SourceInfo())
		if err != nil || seen[source] {
			return
		}
		seen[source] = true
		if parsed, issues := env.Compile(source); issues.Err() == nil {
			if program, err := env.Program(parsed, cel.CostLimit(CostLimit)); err == nil {
				out = append(out, leaf{source: source, program: program})
			}
		}
	}
	walk(ast.NavigateAST(rep))
	return out
}

// isChain tells whether e is a chain of selections and constant indexes that begins at the response.
func isChain(e ast.Expr) bool {
	switch e.Kind() {
	case ast.IdentKind:
		return isResponse(e)
	case ast.SelectKind:
		return !e.AsSelect().IsTestOnly() && isChain(e.AsSelect().Operand())
	case ast.CallKind:
		call := e.AsCall()
		return call.FunctionName() == operators.Index && len(call.Args()) == 2 &&
			call.Args()[1].Kind() == ast.LiteralKind && isChain(call.Args()[0])
	}
	return false
}

// describe says what the leaves are, for example "response.status is 503, response.json.ok is false".
func describe(leaves []leaf, scope activation) string {
	var parts []string
	for _, l := range leaves {
		if out, _, err := l.program.Eval(scope); err == nil {
			parts = append(parts, l.source+" is "+show(out))
		}
	}
	return strings.Join(parts, ", ")
}

// show is a value in few bytes: whole when it is short, its beginning otherwise.
func show(v ref.Val) string {
	switch x := v.(type) {
	case types.String:
		return fmt.Sprintf("%q", clip(string(x)))
	case types.Null:
		return "null"
	case types.Duration:
		return x.Round(time.Microsecond).String()
	case types.Bool, types.Int, types.Uint, types.Double:
		return fmt.Sprint(x.Value())
	}
	if list, ok := v.(interface{ Size() ref.Val }); ok {
		return fmt.Sprintf("%s of %v", v.Type().TypeName(), list.Size().Value())
	}
	return v.Type().TypeName()
}

// clip cuts a text at maxValueBytes, never within a character.
func clip(s string) string {
	if len(s) <= maxValueBytes {
		return s
	}
	s = s[:maxValueBytes]
	for len(s) > 0 && !utf8.ValidString(s[len(s)-min(len(s), utf8.UTFMax):]) && len(s) > maxValueBytes-utf8.UTFMax {
		s = s[:len(s)-1]
	}
	return s + "..."
}
