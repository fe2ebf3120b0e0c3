package mesh_test

import (
	"maps"
	"testing"
)

// parityLocality is where the customer runs, as its label tells.
const parityLocality = "r1.z1.s1"

// placed is an endpoint with a locality.
func placed(instance, fields string) parityEndpoint {
	return parityEndpoint{instance: instance, fields: parityAccount + ", " + fields}
}

// locally is a row in which everything must go to these payments, each at least
// once, with a setting of the localities.
func locally(name, setting string, endpoints []parityEndpoint, want ...string) parityRow {
	return parityRow{
		name: "localityLbSetting" + name, routes: noRetries + "\n  route: [{destination: {host: HOST}}]", endpoints: endpoints,
		rule: "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN" + setting + "}, outlierDetection: {consecutive5xxErrors: 5}}",
		run: func(t *testing.T, p *parityProbe) {
			wanted := make(map[string]bool)
			for _, instance := range want {
				wanted[instance] = true
			}
			seen := make(map[string]bool)
			for range 40 {
				r := p.call(t, parityCall{})
				by("*").check(t, p.parityProtocol, r)
				seen[r.Instance] = true
			}
			if !maps.Equal(seen, wanted) {
				t.Errorf("calls went to %v, want %v", seen, wanted)
			}
		},
	}
}

func parityLocalityRows() []parityRow {
	three := []parityEndpoint{placed("v1-a", "locality: r2/z1"), placed("v1-b", "locality: r1/z2"), placed("v2-a", "locality: r3")}
	abroad := []parityEndpoint{placed("v1-a", "locality: r2"), placed("v2-a", "locality: r3, network: far")}
	named := func(row parityRow) parityRow {
		row.service = "resolution: DNS"
		return row
	}
	return []parityRow{
		named(locally(" is by default for what is near, of names", "", three, "v1-b")),
		named(locally(".failoverPriority of names", ", localityLbSetting: {failoverPriority: [version=v1]}", three, "v1-a", "v1-b")),
		locally(" is by default for what is near", "", three, "v1-b"),
		locally(".enabled: false", ", localityLbSetting: {enabled: false}", three, "v1-a", "v1-b", "v2-a"),
		locally(".failover", ", localityLbSetting: {failover: [{from: r1, to: r3}]}", abroad, "v2-a"),
		locally(".failoverPriority", ", localityLbSetting: {failoverPriority: [version=v1]}", three, "v1-a", "v1-b"),
		locally(".failoverPriority of a network", ", localityLbSetting: {failoverPriority: [topology.istio.io/network=far]}", abroad, "v2-a"),
		locally(".distribute", `, localityLbSetting: {distribute: [{from: r1/*, to: {"r1/*": 50, r3: 50}}]}`, three, "v1-b", "v2-a"),
	}
}
