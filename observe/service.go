package observe

import "time"

// ServiceKind is what a filter calls a service for.
type ServiceKind uint8

const (
	// KeyService has the keys that verify tokens (JWKS).
	KeyService ServiceKind = iota
	// AuthorizationService decides about requests (ext_authz).
	AuthorizationService
)

// String returns "keys" or "authorization".
func (k ServiceKind) String() string {
	if k == AuthorizationService {
		return "authorization"
	}
	return "keys"
}

// ServiceState is what the mesh knows of a service that filters of this process's
// listeners call. Requests are refused while it fails, unless keys of before are in
// use or the configuration lets requests pass without an answer.
type ServiceState struct {
	Kind    ServiceKind
	Cluster string
	// Address is the URL of keys, without its query, or the authority of an
	// authorization service that has one.
	Address string
	// Providers are those whose tokens the keys verify, sorted; nil for an
	// authorization service.
	Providers []string
	// Failing tells that the last question had no answer that can be used, Failures
	// how many in a row, and Since when the first of them failed, or when the service
	// answered again.
	Failing  bool
	Failures int
	Since    time.Time
	// Harmless tells that no request is refused for the last failure: keys of before
	// are in use, or the configuration lets requests pass.
	Harmless bool
	// Reason is what kind of failure the last one was: "timeout", "unreachable" (no
	// connection to any endpoint), "broken" (the connection broke off), "status" (the
	// service answers that it fails, or that there is nothing), "invalid" (the answer
	// is none that can be used), "overflow" (a limit of the cluster, or its breaker),
	// "cluster" (it is not configured, or cannot be used). It stays when the service
	// answers again, as does Err; both are zero before the first failure.
	Reason string
	Err    error
	// Succeeded and Failed are when the service did so last, zero for never.
	Succeeded, Failed time.Time
}
