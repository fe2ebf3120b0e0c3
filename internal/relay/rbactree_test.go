package relay

import (
	"errors"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

// TestATreeOfMatchersIsRefused: without its tree the policy would say something else.
func TestATreeOfMatchersIsRefused(t *testing.T) {
	t.Parallel()
	rules := &discovery.RBACRules{Tree: &discovery.RBACTree{Otherwise: &discovery.RBACVerdict{Action: discovery.RBACAllow}}}
	if _, err := new(encoder).rbac("filter", &discovery.RBAC{Rules: rules}, serverFacts{}); !errors.Is(err, errInstead) {
		t.Errorf("error %v", err)
	}
}
