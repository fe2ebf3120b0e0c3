package rbac_test

import (
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
)

func TestV05_BH4_AHostIsTheSameHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		host, rule string
		want       bool
	}{
		{"h.example", "h.example", true},
		{"H.Example", "h.example", true},
		{"h.example", "H.Example", true},
		{"h.example:80", "h.example", true},
		{"h.example.", "h.example", true},
		{"h.example.:80", "h.example", true},
		{"h.example.:80", "h.example:80", true},
		{"h.example:81", "h.example:80", false},
		{"[::1]:80", "[::1]", true},
		{"[::1]:80", "::1", true},
		{"[h.example]:80", "h.example", true}, // as net.SplitHostPort has it
		{"[h.example]", "h.example", true},
		{"[::1]", "[::1]", true},
		{"evil-h.example", "h.example", false},
		{"h.example.evil", "h.example", false},
	} {
		rule := header(":authority", exact(tt.rule))
		x := exchange(func(x *filter.Exchange) { x.Host = tt.host })
		if got := !allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, rule)}, x); got != tt.want {
			t.Errorf("DENY of %s denies %s: %t", tt.rule, tt.host, got)
		}
		if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, not(rule))}, x); got == tt.want {
			t.Errorf("ALLOW of all but %s allows %s: %t", tt.rule, tt.host, got)
		}
	}
	for host, want := range map[string]bool{
		"h.example": true, "H.Example": true, "h.example:80": true, "H.EXAMPLE.:80": true, "hxexample": false, "h.example.evil": false,
	} {
		for _, expression := range []string{`h\.example`, `H\.Example`, `[a-h]\.[Ee]xample`} {
			rule := header(":authority", matchRegex(expression))
			x := exchange(func(x *filter.Exchange) { x.Host = host })
			if got := !allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, rule)}, x); got != want {
				t.Errorf("DENY of the expression %s denies %s: %t", expression, host, got)
			}
			if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, not(rule))}, x); got == want {
				t.Errorf("ALLOW of all but the expression %s allows %s: %t", expression, host, got)
			}
			inverted := rule
			inverted.Header.Invert = true
			if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, inverted)}, x); got != want {
				t.Errorf("DENY of what is not the expression %s allows %s: %t", expression, host, got)
			}
		}
	}
}
