package inbound

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// aboutConnections is a filter of connections with one policy.
func aboutConnections(action discovery.RBACAction, principal discovery.RBACRule) *discovery.RBAC {
	return &discovery.RBAC{Rules: &discovery.RBACRules{Action: action, Policies: []discovery.RBACPolicy{{
		Name: "p", Permissions: []discovery.RBACRule{{Kind: discovery.RBACAny}}, Principals: []discovery.RBACRule{principal},
	}}}}
}

// TestAConnectionThatIsNotAllowedIsNotAccepted: it is closed without a word,
// after the handshake, and the next one is accepted.
func TestAConnectionThatIsNotAllowedIsNotAccepted(t *testing.T) {
	t.Parallel()
	customer := discovery.RBACRule{Kind: discovery.RBACPrincipal, Text: &discovery.StringMatch{Value: customerID}}
	everywhere := discovery.RBACRule{Kind: discovery.RBACDirectIP, Prefix: netip.MustParsePrefix("0.0.0.0/0")}
	for _, tt := range []struct {
		name                   string
		filters                []*discovery.RBAC
		customer, other, plain bool
		denials                int
	}{
		{"no filter", nil, true, true, true, 0},
		{"ALLOW of a principal", []*discovery.RBAC{aboutConnections(discovery.RBACAllow, customer)}, true, false, false, 2},
		{"DENY of a principal", []*discovery.RBAC{aboutConnections(discovery.RBACDeny, customer)}, false, true, true, 1},
		{"ALLOW of nobody", []*discovery.RBAC{{Rules: &discovery.RBACRules{}}}, false, false, false, 3},
		{"one of two denies", []*discovery.RBAC{
			aboutConnections(discovery.RBACAllow, discovery.RBACRule{Kind: discovery.RBACAny}), aboutConnections(discovery.RBACDeny, customer),
		}, false, true, true, 1},
		{"an address that nobody has", []*discovery.RBAC{aboutConnections(discovery.RBACDeny, discovery.RBACRule{
			Kind: discovery.RBACNot, Rules: []discovery.RBACRule{everywhere},
		})}, false, false, false, 3},
		{"on trial", []*discovery.RBAC{{Shadow: &discovery.RBACRules{}}}, true, true, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				denials := 0
				b.listeners.options.Hooks.Authorized = func(e observe.AuthorizationEvent) {
					b.count(func() {
						if !e.Shadow && !e.Allowed {
							denials++
						}
					})
				}
				in := permissive()
				for i := range in.Chains {
					in.Chains[i].Network = tt.filters
				}
				b.listen(in)
				_, err := b.dial(b.client(customerID))
				if (err == nil) != tt.customer {
					t.Errorf("the customer: %v", err)
				}
				_, err = b.dial(b.client(paymentID))
				if (err == nil) != tt.other {
					t.Errorf("another: %v", err)
				}
				_, err = b.dial(nil)
				if (err == nil) != tt.plain {
					t.Errorf("without TLS: %v", err)
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				if denials != tt.denials || len(b.refused) != 0 {
					t.Errorf("%d denials are reported, %d handshakes: want %d", denials, len(b.refused), tt.denials)
				}
			})
		})
	}
}
