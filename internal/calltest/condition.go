package calltest

import (
	"testing"

	"cel.dev/cel-go/cel"

	"github.com/inboardmesh/inboard/internal/condition"
)

// Condition compiles the text of an expression, as it comes in a policy.
func Condition(t testing.TB, text string) *condition.Condition {
	t.Helper()
	env, err := cel.NewEnv()
	if err != nil {
		t.Fatal(err)
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	tree, err := cel.AstToParsedExpr(parsed)
	if err != nil {
		t.Fatal(err)
	}
	c, err := condition.Compile(tree.GetExpr(), true)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
