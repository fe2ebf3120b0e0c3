package istio_test

import "strings"

// balancingLintCases are those of load balancers.
var balancingLintCases = []lintCase{
	{"ineffective-balancing", "slow start and hashing beside a policy of ours", balanced("inboard.peak_ewma", "", "warmup: {duration: 10s}") +
		balancedSubset("inboard.peak_ewma"), []string{
		`spec.trafficPolicy.loadBalancer.warmup: has no effect: the annotation inboard.balancer names the policy "inboard.peak_ewma", which has no slow start`,
		`spec.subsets[0].trafficPolicy.portLevelSettings[0].loadBalancer.consistentHash: has no effect: the annotation inboard.balancer names the policy "inboard.peak_ewma", which does not look at hashes`,
	}},
	{"ineffective-balancing", "slow start and a table beside a policy of the application's", balanced("app.own", "", "warmupDurationSecs: 10s, consistentHash: {httpHeaderName: a, maglev: {}}"), []string{
		`spec.trafficPolicy.loadBalancer.warmupDurationSecs: has no effect: the annotation inboard.balancer names the policy "app.own", which has no slow start`,
		`spec.trafficPolicy.loadBalancer.consistentHash.maglev: has no effect: the annotation inboard.balancer names the policy "app.own", which is told the hash and has neither a ring nor a table of ours`,
	}},
	{"ineffective-balancing", "a hash beside a policy of the application's", balanced("app.own", "", "consistentHash: {httpHeaderName: a}"), nil},
	{"ineffective-balancing", "localities of one endpoint for all", oneForAll("one.example.com", "distribute: [{from: eu, to: {us: 100}}]"), []string{
		`spec.trafficPolicy.loadBalancer.localityLbSetting: has no effect: by resolution DNS_ROUND_ROBIN "one.example.com" has one endpoint for all clients`,
	}},
	{"ineffective-balancing", "localities of many, of which one has one endpoint", oneForAll("*.example.com", "distribute: [{from: eu, to: {us: 100}}]"), nil},
	{"ineffective-balancing", "localities that are off", oneForAll("one.example.com", "enabled: false, distribute: [{from: eu, to: {us: 100}}]"), nil},
}

// balanced is a rule of payment with a policy by annotation.
func balanced(policy, spec, loadBalancer string) string {
	return strings.Replace(document("DestinationRule", "shop", "payment", "  host: payment\n"+spec+"  trafficPolicy: {loadBalancer: {"+loadBalancer+"}}\n"),
		"namespace: shop", "namespace: shop, annotations: {inboard.balancer: '{policy: "+policy+"}'}", 1)
}

// balancedSubset is such a rule of ledger, with a hash for a port of a subset.
func balancedSubset(policy string) string {
	return strings.Replace(document("DestinationRule", "bank", "ledger", `
  host: ledger
  subsets: [{name: v1, trafficPolicy: {portLevelSettings: [{port: {number: 7070}, loadBalancer: {consistentHash: {httpHeaderName: a}}}]}}]
`), "namespace: bank", "namespace: bank, annotations: {inboard.balancer: '{policy: "+policy+"}'}", 1)
}

// oneForAll is a service whose name is its endpoint, and a rule for a host.
func oneForAll(host, locality string) string {
	return document("ServiceEntry", "shop", "one", `
  hosts: [one.example.com]
  resolution: DNS_ROUND_ROBIN
  ports: [{name: http, number: 80, protocol: HTTP}]
`) + document("DestinationRule", "shop", "one", "  host: \""+host+"\"\n  trafficPolicy: {loadBalancer: {localityLbSetting: {"+locality+"}}}\n")
}
