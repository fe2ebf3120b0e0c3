package rbac_test

import (
	"math/rand/v2"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter/rbac"
	"github.com/inboardmesh/inboard/observe"
)

func leads(rule discovery.RBACRule, policy string, action discovery.RBACAction) discovery.RBACBranch {
	return discovery.RBACBranch{Rule: rule, Then: discovery.RBACVerdict{Policy: policy, Action: action}}
}

func within(rule discovery.RBACRule, t *discovery.RBACTree) discovery.RBACBranch {
	return discovery.RBACBranch{Rule: rule, Then: discovery.RBACVerdict{Tree: t}}
}

func treeOf(otherwise *discovery.RBACVerdict, branches ...discovery.RBACBranch) *discovery.RBACTree {
	return &discovery.RBACTree{Branches: branches, Otherwise: otherwise}
}

func TestATreeIsAskedBranchByBranch(t *testing.T) {
	t.Parallel()
	const allow, deny, log = discovery.RBACAllow, discovery.RBACDeny, discovery.RBACLog
	role := func(value string) discovery.RBACRule { return header("x-role", exact(value)) }
	denied := &discovery.RBACVerdict{Policy: "others", Action: deny}
	allowed := &discovery.RBACVerdict{Policy: "others", Action: allow}
	tests := []struct {
		name  string
		tree  *discovery.RBACTree
		roles []string
		want  bool
		// policy and logged are reported; "" is nothing.
		policy string
		logged bool
	}{
		{name: "nothing matches", tree: treeOf(nil, leads(role("a"), "p", allow)), roles: []string{"b"}},
		{name: "an empty tree", tree: treeOf(nil), roles: []string{"a"}},
		{name: "the first that matches", tree: treeOf(nil, leads(role("a"), "p", allow), leads(anything, "q", deny)), roles: []string{"a"}, want: true},
		{name: "the first that matches denies", tree: treeOf(nil, leads(role("a"), "p", deny), leads(anything, "q", allow)), roles: []string{"a"}, policy: "p"},
		{name: "otherwise", tree: treeOf(denied, leads(role("a"), "p", allow)), roles: []string{"b"}, policy: "others"},
		{name: "a tree within", tree: treeOf(denied, within(role("a"), treeOf(nil, leads(anything, "p", allow)))), roles: []string{"a"}, want: true},
		{
			name:  "a tree within that decides nothing is no match",
			tree:  treeOf(nil, within(role("a"), treeOf(nil, leads(role("b"), "p", deny))), leads(anything, "q", allow)),
			roles: []string{"a"}, want: true,
		},
		{
			name:  "the tree within has its own otherwise",
			tree:  treeOf(nil, within(role("a"), treeOf(denied, leads(role("b"), "p", allow))), leads(anything, "q", allow)),
			roles: []string{"a"}, policy: "others",
		},
		{name: "a report", tree: treeOf(nil, leads(role("a"), "p", log)), roles: []string{"a"}, want: true, policy: "p", logged: true},
		// A header that is there twice has more than one reading (D6): all of them count.
		{name: "one of two values denies", tree: treeOf(allowed, leads(role("a"), "p", deny)), roles: []string{"b", "a"}, policy: "p"},
		{name: "one of two values allows", tree: treeOf(denied, leads(role("a"), "p", allow)), roles: []string{"b", "a"}, policy: "others"},
		{name: "both values allow, alone and joined", tree: treeOf(denied, leads(header("x-role", prefix("a")), "p", allow)), roles: []string{"a", "a"}, want: true},
		{name: "one of two leads nowhere", tree: treeOf(nil, leads(role("a"), "p", allow)), roles: []string{"b", "a"}},
		{
			name:  "one of two leads into a tree that denies",
			tree:  treeOf(allowed, within(role("a"), treeOf(denied))),
			roles: []string{"b", "a"}, policy: "others",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var events []observe.AuthorizationEvent
			f := rbac.New(&discovery.RBAC{Rules: &discovery.RBACRules{Tree: tt.tree}}, &observe.Hooks{
				Authorized: func(e observe.AuthorizationEvent) { events = append(events, e) },
			})
			x := exchange(nil)
			for _, role := range tt.roles {
				x.Headers.Add("x-role", role)
			}
			answer, err := f.Request(t.Context(), x)
			if err != nil || (answer == nil) != tt.want {
				t.Fatalf("allowed %t, want %t (%v)", answer == nil, tt.want, err)
			}
			if tt.want && !tt.logged {
				if len(events) > 0 {
					t.Errorf("reported %+v", events)
				}
				return
			}
			if len(events) != 1 || events[0].Policy != tt.policy || events[0].Logged != tt.logged || events[0].Allowed != tt.want {
				t.Errorf("reported %+v, want policy %q", events, tt.policy)
			}
		})
	}
}

// TestATreeSaysWhatPoliciesSay: one branch that allows, and nothing otherwise, is an
// ALLOW of its rule; one that denies, and leave otherwise, is a DENY; whatever the rule
// and the request.
func TestATreeSaysWhatPoliciesSay(t *testing.T) {
	t.Parallel()
	r := newRandom(t, rand.NewPCG(3, 4))
	allowed := &discovery.RBACVerdict{Action: discovery.RBACAllow}
	for range 50_000 {
		rule := r.rule(3)
		x, _ := r.exchange()
		for action, tree := range map[discovery.RBACAction]*discovery.RBACTree{
			discovery.RBACAllow: treeOf(nil, leads(rule, "p", discovery.RBACAllow)),
			discovery.RBACDeny:  treeOf(allowed, leads(rule, "p", discovery.RBACDeny)),
		} {
			want := allows(t, &discovery.RBAC{Rules: policies(action, rule)}, x)
			if got := allows(t, &discovery.RBAC{Rules: &discovery.RBACRules{Tree: tree}}, x); got != want {
				t.Fatalf("action %d: the tree allows %t, the policies %t: %+v for %+v", action, got, want, rule, x)
			}
		}
	}
}
