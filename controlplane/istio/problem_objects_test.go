package istio_test

var documentProblems = []problemCase{
	{name: "a file that is not YAML", yaml: "kind: ServiceEntry\nspec: {hosts: [a\n", want: []string{
		"x.yaml:2: not valid YAML: did not find expected ',' or ']'",
	}},
	{name: "text instead of an object", yaml: "hello\n", want: []string{
		"x.yaml:1:1: expected a mapping, found text",
	}},
	{name: "no kind", yaml: "apiVersion: v1\n", want: []string{
		"x.yaml:1:1: kind: is required, as in any Kubernetes document",
	}},
	{name: "a kind that nobody knows", yaml: "apiVersion: v1\nkind: Thing\n", want: []string{
		`x.yaml:2:7: Thing: kind: "Thing" is not supported: use one of ServiceEntry, WorkloadEntry, DestinationRule, VirtualService, PeerAuthentication, RequestAuthentication, AuthorizationPolicy, HTTPRoute, GRPCRoute, Service, EndpointSlice, Pod, Node, or the ConfigMap istio`,
	}},
	{name: "another API group", yaml: "apiVersion: networking.k8s.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\n", want: []string{
		`x.yaml:1:13: ServiceEntry default/a: apiVersion: "networking.k8s.io/v1" is not an API version of ServiceEntry: use networking.istio.io/v1, networking.istio.io/v1beta1, networking.istio.io/v1alpha3`,
	}},
	{name: "no name and a bad namespace", yaml: "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {namespace: Shop}\nspec: {address: 10.0.0.1}\n", want: []string{
		"x.yaml:3:1: WorkloadEntry: metadata.name: is required",
		`x.yaml:3:23: WorkloadEntry: metadata.namespace: "Shop" is not a namespace: use lower case letters, digits and '-', at most 63`,
	}},
	{name: "metadata that is no mapping", yaml: "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: []\nspec: {address: 10.0.0.1}\n", want: []string{
		"x.yaml:3:11: WorkloadEntry: metadata: expected a mapping, found a list",
	}},
	{name: "the same object twice", yaml: `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a}
spec: {address: 10.0.0.1}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: a, namespace: default}
spec: {address: 10.0.0.2}
`, want: []string{
		"x.yaml:8:18: WorkloadEntry default/a: metadata.name: is defined twice: first at x.yaml:1",
	}},
	{name: "unknown fields at every level", yaml: `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a, nmae: b, uid: c}
status: {}
spec: {address: 10.0.0.1, Weight: 3, colour: red}
spce: {}
`, want: []string{
		"x.yaml:3:21: WorkloadEntry default/a: metadata.nmae: unknown field",
		`x.yaml:5:27: WorkloadEntry default/a: spec.Weight: unknown field: did you mean "weight"?`,
		"x.yaml:5:38: WorkloadEntry default/a: spec.colour: unknown field",
		"x.yaml:6:1: WorkloadEntry default/a: spce: unknown field",
	}},
	{name: "keys that occur twice", yaml: `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a}
spec:
  address: 10.0.0.1
  labels: {app: a, app: b}
  serviceAccount: a
  service_account: b
  address: 10.0.0.2
`, want: []string{
		"x.yaml:6:20: WorkloadEntry default/a: spec.labels[app]: is set twice",
		"x.yaml:8:3: WorkloadEntry default/a: spec.serviceAccount: is set twice",
		"x.yaml:9:3: WorkloadEntry default/a: spec.address: is set twice",
	}},
	{name: "values of the wrong type", yaml: `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a, labels: {n: 1}}
spec:
  address: [10.0.0.1]
  labels: {version: 2, on: true, day: 2024-01-02, f: {}}
  ports: {http: eighty, grpc: 4294967296}
  weight: 1.5
`, want: []string{
		"x.yaml:3:33: WorkloadEntry default/a: metadata.labels[n]: expected text, found the number 1: put it in quotes",
		"x.yaml:5:12: WorkloadEntry default/a: spec.address: expected text, found a list",
		"x.yaml:6:21: WorkloadEntry default/a: spec.labels[version]: expected text, found the number 2: put it in quotes",
		"x.yaml:6:28: WorkloadEntry default/a: spec.labels[on]: expected text, found the truth value true: put it in quotes",
		"x.yaml:6:39: WorkloadEntry default/a: spec.labels[day]: expected text, found the date 2024-01-02: put it in quotes",
		"x.yaml:6:54: WorkloadEntry default/a: spec.labels[f]: expected text, found a mapping",
		"x.yaml:7:17: WorkloadEntry default/a: spec.ports[http]: expected a whole number, found text",
		"x.yaml:7:31: WorkloadEntry default/a: spec.ports[grpc]: 4294967296 is not in 0..4294967295",
		"x.yaml:8:11: WorkloadEntry default/a: spec.weight: expected a whole number, found the number 1.5",
	}},
	{name: "nulls, aliases and keys that are lists", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [&h a.example.com, *h, ~]
  resolution: STATIC
  location: ~
  ports: [{name: http, number: 80, protocol: HTTP}]
  ? [a]
  : b
`, want: []string{
		"x.yaml:5:29: ServiceEntry default/a: spec.hosts[1]: expected text, found an alias (aliases are not supported: write the value out)",
		"x.yaml:5:33: ServiceEntry default/a: spec.hosts[2]: must not be empty",
		"x.yaml:7:13: ServiceEntry default/a: spec.location: has no value: write one, or remove the field",
		"x.yaml:9:5: ServiceEntry default/a: spec: expected a name before ':', found a list",
	}},
	{name: "annotations that mean something", yaml: `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: a
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: "{}"
    inboard.breaker: "{}"
    inboard.braker: "{}"
    networking.istio.io/exportTo: "."
spec: {address: 10.0.0.1}
`, want: []string{
		"x.yaml:7:5: WorkloadEntry default/a: metadata.annotations[inboard.breaker]: belongs on a DestinationRule",
		`x.yaml:8:5: WorkloadEntry default/a: metadata.annotations[inboard.braker]: unknown annotation: known are inboard.balancer, inboard.breaker, inboard.deadline, inboard.hedge, inboard.priorities, inboard.retry_throttle, inboard.subsetting`,
		"x.yaml:9:5: WorkloadEntry default/a: metadata.annotations[networking.istio.io/exportTo]: annotations of Istio are not supported: remove it",
	}},
	{name: "mistakes inside of a List", yaml: `
apiVersion: v1
kind: List
items:
- apiVersion: networking.istio.io/v1
  kind: WorkloadEntry
  metadata: {name: a}
  spec: {address: localhost}
- 7
`, want: []string{
		`x.yaml:7:19: WorkloadEntry default/a: spec.address: "localhost" is not an IP address: names are for a ServiceEntry with resolution DNS, sockets are not supported`,
		"x.yaml:8:3: expected a mapping, found the number 7",
	}},
	{name: "a List without a list", yaml: "kind: List\nitems: {}\n", want: []string{
		"x.yaml:2:8: List: items: expected a list, found a mapping",
	}},
}

var serviceEntryProblems = []problemCase{
	{name: "a service without anything", yaml: "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\n", want: []string{
		"x.yaml:1:1: ServiceEntry default/a: spec.resolution: is required: use STATIC and list the endpoints, or DNS",
		"x.yaml:1:1: ServiceEntry default/a: spec.ports: is required",
		"x.yaml:1:1: ServiceEntry default/a: spec.hosts: is required",
	}},
	{name: "hosts that cannot be served", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: ["*.example.com", A.example.com, a_b, payment.shop.svc.cluster.local, ""]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
`, want: []string{
		`x.yaml:5:11: ServiceEntry default/a: spec.hosts[0]: "*.example.com": hosts with a wildcard are not supported: name each host`,
		`x.yaml:5:28: ServiceEntry default/a: spec.hosts[1]: "A.example.com": write hosts in lower case`,
		`x.yaml:5:43: ServiceEntry default/a: spec.hosts[2]: "a_b" is not a host name`,
		"x.yaml:5:80: ServiceEntry default/a: spec.hosts[4]: is required",
	}},
	{name: "fields of a service that are not translated", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  addresses: [10.1.0.1]
  exportTo: ["*", "."]
  resolution: NONE
  location: OUTSIDE
  ports: [{name: http, number: 80, protocol: HTTP}]
`, want: []string{
		"x.yaml:6:3: ServiceEntry default/a: spec.addresses: is not supported: remove it",
		`x.yaml:7:14: ServiceEntry default/a: spec.exportTo[0]: "*" cannot stand with others: keep one of them`,
		"x.yaml:8:15: ServiceEntry default/a: spec.resolution: NONE is not supported: use STATIC and list the endpoints, or DNS",
		`x.yaml:9:13: ServiceEntry default/a: spec.location: "OUTSIDE" is not one of MESH_EXTERNAL, MESH_INTERNAL`,
	}},
	{name: "ports", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  resolution: STATIC
  ports:
  - {name: http, number: 80, protocol: HTTP}
  - {name: http, number: 80, protocol: UDP, targetPort: 0}
  - {name: Bad, number: 70000}
`, want: []string{
		`x.yaml:9:12: ServiceEntry default/a: spec.ports[1].name: "http" is the name of two ports`,
		"x.yaml:9:26: ServiceEntry default/a: spec.ports[1].number: 80 is the number of two ports",
		`x.yaml:9:40: ServiceEntry default/a: spec.ports[1].protocol: "UDP" is not supported: use HTTP, HTTP2, GRPC or TCP`,
		"x.yaml:9:57: ServiceEntry default/a: spec.ports[1].targetPort: 0 is not a port: use 1..65535",
		"x.yaml:10:5: ServiceEntry default/a: spec.ports[2].protocol: is required, because protocols are not guessed: use HTTP, HTTP2, GRPC or TCP",
		`x.yaml:10:12: ServiceEntry default/a: spec.ports[2].name: "Bad" is not a port name: use lower case letters, digits and '-'`,
		"x.yaml:10:25: ServiceEntry default/a: spec.ports[2].number: 70000 is not a port: use 1..65535",
	}},
	{name: "endpoints", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints:
  - address: a.example.com
  - {address: 10.0.0.1, ports: {https: 443, http: 0}}
  - {address: "::ffff:10.0.0.3", network: other, locality: a/b/c/d, serviceAccount: ../admin}
  - {address: 10.0.0.3}
`, want: []string{
		`x.yaml:4:1: ServiceEntry default/a: spec.location: cluster "outbound|80||a.example.com": the endpoints offer mutual TLS, but Istio uses none towards MESH_EXTERNAL, the default: set location to MESH_INTERNAL, or set trafficPolicy.tls.mode in a DestinationRule for the host`,
		`x.yaml:9:14: ServiceEntry default/a: spec.endpoints[0].address: "a.example.com" is not an IP address: names are for a ServiceEntry with resolution DNS, sockets are not supported`,
		"x.yaml:10:33: ServiceEntry default/a: spec.endpoints[1].ports[https]: no port of the ServiceEntry has this name",
		"x.yaml:10:51: ServiceEntry default/a: spec.endpoints[1].ports[http]: 0 is not a port: use 1..65535",
		`x.yaml:11:60: ServiceEntry default/a: spec.endpoints[2].locality: "a/b/c/d" is not a locality: write region/zone/subzone`,
		`x.yaml:11:85: ServiceEntry default/a: spec.endpoints[2].serviceAccount: "../admin" is not the name of a service account`,
		"x.yaml:12:15: ServiceEntry default/a: spec.endpoints[3].address: 10.0.0.3:80 is already an endpoint: ServiceEntry default/a (x.yaml:1)",
	}},
	{name: "a selector and endpoints", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1}]
  workloadSelector: {}
`, want: []string{
		`x.yaml:9:3: ServiceEntry default/a: spec.workloadSelector: cannot be set together with "endpoints"`,
	}},
	{name: "a selector with a wildcard", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  workloadSelector: {labels: {app: "pay*"}}
`, want: []string{
		`x.yaml:8:36: ServiceEntry default/a: spec.workloadSelector.labels[app]: "app": "pay*" is not a label: wildcards are not supported`,
	}},
	{name: "weights that overflow", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, weight: 4294967295}, {address: 10.0.0.2}]
`, want: []string{
		`x.yaml:8:14: ServiceEntry default/a: spec.endpoints: the weights of the endpoints of "outbound|80||a.example.com" sum up to 4294967296: at most 4294967295 is possible`,
	}},
}

var mutualTLSProblems = []problemCase{
	{name: "endpoints that differ, of which names are wanted", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  subjectAltNames: [spiffe://cluster.local/ns/default/sa/a]
  endpoints:
  - {address: 10.0.0.1, serviceAccount: a}
  - {address: 10.0.0.2, serviceAccount: a, labels: {security.istio.io/tlsMode: disabled}}
`, want: []string{
		`x.yaml:9:20: ServiceEntry default/a: spec.subjectAltNames: cluster "outbound|80||a.example.com": endpoint 10.0.0.1 offers mutual TLS, endpoint 10.0.0.2 does not, and would not be verified: give every endpoint a serviceAccount, or set trafficPolicy.tls.mode in a DestinationRule for the host`,
	}},
	{name: "TLS to the outside", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a.example.com
  trafficPolicy: {tls: {mode: MUTUAL}}
  subsets:
  - {name: v1, trafficPolicy: {tls: {mode: ISTIO_MUTUAL, credentialName: own}}}
  - {name: v2, trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}}
  - {name: v3, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /etc/roots.pem}}}
`, want: []string{
		`x.yaml:5:9: DestinationRule default/a: spec.host: no Service or ServiceEntry has the host "a.example.com"`,
		"x.yaml:6:19: DestinationRule default/a: spec.trafficPolicy.tls.credentialName: is required with mode MUTUAL: the name of a certificate provider in the clients' bootstrap",
		"x.yaml:8:58: DestinationRule default/a: spec.subsets[0].trafficPolicy.tls.credentialName: has no effect with mode ISTIO_MUTUAL: remove it",
		"x.yaml:9:52: DestinationRule default/a: spec.subsets[1].trafficPolicy.tls.insecureSkipVerify: is not supported: remove it",
		"x.yaml:10:52: DestinationRule default/a: spec.subsets[2].trafficPolicy.tls.caCertificates: is not supported: use credentialName, the name of a certificate provider in the clients' bootstrap, which says what files there are",
	}},
	{name: "identities outside of the mesh", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, serviceAccount: a}]
`, want: []string{
		`x.yaml:4:1: ServiceEntry default/a: spec.location: cluster "outbound|80||a.example.com": the endpoints offer mutual TLS, but Istio uses none towards MESH_EXTERNAL, the default: set location to MESH_INTERNAL, or set trafficPolicy.tls.mode in a DestinationRule for the host`,
	}},
	{name: "names that nobody would verify", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  subjectAltNames: [a.example.com, ""]
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1}]
`, want: []string{
		`x.yaml:8:20: ServiceEntry default/a: spec.subjectAltNames: cluster "outbound|80||a.example.com": names are verified with mutual TLS only, which no endpoint offers: give every endpoint a serviceAccount, or set trafficPolicy.tls.mode in a DestinationRule for the host`,
		"x.yaml:8:36: ServiceEntry default/a: spec.subjectAltNames[1]: must not be empty",
	}},
	{name: "nobody to expect", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, labels: {security.istio.io/tlsMode: istio}}]
`, want: []string{
		`x.yaml:5:3: ServiceEntry default/a: spec: mutual TLS to "a.example.com" has no service account to expect: set serviceAccount on its endpoints, or subjectAltNames`,
	}},
	{name: "nobody to expect by a rule", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: a.example.com, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
`, want: []string{
		`x.yaml:13:50: DestinationRule default/a: spec.trafficPolicy.tls: mutual TLS to "a.example.com" has no service account to expect: set serviceAccount on its endpoints, or subjectAltNames`,
	}},
}

var destinationRuleProblems = []problemCase{
	{name: "a TLS mode without a value, which would be plaintext", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    tls:
      mode:
`, want: []string{
		"x.yaml:8:12: DestinationRule shop/a: spec.trafficPolicy.tls.mode: has no value: write one, or remove the field",
	}},
	{name: "a host that nobody serves", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec: {host: reviews}
`, want: []string{
		`x.yaml:4:14: DestinationRule shop/a: spec.host: no Service or ServiceEntry has the host "reviews.shop.svc.cluster.local"`,
	}},
	{name: "a host that Istio would not complete", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec: {host: payment.shop}
`, want: []string{
		`x.yaml:4:14: DestinationRule shop/a: spec.host: no Service or ServiceEntry has the host "payment.shop": Istio completes only names without a dot, write "payment.shop.svc.cluster.local"`,
	}},
	{name: "no host", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec: {}
`, want: []string{
		"x.yaml:4:1: DestinationRule shop/a: spec.host: is required",
	}},
	{name: "two rules of a namespace for one host", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec: {host: payment}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec: {host: payment.shop.svc.cluster.local}
`, want: []string{
		`x.yaml:9:14: DestinationRule shop/b: spec.host: "payment.shop.svc.cluster.local" already has DestinationRule shop/a (x.yaml:1): merging is not supported`,
	}},
	{name: "settings of HTTP/2", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    connectionPool: {http: {maxConcurrentStreams: -1, http2KeepAlive: {interval: 1.0005s}}}
    portLevelSettings:
    - {port: {number: 8080}, connectionPool: {http: {http2KeepAlive: {timeout: 0s}}}}
`, want: []string{
		"x.yaml:7:51: DestinationRule shop/a: spec.trafficPolicy.connectionPool.http.maxConcurrentStreams: -1 is negative",
		"x.yaml:7:55: DestinationRule shop/a: spec.trafficPolicy.connectionPool.http.http2KeepAlive.timeout: is required: the time that a peer has for an answer",
		"x.yaml:7:82: DestinationRule shop/a: spec.trafficPolicy.connectionPool.http.http2KeepAlive.interval: 1.0005s is too precise: use whole milliseconds",
		"x.yaml:9:54: DestinationRule shop/a: spec.trafficPolicy.portLevelSettings[0].connectionPool.http.http2KeepAlive.interval: is required: the time after which a silent peer is asked",
		"x.yaml:9:80: DestinationRule shop/a: spec.trafficPolicy.portLevelSettings[0].connectionPool.http.http2KeepAlive.timeout: 0s is too short: use at least 1ms, or leave the field out",
	}},
	{name: "settings that are not translated", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  exportTo: [.]
  workloadSelector: {matchLabels: {app: a}}
  trafficPolicy:
    outlierDetection: {consecutiveErrors: 3, outlierDetectionHttpErrorCodes: [429]}
    loadBalancer: {zoneAwareLbSetting: {}}
    portLevelSettings:
    - {port: {number: 8080}, loadBalancer: {simple: PASSTHROUGH}}
`, want: []string{
		"x.yaml:7:3: DestinationRule shop/a: spec.workloadSelector: is not supported: remove it",
		"x.yaml:9:24: DestinationRule shop/a: spec.trafficPolicy.outlierDetection.consecutiveErrors: is not supported: remove it: it is deprecated: use consecutiveGatewayErrors",
		"x.yaml:9:46: DestinationRule shop/a: spec.trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes: is not supported: remove it",
		"x.yaml:10:20: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.zoneAwareLbSetting: is not supported: remove it, or use localityLbSetting: it depends on which service the caller is an endpoint of, and a client of this control plane need not be one",
		"x.yaml:12:53: DestinationRule shop/a: spec.trafficPolicy.portLevelSettings[0].loadBalancer.simple: PASSTHROUGH is not supported, because it forwards to the address that a caller has connected to, and a caller in the process has connected to none: use ROUND_ROBIN, LEAST_REQUEST or RANDOM",
	}},
	{name: "load balancers", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    loadBalancer: {consistentHash: {minimumRingSize: 8388609}}
    portLevelSettings:
    - {port: {number: 8080}, loadBalancer: {consistentHash: {httpHeaderName: "", maglev: {tableSize: 4}}}}
  subsets:
  - name: one
    trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {ttl: -1s, attributes: [{value: a}]}}, warmup: {duration: 1s}}}
  - name: two
    trafficPolicy: {loadBalancer: {simple: RANDOM, warmup: {minimumPercent: 101, aggression: 0.5}, warmupDurationSecs: 1s}}
  - name: three
    trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: "a b"}}}
`, want: []string{
		"x.yaml:7:36: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.consistentHash: needs httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName",
		"x.yaml:7:54: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize: 8388609 is too large: use at most 8388608",
		"x.yaml:9:78: DestinationRule shop/a: spec.trafficPolicy.portLevelSettings[0].loadBalancer.consistentHash.httpHeaderName: must not be empty",
		"x.yaml:9:102: DestinationRule shop/a: spec.trafficPolicy.portLevelSettings[0].loadBalancer.consistentHash.maglev.tableSize: 4 is not a prime number up to 5000011: leave it out for 65537",
		"x.yaml:12:53: DestinationRule shop/a: spec.subsets[0].trafficPolicy.loadBalancer.consistentHash.httpCookie.name: must not be empty",
		"x.yaml:12:71: DestinationRule shop/a: spec.subsets[0].trafficPolicy.loadBalancer.consistentHash.httpCookie.ttl: -1s is negative",
		"x.yaml:12:89: DestinationRule shop/a: spec.subsets[0].trafficPolicy.loadBalancer.consistentHash.httpCookie.attributes[0].name: must not be empty",
		"x.yaml:12:112: DestinationRule shop/a: spec.subsets[0].trafficPolicy.loadBalancer.warmup: has an effect only with ROUND_ROBIN and LEAST_REQUEST: remove it",
		"x.yaml:14:52: DestinationRule shop/a: spec.subsets[1].trafficPolicy.loadBalancer.warmup.duration: is required",
		"x.yaml:14:60: DestinationRule shop/a: spec.subsets[1].trafficPolicy.loadBalancer.warmup: has an effect only with ROUND_ROBIN and LEAST_REQUEST: remove it",
		"x.yaml:14:77: DestinationRule shop/a: spec.subsets[1].trafficPolicy.loadBalancer.warmup.minimumPercent: 101 is not in 0..100",
		"x.yaml:14:94: DestinationRule shop/a: spec.subsets[1].trafficPolicy.loadBalancer.warmup.aggression: 0.5 is not 1 or more",
		"x.yaml:14:120: DestinationRule shop/a: spec.subsets[1].trafficPolicy.loadBalancer.warmupDurationSecs: must not be set beside warmup: remove it",
		`x.yaml:16:69: DestinationRule shop/a: spec.subsets[2].trafficPolicy.loadBalancer.consistentHash.httpHeaderName: "a b" cannot be the name of a header: letters, digits and hyphens can`,
	}},
	{name: "numbers and durations", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    connectionPool:
      tcp: {maxConnections: -1, connectTimeout: 0s, maxConnectionDuration: soon, idleTimeout: 1.0005s}
      http: {http1MaxPendingRequests: -1, http2MaxRequests: -1, maxRequestsPerConnection: -1, maxRetries: -1, idleTimeout: -1s, h2UpgradePolicy: MAYBE}
    retryBudget: {percent: 101}
`, want: []string{
		"x.yaml:8:29: DestinationRule shop/a: spec.trafficPolicy.connectionPool.tcp.maxConnections: -1 is negative",
		"x.yaml:8:49: DestinationRule shop/a: spec.trafficPolicy.connectionPool.tcp.connectTimeout: 0s is too short: use at least 1ms, or leave the field out",
		`x.yaml:8:76: DestinationRule shop/a: spec.trafficPolicy.connectionPool.tcp.maxConnectionDuration: "soon" is not a duration: write it like 1.5s, 250ms or 1h30m`,
		"x.yaml:8:95: DestinationRule shop/a: spec.trafficPolicy.connectionPool.tcp.idleTimeout: 1.0005s is too precise: use whole milliseconds",
		"x.yaml:9:39: DestinationRule shop/a: spec.trafficPolicy.connectionPool.http.http1MaxPendingRequests: -1 is negative",
		"x.yaml:9:61: DestinationRule shop/a: spec.trafficPolicy.connectionPool.http.http2MaxRequests: -1 is negative",
		"x.yaml:9:91: DestinationRule shop/a: spec.trafficPolicy.connectionPool.http.maxRequestsPerConnection: -1 is negative",
		"x.yaml:9:107: DestinationRule shop/a: spec.trafficPolicy.connectionPool.http.maxRetries: -1 is negative",
		"x.yaml:9:124: DestinationRule shop/a: spec.trafficPolicy.connectionPool.http.idleTimeout: -1s is too short: use at least 1ms, or leave the field out",
		`x.yaml:9:146: DestinationRule shop/a: spec.trafficPolicy.connectionPool.http.h2UpgradePolicy: "MAYBE" is not one of DEFAULT, DO_NOT_UPGRADE, UPGRADE`,
		"x.yaml:10:28: DestinationRule shop/a: spec.trafficPolicy.retryBudget.percent: 101 is not in 0..100",
	}},
	{name: "two ways to choose the protocol", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}
    portLevelSettings:
    - {port: {number: 9090}, connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: DO_NOT_UPGRADE}}}
    - {port: {number: 8080}, connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}}
`, want: []string{
		"x.yaml:7:48: DestinationRule shop/a: spec.trafficPolicy.connectionPool.http.useClientProtocol: contradicts h2UpgradePolicy: UPGRADE: remove one of the two",
		"x.yaml:10:99: DestinationRule shop/a: spec.trafficPolicy.portLevelSettings[1].connectionPool.http.useClientProtocol: contradicts h2UpgradePolicy: UPGRADE: remove one of the two",
	}},
	{name: "outlier detection", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: -1, consecutiveGatewayErrors: many, interval: 0s, baseEjectionTime: 1.0005s, maxEjectionPercent: 101, minHealthPercent: -1, consecutiveLocalOriginFailures: 1}
  subsets:
  - {name: v1, trafficPolicy: {outlierDetection: {maxEjectionPercent: -1, consecutiveLocalOriginFailures: 0}}}
`, want: []string{
		"x.yaml:7:46: DestinationRule shop/a: spec.trafficPolicy.outlierDetection.consecutive5xxErrors: -1 is not in 0..4294967295",
		"x.yaml:7:76: DestinationRule shop/a: spec.trafficPolicy.outlierDetection.consecutiveGatewayErrors: expected a whole number, found text",
		"x.yaml:7:92: DestinationRule shop/a: spec.trafficPolicy.outlierDetection.interval: 0s is too short: use at least 1ms, or leave the field out",
		"x.yaml:7:114: DestinationRule shop/a: spec.trafficPolicy.outlierDetection.baseEjectionTime: 1.0005s is too precise: use whole milliseconds",
		"x.yaml:7:143: DestinationRule shop/a: spec.trafficPolicy.outlierDetection.maxEjectionPercent: 101 is not in 0..100",
		"x.yaml:7:166: DestinationRule shop/a: spec.trafficPolicy.outlierDetection.minHealthPercent: -1 is not in 0..100",
		"x.yaml:7:202: DestinationRule shop/a: spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures: has no effect without splitExternalLocalOriginErrors: set that to true, or remove it",
		"x.yaml:9:71: DestinationRule shop/a: spec.subsets[0].trafficPolicy.outlierDetection.maxEjectionPercent: -1 is not in 0..100",
	}},
	{name: "TLS", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /a.pem}}
  subsets:
  - {name: v1, trafficPolicy: {tls: {sni: a}}}
  - {name: v2, trafficPolicy: {tls: {mode: DISABLE, subjectAltNames: [a]}}}
  - {name: v3, trafficPolicy: {tls: {mode: ISTIO_MUTUAL, subjectAltNames: [""]}}}
`, want: []string{
		"x.yaml:6:39: DestinationRule shop/a: spec.trafficPolicy.tls.clientCertificate: is not supported: use credentialName, the name of a certificate provider in the clients' bootstrap, which says what files there are",
		"x.yaml:8:32: DestinationRule shop/a: spec.subsets[0].trafficPolicy.tls.mode: is required, because Istio takes a missing mode as DISABLE: use ISTIO_MUTUAL or DISABLE",
		"x.yaml:8:38: DestinationRule shop/a: spec.subsets[0].trafficPolicy.tls.sni: has no effect with mode DISABLE: remove it",
		"x.yaml:9:53: DestinationRule shop/a: spec.subsets[1].trafficPolicy.tls.subjectAltNames: has no effect with mode DISABLE: remove it",
		"x.yaml:10:76: DestinationRule shop/a: spec.subsets[2].trafficPolicy.tls.subjectAltNames[0]: must not be empty",
	}},
	{name: "subsets and ports", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    portLevelSettings:
    - {port: {number: 8080}}
    - {port: {number: 8080}}
    - {port: {number: 1234}}
    - {}
  subsets:
  - {name: v1, labels: {version: "*"}}
  - {name: v1}
  - {name: V2}
`, want: []string{
		"x.yaml:9:23: DestinationRule shop/a: spec.trafficPolicy.portLevelSettings[1].port.number: 8080 is set twice",
		`x.yaml:10:23: DestinationRule shop/a: spec.trafficPolicy.portLevelSettings[2].port.number: "payment.shop.svc.cluster.local" has no port 1234`,
		"x.yaml:11:7: DestinationRule shop/a: spec.trafficPolicy.portLevelSettings[3].port.number: 0 is not a port: use 1..65535",
		`x.yaml:13:34: DestinationRule shop/a: spec.subsets[0].labels[version]: "version": "*" is not a label: wildcards are not supported`,
		`x.yaml:14:12: DestinationRule shop/a: spec.subsets[1].name: "v1" is the name of two subsets`,
		`x.yaml:15:12: DestinationRule shop/a: spec.subsets[2].name: "V2" is not the name of a subset: use lower case letters, digits and '-'`,
	}},
}
