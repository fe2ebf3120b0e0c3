package decode

import (
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	exprpb "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/inboardmesh/inboard/internal/condition"
)

// conditionFields are the messages of an expression. What is in them is for the
// checker of expressions, which refuses what it does not know.
var conditionFields = []messageFields{
	{
		message: (*exprpb.CheckedExpr)(nil),
		read:    "expr",
		// What somebody else has found out is not relied on; the text is for people.
		harmless: "reference_map type_map source_info expr_version",
	},
	{
		message: (*exprpb.Expr)(nil),
		read:    "const_expr ident_expr select_expr call_expr list_expr struct_expr comprehension_expr",
		// Numbers by which the text is found.
		harmless: "id",
	},
	{
		message: (*exprpb.Constant)(nil),
		read:    "null_value bool_value int64_value uint64_value double_value string_value bytes_value",
		instead: map[string]string{
			"duration_value":  "call duration with a string",
			"timestamp_value": "call timestamp with a string",
		},
	},
	{message: (*exprpb.Expr_Ident)(nil), read: "name"},
	{message: (*exprpb.Expr_Select)(nil), read: "operand field test_only"},
	{message: (*exprpb.Expr_Call)(nil), read: "target function args"},
	{message: (*exprpb.Expr_CreateList)(nil), read: "elements optional_indices"},
	{message: (*exprpb.Expr_CreateStruct)(nil), read: "message_name entries"},
	{message: (*exprpb.Expr_CreateStruct_Entry)(nil), read: "field_key map_key value optional_entry", harmless: "id"},
	{
		message: (*exprpb.Expr_Comprehension)(nil),
		read:    "iter_var iter_var2 iter_range accu_var accu_init loop_condition loop_step result",
	},
}

// condition decodes the expression of a policy; nil if it has none. http tells
// whether there are requests.
func (d *decoder) condition(at path, m *rbacv3.Policy, http bool) *condition.Condition {
	in, expr := at.field("condition"), m.GetCondition()
	if checked := m.GetCheckedCondition(); checked != nil {
		in = at.field("checked_condition")
		if expr != nil {
			d.refusef(in, "must not be set beside condition")
			return nil
		}
		// Whoever checked it knew other attributes: it is checked again.
		expr = checked.GetExpr()
		in = in.field("expr")
	} else if expr == nil {
		return nil
	}
	compiled, err := condition.Compile(expr, http)
	if err != nil {
		d.refusef(in, "%v", err)
		return nil
	}
	return compiled
}
