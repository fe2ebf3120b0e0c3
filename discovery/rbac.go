package discovery

import (
	"net/netip"

	"github.com/inboardmesh/inboard/internal/condition"
)

// RBAC is Envoy's RBAC filter, for requests or for connections.
type RBAC struct {
	// Rules are enforced; nil enforces nothing.
	Rules *RBACRules
	// Shadow are evaluated and reported, and decide nothing; nil is without.
	Shadow *RBACRules
	// StatPrefix and ShadowPrefix tell the reports of several filters apart.
	StatPrefix   string
	ShadowPrefix string
}

func (*RBAC) filterConfig() {}

// RBACRules are policies and what is done with that which they match. Without a
// policy RBACAllow allows nothing.
type RBACRules struct {
	Action RBACAction
	// Policies are in the order of their names, in which they are asked.
	Policies []RBACPolicy
	// Tree decides in place of Action and Policies, if it is not nil (matcher).
	Tree *RBACTree
}

// RBACTree is asked branch by branch. The first whose rule matches, and whose own tree
// decides if it has one, decides; what nothing decides about is denied.
type RBACTree struct {
	Branches []RBACBranch
	// Otherwise is for what no branch decides about; nil is nothing.
	Otherwise *RBACVerdict
}

// RBACBranch is one branch of a tree.
type RBACBranch struct {
	Rule RBACRule
	Then RBACVerdict
}

// RBACVerdict is what a branch leads to: another tree or, without one, an action, by
// the name of a policy.
type RBACVerdict struct {
	Tree   *RBACTree
	Policy string
	Action RBACAction
}

// RBACAction is what a match of a policy means.
type RBACAction uint8

const (
	// RBACAllow allows what a policy matches, and nothing else.
	RBACAllow RBACAction = iota
	// RBACDeny denies what a policy matches, and nothing else.
	RBACDeny
	// RBACLog reports what a policy matches, and allows everything.
	RBACLog
)

// RBACPolicy matches if one of its permissions and one of its principals do, and
// the condition holds.
type RBACPolicy struct {
	Name        string
	Permissions []RBACRule
	Principals  []RBACRule
	// Condition is an expression in CEL; nil for none.
	Condition *condition.Condition
}

// RBACRule is Envoy's Permission or Principal: what is done, or who does it.
type RBACRule struct {
	Kind RBACKind
	// Rules are those of RBACAnd and RBACOr, and the one of RBACNot.
	Rules []RBACRule
	// Header is set for RBACHeader.
	Header HeaderMatch
	// Text is set for RBACPath, RBACServerName and RBACPrincipal. For
	// RBACPrincipal nil matches every peer that is authenticated.
	Text *StringMatch
	// Template is set for RBACTemplate.
	Template *Regex
	// Prefix is set for the addresses.
	Prefix netip.Prefix
	// Start and End delimit RBACPort: [Start, End).
	Start, End uint32
	// Metadata is set for RBACMetadata.
	Metadata *MetadataMatch
}

// RBACKind is what an [RBACRule] looks at.
type RBACKind uint8

// The kinds of Envoy's Permission and Principal.
const (
	RBACAny RBACKind = iota
	RBACAnd
	RBACOr
	RBACNot
	RBACHeader
	// RBACPath is the path without the query, RBACTemplate against a template.
	RBACPath
	RBACTemplate
	// RBACDestination is the address that the connection came to.
	RBACDestination
	RBACPort
	RBACMetadata
	// RBACServerName is the name that the client asked for in its TLS hello; ""
	// for plaintext.
	RBACServerName
	// RBACPrincipal is the name of the peer in its certificate: of the URIs, if
	// it has any, else of the DNS names, else the subject.
	RBACPrincipal
	// RBACURI is a URI in the peer's certificate, RBACDNS a DNS name in it.
	RBACURI
	RBACDNS
	// RBACDirectIP is the address of the peer; RBACRemoteIP that of the client,
	// which is the same where no proxy in front is trusted.
	RBACDirectIP
	RBACRemoteIP
)
