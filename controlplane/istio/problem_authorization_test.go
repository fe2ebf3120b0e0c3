package istio_test

// authorizationCase is one policy, whose spec begins in column 7 of line 4.
func authorizationCase(name, spec string, want ...string) problemCase {
	for i := range want {
		want[i] = "x.yaml:4:" + want[i]
	}
	return problemCase{
		name: name, want: want,
		yaml: "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: " + spec + "\n",
	}
}

var authorizationProblems = []problemCase{
	authorizationCase("an unknown field", `{rules: [{from: [{source: {principal: [a]}}]}]}`,
		`34: AuthorizationPolicy shop/p: spec.rules[0].from[0].source.principal: unknown field: did you mean "principals"?`),
	authorizationCase("a source without a field", `{rules: [{from: [{source: {}}]}]}`,
		`33: AuthorizationPolicy shop/p: spec.rules[0].from[0].source: must have a field: to match every source, remove "from"`),
	authorizationCase("an operation without a field", `{rules: [{to: [{}]}]}`,
		`22: AuthorizationPolicy shop/p: spec.rules[0].to[0].operation: must have a field: to match every operation, remove "to"`),
	authorizationCase("an empty list", `{rules: [{to: [{operation: {paths: [], methods: [GET]}}]}]}`,
		`42: AuthorizationPolicy shop/p: spec.rules[0].to[0].operation.paths: must not be empty: remove it, or write a value`),
	authorizationCase("an empty value", `{rules: [{to: [{operation: {paths: [""]}}]}]}`,
		`43: AuthorizationPolicy shop/p: spec.rules[0].to[0].operation.paths[0]: must not be empty`),
	authorizationCase("no source in a list of sources", `{rules: [{from: [], to: [], when: []}]}`,
		`23: AuthorizationPolicy shop/p: spec.rules[0].from: must not be empty: to match whatever it is, remove "from"`,
		`31: AuthorizationPolicy shop/p: spec.rules[0].to: must not be empty: to match whatever it is, remove "to"`,
		`41: AuthorizationPolicy shop/p: spec.rules[0].when: must not be empty: to match whatever it is, remove "when"`),
	authorizationCase("paths and hosts that nobody asks for", `{rules: [{to: [{operation: {paths: [admin], hosts: ["http://a"], notPaths: ["/a?b"]}}]}]}`,
		`43: AuthorizationPolicy shop/p: spec.rules[0].to[0].operation.paths[0]: "admin" is met by no request: paths begin with a slash`,
		`59: AuthorizationPolicy shop/p: spec.rules[0].to[0].operation.hosts[0]: "http://a" is not a host: write a name, with a port or without`,
		`83: AuthorizationPolicy shop/p: spec.rules[0].to[0].operation.notPaths[0]: "/a?b" is met by no request: a path has no query`),
	authorizationCase("a principal with a scheme", `{action: DENY, rules: [{from: [{source: {principals: ["spiffe://cluster.local/ns/a/sa/b"]}}]}]}`,
		`61: AuthorizationPolicy shop/p: spec.rules[0].from[0].source.principals[0]: "spiffe://cluster.local/ns/a/sa/b" is met by nobody: write it without "spiffe://"`),
	authorizationCase("headers that nobody sees", `{action: DENY, rules: [{when: [{key: "request.headers[x-role:]", values: [a]}]}]}`,
		`44: AuthorizationPolicy shop/p: spec.rules[0].when[0].key: "x-role:" is not the name of a header`),
	authorizationCase("a star in the middle", `{rules: [{to: [{operation: {paths: ["/a*b"]}}]}]}`,
		`43: AuthorizationPolicy shop/p: spec.rules[0].to[0].operation.paths[0]: "/a*b": a star stands at the beginning or at the end`),
	authorizationCase("a template with a star", `{rules: [{to: [{operation: {paths: ["/{*}/b*"]}}]}]}`,
		`43: AuthorizationPolicy shop/p: spec.rules[0].to[0].operation.paths[0]: "/{*}/b*": a template has {*} for a segment and {**} for several, and no other braces or stars`),
	authorizationCase("a port that is none", `{rules: [{to: [{operation: {ports: ["http"]}}]}]}`,
		`43: AuthorizationPolicy shop/p: spec.rules[0].to[0].operation.ports[0]: "http" is not a port: use 1..65535`),
	authorizationCase("a block that is none", `{rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]}`,
		`45: AuthorizationPolicy shop/p: spec.rules[0].from[0].source.ipBlocks[0]: "10.0.0.0/33" is neither an IP address nor a block such as 10.0.0.0/8`),
	authorizationCase("a service account with a wildcard", `{rules: [{from: [{source: {serviceAccounts: ["shop/*"]}}]}]}`,
		`52: AuthorizationPolicy shop/p: spec.rules[0].from[0].source.serviceAccounts[0]: "shop/*" is not a service account: write ACCOUNT or NAMESPACE/ACCOUNT, without wildcards`),
	authorizationCase("service accounts beside principals", `{rules: [{from: [{source: {serviceAccounts: [a], principals: [b]}}]}]}`,
		`51: AuthorizationPolicy shop/p: spec.rules[0].from[0].source.serviceAccounts: cannot be set together with principals or namespaces`),
	authorizationCase("a condition without values", `{rules: [{when: [{key: source.ip}]}]}`,
		`24: AuthorizationPolicy shop/p: spec.rules[0].when[0]: must have values or notValues`),
	authorizationCase("a key that nobody knows", `{rules: [{when: [{key: source.age, values: [a]}]}]}`,
		`30: AuthorizationPolicy shop/p: spec.rules[0].when[0].key: "source.age" is not a key of a condition`),
	authorizationCase("a key with an open bracket", `{rules: [{when: [{key: "request.headers[a", values: [a]}]}]}`,
		`30: AuthorizationPolicy shop/p: spec.rules[0].when[0].key: "request.headers[a" is not a key of a condition`),
	authorizationCase("an experimental key", `{rules: [{when: [{key: "experimental.envoy.filters.network.mysql_proxy[db]", values: [a]}]}]}`,
		`30: AuthorizationPolicy shop/p: spec.rules[0].when[0].key: "experimental.envoy.filters.network.mysql_proxy[db]" is not supported: it is for filters that are not here`),
	authorizationCase("CUSTOM without a provider", `{action: CUSTOM, rules: [{}]}`,
		`1: AuthorizationPolicy shop/p: spec.provider.name: is required for CUSTOM: name an extension provider of the mesh configuration`),
	authorizationCase("a provider of another action", `{action: DENY, provider: {name: opa}, rules: [{}]}`,
		`32: AuthorizationPolicy shop/p: spec.provider: is for CUSTOM only: remove it`),
	authorizationCase("CUSTOM about tokens", `{action: CUSTOM, provider: {name: opa}, rules: [{from: [{source: {requestPrincipals: ["*"]}}], when: [{key: "request.auth.claims[a]", values: [b]}]}]}`,
		`92: AuthorizationPolicy shop/p: spec.rules[0].from[0].source.requestPrincipals: is not possible with CUSTOM, which is decided before tokens are looked at: use ALLOW or DENY`,
		`115: AuthorizationPolicy shop/p: spec.rules[0].when[0].key: is not possible with CUSTOM, which is decided before tokens are looked at: use ALLOW or DENY`),
	authorizationCase("a DENY that denies nothing", `{action: DENY}`,
		`1: AuthorizationPolicy shop/p: spec.rules: is required for DENY: without a rule the policy matches nothing`),
	authorizationCase("a target of gateways", `{targetRefs: [{kind: Gateway, name: g}]}`,
		`8: AuthorizationPolicy shop/p: spec.targetRefs: is for gateways and waypoints, of which there is none here, and binds no workload: choose the workloads with spec.selector`),
	authorizationCase("a target that is a Service", `{targetRef: {kind: Service, name: payment}}`,
		`8: AuthorizationPolicy shop/p: spec.targetRef: is for gateways and waypoints, of which there is none here, and binds no workload: choose the workloads with spec.selector`),
	{name: "a trial that is neither on nor off", yaml: `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: p
  namespace: shop
  annotations: {istio.io/dry-run: "yes"}
spec: {}
`, want: []string{
		`x.yaml:6:35: AuthorizationPolicy shop/p: metadata.annotations[istio.io/dry-run]: "yes" is neither "true" nor "false"`,
	}},
}
