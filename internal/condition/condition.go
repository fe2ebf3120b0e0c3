package condition

import (
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	exprpb "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"
)

const (
	// maxCost bounds one evaluation, in the units of cel-go: about one for each
	// operation and for each ten characters that are compared.
	maxCost = 10_000
	// maxNodes bounds the size of an expression.
	maxNodes = 2_000
	// maxReadings bounds how often an expression is evaluated for one request. One
	// with more readings is not certain of anything.
	maxReadings = 64
)

// Condition is an expression, compiled. It is immutable and safe for concurrent
// use.
type Condition struct {
	program cel.Program
	tree    *exprpb.Expr // with our numbers
	// names is set if the expression can be true only by what values are.
	names bool
}

// Equal reports whether two conditions are the same expression.
func (c *Condition) Equal(other *Condition) bool {
	if c == nil || other == nil {
		return c == other
	}
	return proto.Equal(c.tree, other.tree)
}

// Compile checks and compiles an expression. request tells whether there are
// requests, or only connections.
func Compile(expr *exprpb.Expr, request bool) (_ *Condition, err error) {
	// The checker was made for the trees of its own parser; this one is a
	// stranger's.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("is not an expression: %v", p)
		}
	}()
	if _, err := ast.ProtoToExpr(expr); err != nil {
		return nil, fmt.Errorf("is not an expression: %w", err)
	}
	environment := connections
	if request {
		environment = requests
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("cannot be checked: %w", err)
	}
	parsed := cel.ParsedExprToAst(&exprpb.ParsedExpr{Expr: expr})
	// What the checker finds out is kept by number. A stranger's may be there
	// twice, or not at all.
	number := int64(0)
	parsed.NativeRep().Expr().RenumberIDs(func(int64) int64 {
		number++
		return number
	})
	tree, err := ast.ExprToProto(parsed.NativeRep().Expr())
	if err != nil {
		return nil, fmt.Errorf("is not an expression: %w", err)
	}
	checked, issues := env.Check(parsed)
	if issues != nil && issues.Err() != nil {
		return nil, refusal(issues)
	}
	if kind := checked.OutputType(); !kind.IsExactType(cel.BoolType) && !kind.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("must be true or false: is of type %s", kind)
	}
	if err := restrict(checked.NativeRep()); err != nil {
		return nil, err
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, fmt.Errorf("cannot be evaluated: %w", err)
	}
	return &Condition{program: program, tree: tree, names: names(checked.NativeRep())}, nil
}

func refusal(issues *cel.Issues) error {
	var all []error
	for _, issue := range issues.Errors() {
		// An attribute that is not known is all that usually is wrong.
		all = append(all, errors.New(strings.TrimSuffix(issue.Message, " (in container '')")))
	}
	return fmt.Errorf("does not type-check: %w", errors.Join(all...))
}

// restrict refuses what type-checks, and could not be decided about.
func restrict(checked *ast.AST) error {
	var problems []error
	check := func(name ast.Expr) {
		text, ok := literal(name)
		if ok && unseen(strings.ToLower(text)) {
			problems = append(problems, fmt.Errorf("header %q cannot be matched (gRFC A41)", text))
		}
	}
	ast.PostOrderVisit(checked.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			if s := e.AsSelect(); isHeaders(s.Operand()) && unseen(strings.ToLower(s.FieldName())) {
				problems = append(problems, fmt.Errorf("header %q cannot be matched (gRFC A41)", s.FieldName()))
			}
		case ast.CallKind:
			args := e.AsCall().Args()
			switch name := e.AsCall().FunctionName(); {
			case name == operators.Index && len(args) == 2 && isHeaders(args[0]):
				check(args[1])
			case name == operators.In && len(args) == 2 && isHeaders(args[1]):
				check(args[0])
			case name == overloads.Matches && len(args) > 0:
				if _, ok := literal(args[len(args)-1]); !ok {
					problems = append(problems, errors.New("the pattern of matches must be a constant: a request must not bring its own"))
				}
			}
		}
	}))
	return errors.Join(problems...)
}

// names reports whether an expression is made only of what says what a value is,
// and of nothing that could turn that around.
func names(checked *ast.AST) bool {
	all := true
	ast.PostOrderVisit(checked.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.LiteralKind:
			_, isBool := e.AsLiteral().(types.Bool)
			all = all && !isBool
		case ast.IdentKind, ast.SelectKind, ast.ListKind:
		case ast.CallKind:
			args := e.AsCall().Args()
			switch e.AsCall().FunctionName() {
			case operators.LogicalAnd, operators.LogicalOr, operators.In, operators.Index,
				overloads.StartsWith, overloads.EndsWith, overloads.Contains, overloads.Matches:
			case operators.Equals:
				all = all && (args[0].Kind() == ast.LiteralKind || args[1].Kind() == ast.LiteralKind)
			default:
				all = false
			}
		default:
			all = false
		}
	}))
	return all
}

func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := e.AsLiteral().(types.String)
	return string(text), ok
}

// isHeaders reports whether an expression is "request.headers".
func isHeaders(e ast.Expr) bool {
	if e.Kind() != ast.SelectKind || e.AsSelect().FieldName() != "headers" {
		return false
	}
	of := e.AsSelect().Operand()
	return of.Kind() == ast.IdentKind && of.AsIdent() == "request"
}

// unseen reports whether a server of this mesh does not see a header: a
// condition on it would deny nothing.
func unseen(name string) bool {
	switch name {
	case ":path", ":method", ":authority":
		return false
	case "te", "trailer", "transfer-encoding", "expect":
		return true
	}
	return strings.HasPrefix(name, ":") || strings.HasPrefix(name, "grpc-") || strings.HasSuffix(name, "-bin")
}

// Holds reports whether the expression is true: with certain, under every reading
// of the facts; without it, under any, where an expression without a value may be
// true.
func (c *Condition) Holds(facts *Facts, certain bool) bool {
	e := &evaluation{facts: facts, certain: certain, apart: !certain || !c.names}
	for range maxReadings {
		if c.holds(e) != certain {
			return !certain
		}
		if !e.next() {
			return certain
		}
	}
	return !certain
}

// holds evaluates the expression in one reading.
func (c *Condition) holds(e *evaluation) bool {
	value, _, err := c.program.Eval(e)
	if b, ok := value.(types.Bool); ok && err == nil {
		return bool(b)
	}
	return !e.certain
}
