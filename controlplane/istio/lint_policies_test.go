package istio_test

var policyLintCases = []lintCase{
	{"asks-itself", "a whole namespace", providers + policy("shop", "p", `{action: CUSTOM, provider: {name: opa}, rules: [{}]}`), []string{
		`spec: is for the service "payment.shop.svc.cluster.local" of its provider "opa", too: a question that its rules match is asked about in turn, without end`,
	}},
	{"asks-itself", "other workloads", providers + policy("shop", "p", `{selector: {matchLabels: {app: other}}, action: CUSTOM, provider: {name: opa}, rules: [{}]}`), nil},
	{"unknown-provider", "of nobody", policy("shop", "p", `{action: CUSTOM, provider: {name: gone}, rules: [{}]}`), []string{
		`spec.provider.name: no extension provider of the mesh configuration is called "gone": every request is denied`,
	}},
	{"unknown-provider", "of the mesh configuration", providers + policy("shop", "p", `{action: CUSTOM, provider: {name: opa}, rules: [{}]}`), nil},
	{"unserved-port", "the port of nobody", peerPolicy("  selector: {matchLabels: {version: v1}}\n  portLevelMtls: {80: {mode: STRICT}, 8080: {mode: STRICT}}\n"), []string{
		`spec.portLevelMtls[80]: no selected endpoint serves port 80: the number is that of the process, targetPort, and not of the service`,
	}},
	{"unserved-port", "of rules", policy("shop", "p", `{action: DENY, rules: [{to: [{operation: {ports: ["80", "8080"], notPorts: ["443"]}}], when: [{key: destination.port, values: ["81"], notValues: ["82"]}]}]}`) +
		policy("shop", "q", `{selector: {matchLabels: {version: v1}}, rules: [{to: [{operation: {ports: ["80"]}}]}]}`) +
		policy("istio-system", "r", `{action: AUDIT, rules: [{to: [{operation: {ports: ["80"]}}]}]}`), []string{
		`spec.rules[0].to[0].operation.ports[0]: no selected endpoint serves port 80, so that it denies nothing: the number is that of the process, targetPort, and not of the service`,
		`spec.rules[0].to[0].operation.notPorts[0]: no selected endpoint serves port 443, so that it exempts nothing: the number is that of the process, targetPort, and not of the service`,
		`spec.rules[0].when[0].values[0]: no selected endpoint serves port 81, so that it denies nothing: the number is that of the process, targetPort, and not of the service`,
		`spec.rules[0].when[0].notValues[0]: no selected endpoint serves port 82, so that it exempts nothing: the number is that of the process, targetPort, and not of the service`,
		`spec.rules[0].to[0].operation.ports[0]: no selected endpoint serves port 80, so that it allows nothing: the number is that of the process, targetPort, and not of the service`,
		`spec.rules[0].to[0].operation.ports[0]: no selected endpoint serves port 80, so that it reports nothing: the number is that of the process, targetPort, and not of the service`,
	}},
	{"unserved-port", "of rules, of CUSTOM", providers + policy("shop", "p", `{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {ports: ["80"]}}]}]}`), []string{
		`spec.rules[0].to[0].operation.ports[0]: no selected endpoint serves port 80, so that nobody is asked about anything: the number is that of the process, targetPort, and not of the service`,
	}},
	{"unserved-port", "of rules, that are served", policy("shop", "p", `{action: DENY, rules: [{to: [{operation: {ports: ["8080", "9090"]}}], when: [{key: destination.port, values: ["9090"]}]}]}`) +
		policy("bank", "p", `{action: DENY, rules: [{to: [{operation: {ports: ["7070"]}}]}]}`), nil},
	{"unserved-port", "a port that is served", peerPolicy("  selector: {matchLabels: {version: v1}}\n  portLevelMtls: {8080: {mode: STRICT}}\n"), nil},
}
