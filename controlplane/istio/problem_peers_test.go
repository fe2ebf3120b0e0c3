package istio_test

var peerAuthenticationProblems = []problemCase{
	{name: "a mode without a value, which would be no policy", yaml: `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a, namespace: shop}
spec:
  mtls:
    mode:
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: b, namespace: bank}
spec:
  mtls:
`, want: []string{
		"x.yaml:6:10: PeerAuthentication shop/a: spec.mtls.mode: has no value: write one, or remove the field",
		"x.yaml:12:8: PeerAuthentication bank/b: spec.mtls: has no value: write one, or remove the field",
	}},
	{name: "two policies for a namespace", yaml: `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a, namespace: shop}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: b, namespace: shop}
spec: {mtls: {mode: STRICT}}
`, want: []string{
		"x.yaml:8:7: PeerAuthentication shop/b: spec: PeerAuthentication shop/a (x.yaml:1) already has no selector: a namespace can have one such policy",
	}},
	{name: "two policies for a workload", yaml: `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a, namespace: shop}
spec: {selector: {matchLabels: {app: a}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: b, namespace: shop}
spec: {selector: {matchLabels: {version: v1}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: c, namespace: shop}
spec: {selector: {matchLabels: {app: c, version: v2}}}
`, want: []string{
		"x.yaml:9:32: PeerAuthentication shop/b: spec.selector.matchLabels: a workload could match this selector and that of PeerAuthentication shop/a (x.yaml:1): add a label that tells them apart",
	}},
	{name: "selectors and ports", yaml: `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a, namespace: istio-system}
spec: {selector: {matchLabels: {app: a}}, mtls: {mode: strict}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: b, namespace: shop}
spec: {portLevelMtls: {8080: {mode: STRICT}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: c, namespace: shop}
spec: {selector: {matchLabels: {app: "*"}}, portLevelMtls: {http: {}, 0: {}, 80: ~, 08080: {}, 8080: {}}}
`, want: []string{
		`x.yaml:4:8: PeerAuthentication istio-system/a: spec.selector: has no effect in the root namespace "istio-system": move the policy to the namespace of its workloads`,
		`x.yaml:4:56: PeerAuthentication istio-system/a: spec.mtls.mode: "strict" is not one of UNSET, DISABLE, PERMISSIVE, STRICT`,
		"x.yaml:9:8: PeerAuthentication shop/b: spec.portLevelMtls: needs a selector",
		`x.yaml:14:38: PeerAuthentication shop/c: spec.selector.matchLabels[app]: "app": "*" is not a label: wildcards are not supported`,
		"x.yaml:14:61: PeerAuthentication shop/c: spec.portLevelMtls[http]: expected a port number before ':'",
		"x.yaml:14:71: PeerAuthentication shop/c: spec.portLevelMtls[0]: is not a port: use 1..65535",
		"x.yaml:14:82: PeerAuthentication shop/c: spec.portLevelMtls[80]: must not be empty",
		"x.yaml:14:96: PeerAuthentication shop/c: spec.portLevelMtls[8080]: is set twice",
	}},
}
