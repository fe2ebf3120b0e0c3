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

// ofOne are the lints that an object has by itself. The others depend on what else
// there is, of which nothing is known for certain while there are problems.
var ofOne = []lint{
	lintBodyNotSent, lintCORSCredentials, lintForeignGateway, lintForeignParent, lintImpossibleMatch, lintIneffectiveHostnames, lintIneffectiveRetry, lintMissingWeight, lintNoBackend, lintPerTryTimeout,
	lintPersistentSession, lintPrefixRewrite, lintRedirectLoop, lintRetriesExceedTimeout, lintRetryNonIdempotent, lintRewriteQuery, lintShadowedRoute, lintSkippedDocument, lintUnknownProtocol, lintWeightSum,
}

// lint is the number of a kind of warning. It is no text, so that a warning
// without a code does not compile.
type lint uint8

// The kinds of warnings, in the order of their codes.
const (
	lintAsksItself lint = iota
	lintBodyNotSent
	lintConflictingRoute
	lintCORSCredentials
	lintCustomOnTCP
	lintEmptySubset
	lintForeignGateway
	lintForeignParent
	lintGRPCRoutePort
	lintImpossibleMatch
	lintIneffectiveBalancing
	lintIneffectiveFailover
	lintIneffectiveHostnames
	lintIneffectiveMatch
	lintIneffectiveRetry
	lintInvisibleDestination
	lintMissingWeight
	lintMutualTLSConflict
	lintNoBackend
	lintNoEndpointSlice
	lintNoRequests
	lintOverriddenHost
	lintPerTryTimeout
	lintPersistentSession
	lintPrefixRewrite
	lintRedirectLoop
	lintRetriesExceedTimeout
	lintRetryNonIdempotent
	lintRewriteQuery
	lintShadowedRoute
	lintSkippedDocument
	lintSymmetricKey
	lintTimeoutExceedsCaller
	lintUnknownBackend
	lintUnknownHost
	lintUnknownNode
	lintUnknownParent
	lintUnknownPod
	lintUnknownProtocol
	lintUnknownProvider
	lintUnmatchedSelector
	lintUnservedPort
	lintUnusedDelegate
	lintUnusedDestinationRule
	lintWeightSum
)

var lints = [...]Lint{
	lintAsksItself: {
		"asks-itself", "An AuthorizationPolicy with CUSTOM is for the workloads of the very service that it asks: a question is a request to it, about which it is asked.",
		"Give the policy a `selector` that leaves the service out, or move the service to a namespace of its own.",
	},
	lintBodyNotSent: {
		"body-not-sent", "A direct response has a body, and a status whose responses have none: only gRPC gets it, as the status message.",
		"Use another status, or remove the body.",
	},
	lintConflictingRoute: {
		"conflicting-route", "An HTTPRoute or GRPCRoute is not in force on a port, because a GRPCRoute or a VirtualService is for the same calls and goes before it.",
		"Keep one of them, or give their parentRefs different ports.",
	},
	lintCORSCredentials: {
		"cors-credentials", "A policy allows credentials to every origin: whatever page a user visits may act in the user's name. Or a \"*\" is to stand for methods or headers, which it does not beside credentials.",
		"Name the origins, methods and headers, or remove `allowCredentials`.",
	},
	lintCustomOnTCP: {
		"custom-on-tcp", "An AuthorizationPolicy with CUSTOM is for a port of TCP: nobody is asked about connections, so that those it would ask about are denied.",
		"Use ALLOW or DENY for the port, or leave it out with `to.operation.ports` or the selector.",
	},
	lintEmptySubset: {
		"empty-subset", "A subset selects no endpoint of a host that has some: calls to it fail.",
		"Correct the labels of the subset or of the endpoints, or remove the subset.",
	},
	lintForeignGateway: {
		"foreign-gateway", "A VirtualService is for gateways alone: it has no effect on the calls of the mesh.",
		"Nothing, if somebody else serves the Gateway; else add `mesh` to `gateways`, or leave them out.",
	},
	lintForeignParent: {
		"foreign-parent", "An HTTPRoute or GRPCRoute has a Gateway as a parent: there it is not in force, because this is a mesh.",
		"Nothing, if somebody else serves the Gateway; else attach the route to a Service (`group: \"\"`, `kind: Service`).",
	},
	lintGRPCRoutePort: {
		"grpc-route-port", "A GRPCRoute is for a port too over which no gRPC call is made.",
		"Set `port` of the parentRef to the gRPC port.",
	},
	lintImpossibleMatch: {
		"impossible-match", "No request meets a match, or a part of an AuthorizationPolicy: paths begin with a slash, and methods are in upper case.",
		"Write the path with its slash, and the method as clients do.",
	},
	lintIneffectiveBalancing: {
		"ineffective-balancing", "A part of `loadBalancer` has no effect: the policy that the annotation `inboard.balancer` names has no slow start, and no ring or table; or the service has one endpoint for all (`resolution: DNS_ROUND_ROBIN`).",
		"Remove it, or what takes its effect away.",
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
	lintIneffectiveRetry: {
		"ineffective-retry", "A condition of `retryOn` holds for no request: `retriable-headers` needs the names of headers, which a VirtualService does not have, and `http3-post-connect-failure` is about HTTP/3.",
		"Remove it; name what the server answers, like `503`, or use `reset` and `connect-failure`.",
	},
	lintInvisibleDestination: {
		"invisible-destination", "Clients get a route to a service, or to a subset, that they do not see: their calls fail.",
		"Export the ServiceEntry, or the DestinationRule of the subset, to whom the route is exported to.",
	},
	lintMissingWeight: {
		"missing-weight", "A destination has no weight among others: in a VirtualService it gets no request, in a route of the Gateway API the weight 1.",
		"Give it a weight; write `weight: 0` if that is meant.",
	},
	lintMutualTLSConflict: {
		"mtls-conflict", "A DestinationRule asks for plaintext where a PeerAuthentication accepts mutual TLS only, or the other way round: calls fail.",
		"Remove `tls` of the DestinationRule, which is then decided by the endpoints, or change the PeerAuthentication.",
	},
	lintNoBackend: {
		"no-backend", "No backend of a rule has a weight: every request is answered with an error.",
		"Give a backend a weight.",
	},
	lintNoEndpointSlice: {
		"no-endpoint-slice", "A Service has no EndpointSlice, which says where it runs: Pods and Deployments do not. Calls to it fail.",
		"Export them too (`kubectl get endpointslices -o yaml`), or let a ServiceEntry with `endpoints`, or with a `workloadSelector` and WorkloadEntries, be in the place of the Service.",
	},
	lintNoRequests: {
		"no-requests", "An HTTPRoute or GRPCRoute is for a port of TCP, which has no requests: it has no effect there.",
		"Let the port have a protocol of requests, or use `tcp` of a VirtualService.",
	},
	lintOverriddenHost: {
		"overridden-host", "A VirtualService or a ServiceEntry has no effect on one of its hosts, because another one, or a route of the Gateway API, goes before it.",
		"Merge the two, or remove the host from this one.",
	},
	lintPerTryTimeout: {
		"per-try-timeout", "`perTryTimeout` is not shorter than the timeout of the route: it has no effect.",
		"Shorten it, or remove it.",
	},
	lintPersistentSession: {
		"persistent-session", "A Service or a ServiceEntry has a label with which Istio, if told to, lets callers stay with one endpoint: it has no effect here.",
		"Use `consistentHash` of a DestinationRule, by a cookie or a header, with which most callers stay when endpoints change; or let a control plane of your own send the filter `stateful_session`. Remove the label.",
	},
	lintPrefixRewrite: {
		"prefix-rewrite", "What replaces a prefix ends otherwise than the prefix: the path gets two slashes, or two names without one between.",
		"Let both end with a slash, or neither; for `/a` and what is below it, match `/a/` first and then `/a`.",
	},
	lintRedirectLoop: {
		"redirect-loop", "A redirect leads to what the same rule redirects.",
		"Match less, or redirect to something else.",
	},
	lintRetriesExceedTimeout: {
		"retries-exceed-timeout", "The attempts do not fit into the timeout of the route.",
		"Lengthen `timeout`, or shorten `perTryTimeout`, or retry less.",
	},
	lintRetryNonIdempotent: {
		"retry-non-idempotent", "Requests with POST or PATCH, which a rule takes too, are repeated after the server may have acted on them.",
		"Retry on `connect-failure,refused-stream,reset-before-request`, or give these methods a rule of their own before it, or make the server recognize what it has done.",
	},
	lintRewriteQuery: {
		"rewrite-query", "What replaces a path has a query: the rest of the path, and then the request's own query behind another question mark, become the end of its last value.",
		"Let the server read a header, which `headers.request.set` sets, or match exact paths of requests without a query only.",
	},
	lintShadowedRoute: {
		"shadowed-route", "A rule, or a match, is never reached: an earlier one matches all of it.",
		"Move the narrower one before the wider one, or remove it.",
	},
	lintSkippedDocument: {
		"skipped-document", "A document is not about the mesh, or is about what a mesh in processes does not have: it is not read.",
		"Nothing, if it is for somebody else; else say what it says in one of the kinds that are read.",
	},
	lintSymmetricKey: {
		"symmetric-key", "A RequestAuthentication has a symmetric key: what verifies tokens makes them, too. Every workload that the policy is for gets it, and with it any that joins with their labels.",
		"Let the issuer sign with a private key (RS256, ES256, EdDSA), and give its public key.",
	},
	lintTimeoutExceedsCaller: {
		"timeout-exceeds-caller", "A service, known by `sourceLabels` or `sourceNamespace`, may wait for longer than its own callers wait for it.",
		"Shorten the timeout, or lengthen that of the routes to the caller.",
	},
	lintUnknownBackend: {
		"unknown-backend", "A backend of an HTTPRoute or GRPCRoute is not there: its share of the requests is answered with 500, those of a GRPCRoute with UNAVAILABLE, and mirrors copy nothing.",
		"Correct the reference, or add the Service.",
	},
	lintUnknownHost: {
		"unknown-host", "A document names what another namespace does not have: a host, or a subset or a port of one. Or the mesh has no host that a wildcard covers, or none of the name that a VirtualService for gateways too has.",
		"Correct the name, or ask its owner to add it. Nothing, if it is a host of the gateways alone.",
	},
	lintUnknownParent: {
		"unknown-parent", "A parent of an HTTPRoute or GRPCRoute, in another namespace, is not there, has no such port, or is not exported: the route is not in force.",
		"Correct the reference, or ask the owner of the parent to export it.",
	},
	lintUnknownNode: {
		"unknown-node", "An EndpointSlice has an endpoint whose zone is known and whose region is not, because its Node is in no document: no caller is of its region, so that locality settings have calls go where they would not in the cluster.",
		"Export the Nodes too (`kubectl get nodes -o yaml`), which have the region in a label, or give the Pods the label `istio-locality`.",
	},
	lintUnknownPod: {
		"unknown-pod", "An EndpointSlice has an endpoint whose Pod is in no document: its labels and service account are not known, so that no subset selects it, and calls to it are not secured.",
		"Export the Pods too, or give `tls` and `subjectAltNames` in a DestinationRule.",
	},
	lintUnknownProtocol: {
		"unknown-protocol", "A port of a Service does not say that it speaks HTTP, HTTP/2, gRPC or TCP, or one of a ServiceEntry says HTTPS or TLS: it is not in the mesh.",
		"Set `appProtocol` of the port, or let its name begin with `http-`, `http2-`, `grpc-` or `tcp-`. Nothing, if its callers encrypt by themselves and need no mesh.",
	},
	lintUnknownProvider: {
		"unknown-provider", "An AuthorizationPolicy with CUSTOM names a provider that the mesh configuration does not have: every request is denied.",
		"Add it to `extensionProviders`, in the entry `mesh` of the ConfigMap `istio`, or correct the name.",
	},
	lintUnmatchedSelector: {
		"unmatched-selector", "A selector of a ServiceEntry or of a policy selects no workload of the documents, or a policy without one is in a namespace where none of them is. Those that join with labels of their own, or there, may match.",
		"Correct the labels, or the namespace. Nothing, if the workloads say them themselves (`inboard bootstrap --labels`, `--namespace`).",
	},
	lintUnservedPort: {
		"unserved-port", "`portLevelMtls` of a PeerAuthentication, or a rule of an AuthorizationPolicy, has a port that no selected workload serves: what a rule denies there is allowed.",
		"Write the port of the process, `targetPort` of the service.",
	},
	lintUnusedDelegate: {
		"unused-delegate", "A VirtualService has no hosts, and nobody delegates to it.",
		"Give it hosts, or delegate to it.",
	},
	lintUnusedDestinationRule: {
		"unused-destination-rule", "No client uses a DestinationRule: for each, another one is in its place, or this one is not looked for where it is.",
		"Move it to the namespace of the service or of the clients, or change `exportTo`.",
	},
	lintWeightSum: {
		"weight-sum", "The weights of a rule's destinations do not sum up to 100.",
		"Write percentages, so that each weight says what it does.",
	},
}
