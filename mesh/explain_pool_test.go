package mesh_test

import (
	"strings"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

func TestExplainKnowsHowConnectionsAreShared(t *testing.T) {
	t.Parallel()
	const options = `"typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicitHttpConfig": {"http2ProtocolOptions": {"maxConcurrentStreams": 100}}, "commonHttpProtocolOptions": {`
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		for _, leaf := range []bool{false, true} {
			for more, want := range map[string]string{
				"":                                     "",
				options + `"idleTimeout": "3600s"}}},`: "100 calls at a time over one of HTTP/2",
				options + `"idleTimeout": "0s"}}},`:    "100 calls at a time over one of HTTP/2; kept however long they are idle",
				`"circuitBreakers": {"perHostThresholds": [{"maxConnections": 4}]}, "preconnectPolicy": {"perUpstreamPreconnectRatio": 1.5},` +
					options + `"idleTimeout": "60s", "maxRequestsPerConnection": 2, "maxConnectionDuration": "7200s"}}},`: "at most 4 to an endpoint; 100 calls at a time over one of HTTP/2; closed behind 2 calls; " +
					"closed after 1m0s without a call; closed when 2h0m0s old; made ahead: 1.5 for each call",
				`"upstreamConnectionOptions": {"tcpKeepalive": {"keepaliveProbes": 3, "keepaliveTime": 47, "keepaliveInterval": 10}},` +
					options + `"idleTimeout": "3600s"}}},`: "100 calls at a time over one of HTTP/2; TCP probes after 47s without a byte every 10s, closed after 3 without an answer",
				strings.Replace(options, `"maxConcurrentStreams": 100`, `"connectionKeepalive": {"interval": "30s", "timeout": "10s", "connectionIdleInterval": "20s"}`, 1) +
					`"idleTimeout": "3600s"}}},`: "PING of HTTP/2 after 30s without a byte, closed 10s later; PING with a call after 20s without a byte, closed 10s later",
			} {
				l.pushAlone(t, leaf, func(name string, at []string) *clusterv3.Cluster {
					return leafCluster(name, more, []string{leafEndpoint(at[0], "HEALTHY")})
				})
				for _, host := range leavesHosts {
					want := want
					if !strings.HasSuffix(host, ":80") { // gRPC makes none ahead
						want = strings.TrimSuffix(want, "; made ahead: 1.5 for each call")
					}
					e := l.explain(t, host)
					got := e.Cluster.Pool
					if leaf {
						got = e.Cluster.Leaves[0].Pool
					}
					if got != want {
						t.Errorf("%s, a leaf: %t: %q, want %q", host, leaf, got, want)
					}
					if want != "" {
						says(t, e, "connections   "+want+"\n")
					}
				}
			}
		}
	})
}
