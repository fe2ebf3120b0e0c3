package decode

import "testing"

// TestWhomToAskForNamesIsNotLeftOut: what tunes Envoy's resolver is harmless, servers
// to ask are not.
func TestWhomToAskForNamesIsNotLeftOut(t *testing.T) {
	t.Parallel()
	with := func(config string) string {
		return `{"name": "c", "type": "STRICT_DNS", "typedDnsResolverConfig": {"name": "r", "typedConfig": {` + config + `}},
			"loadAssignment": {"clusterName": "c", "endpoints": [{"lbEndpoints": [{"endpoint": {"address": {"socketAddress": {"address": "a.example", "portValue": 1}}}}]}]}}`
	}
	const cares = `"@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"`
	const at = "typed_dns_resolver_config.typed_config"
	if c := decodeCluster(t, with(cares+`, "udpMaxQueries": 100, "queryTries": 2`)); c.DNS == nil {
		t.Error("a cluster without DNS")
	}
	wantClusterErrors(t, []clusterCase{
		{"servers", with(cares + `, "resolvers": [{"socketAddress": {"address": "8.8.8.8", "portValue": 53}}]`),
			[]string{at + ".resolvers: not supported: the process's resolver is asked: give the mesh another one"}},
		{"TCP only", with(cares + `, "dnsResolverOptions": {"useTcpForDnsLookups": true}`),
			[]string{at + ".dns_resolver_options: not supported: the process's resolver is asked: give the mesh another one"}},
		{"another resolver", with(`"@type": "type.googleapis.com/envoy.config.core.v3.Locality"`),
			[]string{at + `: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"`}},
	})
}
