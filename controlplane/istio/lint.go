package istio

// Lint is one kind of warning: what is allowed and hardly what was meant.
type Lint struct {
	// Code names it: "shadowed-route". It does not change from one version to the
	// next.
	Code string
	// Summary says what is wrong, Remedy what to do.
	Summary, Remedy string
}

// Lints are all kinds of warnings, sorted by code. The caller must not change
// the result.
func Lints() []Lint { return lints[:] }

// lint is the number of a kind of warning. It is no text, so that a warning
// without a code does not compile.
type lint uint8

// The kinds of warnings, in the order of their codes.
const (
	lintConflictingRoute lint = iota
	lintGRPCRoutePort
	lintIneffectiveFailover
	lintIneffectiveHostnames
	lintIneffectiveMatch
	lintInvisibleDestination
	lintNoBackend
	lintOverriddenHost
	lintUnknownHost
	lintUnusedDelegate
)

var lints = [...]Lint{
	lintConflictingRoute: {
		"conflicting-route", "An HTTPRoute is not in force on a port, because a GRPCRoute is for the same calls.",
		"Keep one of them, or give their parentRefs different ports.",
	},
	lintGRPCRoutePort: {
		"grpc-route-port", "A GRPCRoute is for a port too over which no gRPC call is made.",
		"Set `port` of the parentRef to the gRPC port.",
	},
	lintIneffectiveFailover: {
		"ineffective-failover", "`failover` and `failoverPriority` have no effect without outlier detection, which finds the endpoints that fail.",
		"Add `outlierDetection` to the traffic policy, or remove them.",
	},
	lintIneffectiveHostnames: {
		"ineffective-hostnames", "`hostnames` have no meaning for a route of a Service.",
		"Match the header `Host` instead.",
	},
	lintIneffectiveMatch: {
		"ineffective-match", "A match of a delegate cannot be met within that of the rule which delegates.",
		"Move it to a rule whose match contains it, or remove it.",
	},
	lintInvisibleDestination: {
		"invisible-destination", "Clients get a route to a service, or to a subset, that they do not see: their calls fail.",
		"Export the ServiceEntry, or the DestinationRule of the subset, to whom the route is exported to.",
	},
	lintNoBackend: {
		"no-backend", "No backend of a rule has a weight: every request is answered with an error.",
		"Give a backend a weight.",
	},
	lintOverriddenHost: {
		"overridden-host", "A VirtualService has no effect on one of its hosts, because another one goes before it.",
		"Merge the two, or remove the host from this one.",
	},
	lintUnknownHost: {
		"unknown-host", "No ServiceEntry has a host that the wildcard covers.",
		"Correct the wildcard, or add the ServiceEntry.",
	},
	lintUnusedDelegate: {
		"unused-delegate", "A VirtualService has no hosts, and nobody delegates to it.",
		"Give it hosts, or delegate to it.",
	},
}
