package mesh_test

import (
	"strings"
	"testing"
)

// toV2 and toAll are as toV1.
const (
	toV2 = `
  route:
  - destination: {host: HOST, subset: v2}
`
	toAll = `
  route:
  - destination: {host: HOST}
`
	noRetries = "- retries: {attempts: 0}"
)

// checkPeer looks at the caller's identity, as the payment has verified it; ""
// is plaintext.
func checkPeer(want string) func(*testing.T, *parityProbe, *parityResult) {
	return func(t *testing.T, _ *parityProbe, r *parityResult) {
		t.Helper()
		if r.Reply.Peer != want {
			t.Errorf("the payment has verified %q, want %q", r.Reply.Peer, want)
		}
	}
}

func parityServiceRows() []parityRow {
	return []parityRow{
		{
			name:    "ServiceEntry.hosts",
			service: "hosts: [HOST, also.HOST]",
			routes:  noRetries + toV1,
			cases: []parityCase{
				{name: "the first", want: by("v1")},
				{name: "another", call: parityCall{host: "also.HOST"}, want: answered},
			},
		},
		{
			name: "ServiceEntry.ports.targetPort",
			service: `ports:
- {number: 80, name: http, protocol: HTTP, targetPort: HTTP(v2-a)}
- {number: 82, name: http2, protocol: HTTP2, targetPort: HTTP(v2-a)}
- {number: 9090, name: grpc, protocol: GRPC, targetPort: GRPC(v2-a)}
endpoints: [{address: 127.0.0.1, serviceAccount: payment}]`,
			cases: []parityCase{{name: "the port of endpoints that have none", want: by("v2-a")}},
		},
		{
			name:      "ServiceEntry.location MESH_EXTERNAL",
			service:   "location: MESH_EXTERNAL",
			endpoints: []parityEndpoint{{instance: "v1-a", fields: "weight: 1"}},
			cases:     []parityCase{{name: "is plaintext", want: by("v1"), check: checkPeer("")}},
		},
		{
			name: "ServiceEntry.workloadSelector finds WorkloadEntries",
			service: `workloadSelector: {labels: {row: HOST}}
`,
			documents: `apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: one.HOST, namespace: shop}
spec:
  address: 127.0.0.1
  ports: {http: HTTP(v1-a), http2: HTTP(v1-a), grpc: GRPC(v1-a)}
  labels: {row: HOST, version: v1}
  serviceAccount: payment
  locality: r1/z1
  weight: 2
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: two.HOST, namespace: shop, labels: {row: HOST, version: v2}}
spec:
  address: 127.0.0.1
  ports: {http: HTTP(v2-a), http2: HTTP(v2-a), grpc: GRPC(v2-a)}
  serviceAccount: payment
`,
			routes: "- match: [{headers: {x-two: {}}}]" + toV2 + noRetries + toV1,
			cases: []parityCase{
				{name: "with labels in the spec", want: by("v1-a")},
				{name: "with labels in the metadata", call: header("x-two", "1"), want: by("v2-a")},
			},
		},
		{
			name:           "exportTo is everywhere",
			service:        `exportTo: ["*"]`,
			rule:           `exportTo: ["*"]`,
			virtualService: "exportTo: [\"*\"]\ngateways: [mesh]",
			routes:         noRetries + toV2,
			cases:          []parityCase{{name: "any call", want: by("v2")}},
		},
	}
}

func parityBalancerRows() []parityRow {
	// shares of n calls by instance.
	shares := func(t *testing.T, p *parityProbe, n int) map[string]int {
		t.Helper()
		got := make(map[string]int)
		for range n {
			r := p.call(t, parityCall{})
			answered.check(t, p.parityProtocol, r)
			got[r.Instance]++
		}
		return got
	}
	leastRequest := func(t *testing.T, p *parityProbe) {
		release := p.hold(t, 1, parityCall{script: "hang"}, 1)
		got := shares(t, p, 20)
		if len(got) != 1 {
			t.Errorf("of two payments, one of them busy, %v got calls", got)
		}
		release()
	}
	return []parityRow{
		{
			name: "loadBalancer.simple ROUND_ROBIN", routes: noRetries + toV1,
			rule: "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}",
			run: func(t *testing.T, p *parityProbe) {
				if got := shares(t, p, 20); got["v1-a"] != 10 || got["v1-b"] != 10 {
					t.Errorf("calls by payment: %v", got)
				}
			},
		},
		{
			name: "loadBalancer.simple RANDOM", routes: noRetries + toV1,
			rule: "trafficPolicy: {loadBalancer: {simple: RANDOM}}",
			run: func(t *testing.T, p *parityProbe) {
				// 4 standard deviations of 100 draws are 20 calls.
				if got := shares(t, p, 100); got["v1-a"] < 30 || got["v1-b"] < 30 {
					t.Errorf("calls by payment: %v", got)
				}
			},
		},
		{
			name: "loadBalancer.simple LEAST_REQUEST", routes: noRetries + toV1,
			rule: "trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}", run: leastRequest,
		},
		{
			name: "annotation inboard.balancer, a policy of the application's", routes: noRetries + toV1,
			ruleAnnotations: `inboard.balancer: "{policy: parity.last}"`,
			run: func(t *testing.T, p *parityProbe) {
				if got := shares(t, p, 10); got["v1-b"] != 10 {
					t.Errorf("calls by payment: %v, want all to the last", got)
				}
			},
		},
		{
			// Of two endpoints one has been slow once.
			name: "annotation inboard.balancer, inboard.peak_ewma", routes: noRetries + toV1,
			ruleAnnotations: `inboard.balancer: "{policy: inboard.peak_ewma, config: {decayTime: 1h}}"`,
			run: func(t *testing.T, p *parityProbe) {
				slow := p.call(t, parityCall{script: "wait=500ms"}).Instance
				if got := shares(t, p, 20); got[slow] > 2 {
					t.Errorf("%s is slow: calls by payment: %v", slow, got)
				}
			},
		},
		{
			name: "annotation inboard.subsetting", routes: noRetries + toV1,
			ruleAnnotations: `inboard.subsetting: "{size: 1}"`,
			run: func(t *testing.T, p *parityProbe) {
				if got := shares(t, p, 20); len(got) != 1 {
					t.Errorf("calls by payment: %v, want all to one", got)
				}
			},
		},
		{name: "loadBalancer.simple of none is LEAST_REQUEST", routes: noRetries + toV1, run: leastRequest},
		{
			name: "endpoints.weight", routes: noRetries + toV1,
			rule:      "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}",
			endpoints: []parityEndpoint{{"v1-a", parityAccount + ", weight: 3"}, {"v1-b", parityAccount + ", weight: 1"}},
			run: func(t *testing.T, p *parityProbe) {
				if got := shares(t, p, 40); got["v1-a"] != 30 || got["v1-b"] != 10 {
					t.Errorf("calls by payment: %v", got)
				}
			},
		},
		{
			name: "endpoints.locality is no preference", routes: noRetries + toV1,
			endpoints: []parityEndpoint{{"v1-a", parityAccount + ", locality: r1/z1/s1"}, {"v1-b", parityAccount + ", locality: r2"}},
			run: func(t *testing.T, p *parityProbe) {
				// 4 standard deviations of 100 draws are 20 calls.
				if got := shares(t, p, 100); got["v1-a"] < 30 || got["v1-b"] < 30 {
					t.Errorf("calls by payment: %v", got)
				}
			},
		},
		{
			name:   "subsets.trafficPolicy replaces what it sets of the host's",
			routes: "- match: [{headers: {x-two: {}}}]" + toV2 + noRetries + toV1,
			rule: `trafficPolicy: {tls: {mode: DISABLE}, connectionPool: {http: {http2MaxRequests: 1}}}
subsets:
- {name: v1, labels: {version: v1}}
- {name: v2, labels: {version: v2}, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}`,
			run: func(t *testing.T, p *parityProbe) {
				for subset, c := range map[string]parityCall{"v1": {}, "v2": header("x-two", "1")} {
					r := p.call(t, c)
					by(subset).check(t, p.parityProtocol, r)
					want := ""
					if subset == "v2" {
						want = customerID
					}
					checkPeer(want)(t, p, r)
					held := c
					held.script = "hang"
					release := p.hold(t, 1, held, 1)
					overflowed.check(t, p.parityProtocol, p.call(t, c))
					release()
				}
			},
		},
		{
			name:   "portLevelSettings replace the policy of the host",
			routes: noRetries + toV2,
			rule: strings.ReplaceAll(`trafficPolicy:
  tls: {mode: DISABLE}
  connectionPool: {http: {http2MaxRequests: 1}}
  portLevelSettings:
  - {port: {number: 80}, POLICY}
  - {port: {number: 82}, POLICY}
  - {port: {number: 9090}, POLICY}`, "POLICY", "tls: {mode: ISTIO_MUTUAL}, loadBalancer: {simple: ROUND_ROBIN}"),
			run: func(t *testing.T, p *parityProbe) {
				release := p.hold(t, 1, parityCall{script: "hang"}, 1)
				r := p.call(t, parityCall{}) // the limit is not the port's
				release()
				by("v2").check(t, p.parityProtocol, r)
				checkPeer(customerID)(t, p, r)
			},
		},
		{
			name:   "portLevelSettings.connectionPool and outlierDetection",
			routes: noRetries + toV1,
			rule: strings.ReplaceAll(`trafficPolicy:
  portLevelSettings:
  - {port: {number: 80}, POLICY}
  - {port: {number: 82}, POLICY}
  - {port: {number: 9090}, POLICY}`, "POLICY", "connectionPool: {http: {http2MaxRequests: 2}}, outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100}"),
			run: func(t *testing.T, p *parityProbe) {
				release := p.hold(t, 2, parityCall{script: "hang"}, 1)
				overflowed.check(t, p.parityProtocol, p.call(t, parityCall{}))
				release()
				failing := p.call(t, parityCall{script: "fail=500/13"}).Instance
				for range 10 {
					if r := p.call(t, parityCall{}); r.Instance == failing || r.Instance == "" {
						t.Errorf("%s has failed; %v", failing, r)
					}
				}
			},
		},
	}
}
