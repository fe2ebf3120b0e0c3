package decode

import (
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

const tcpProxyType = `"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"`

// tcpFixture is a listener of a database, which somebody may not use.
const tcpFixture = `{
  "name": "ledger",
  "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 5432}},
  "defaultFilterChain": {"filters": [
    {"name": "policy", "typedConfig": {
      "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC", "statPrefix": "tcp.",
      "rules": {"action": "DENY", "policies": {"p": {"permissions": [{"destinationPort": 5432}],
        "principals": [{"authenticated": {"principalName": {"exact": "spiffe://td/ns/a/sa/b"}}}]}}}}},
    {"name": "tcp", "typedConfig": {` + tcpProxyType + `, "statPrefix": "inbound", "cluster": "inbound|5432||"}}
  ]}
}`

func TestAChainThatEndsInTheTCPProxy(t *testing.T) {
	t.Parallel()
	_, l, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, tcpFixture)))
	if err != nil {
		t.Fatal(err)
	}
	chain := l.Inbound.Default
	if !chain.TCP || len(chain.Network) != 1 || chain.Network[0].Rules == nil || len(chain.Filters) != 0 {
		t.Errorf("the chain is %+v", chain)
	}
	if route := chain.Routes.VirtualHosts[0].Routes[0]; !route.Local {
		t.Errorf("a request goes to %+v", route)
	}
	if chain.Headers.Bytes == 0 {
		t.Error("the headers of requests have no limit")
	}
}

func TestBadChainsOfTCP(t *testing.T) {
	t.Parallel()
	inbound := func(fields string) string { return `{"name": "l", ` + anAddress + `, ` + fields + `}` }
	const in = "default_filter_chain.filters"
	wantListenerErrors(t, []listenerCase{
		{"several clusters", inbound(`"defaultFilterChain": {"filters": [{"name": "f", "typedConfig": {` + tcpProxyType + `, "statPrefix": "x", "weightedClusters": {"clusters": [{"name": "a", "weight": 1}]}}}]}`),
			[]string{in + "[0].typed_config.weighted_clusters: not supported: the connections of a listener are this process's: use cluster"}},
		{"a tunnel", inbound(`"defaultFilterChain": {"filters": [{"name": "f", "typedConfig": {` + tcpProxyType + `, "statPrefix": "x", "cluster": "a", "tunnelingConfig": {"hostname": "a"}}}]}`),
			[]string{in + "[0].typed_config.tunneling_config: not supported"}},
		{"an idle timeout", inbound(`"defaultFilterChain": {"filters": [{"name": "f", "typedConfig": {` + tcpProxyType + `, "statPrefix": "x", "cluster": "a", "idleTimeout": "1s"}}]}`),
			[]string{in + "[0].typed_config.idle_timeout: not supported with another value than zero"}},
		{"somebody to ask", inbound(`"defaultFilterChain": {"filters": [{"name": "f", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz", "statPrefix": "x"}}, {"name": "g", "typedConfig": {` + tcpProxyType + `, "statPrefix": "x", "cluster": "a"}}]}`),
			[]string{in + "[0].typed_config: not supported: nobody is asked about connections of TCP: use RBAC, which decides by itself"}},
		{"a filter that nobody knows before it", inbound(`"defaultFilterChain": {"filters": [{"name": "f", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}, {"name": "g", "typedConfig": {` + tcpProxyType + `, "statPrefix": "x", "cluster": "a"}}]}`),
			[]string{in + `[0].typed_config: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.filters.network.rbac.v3.RBAC"`}},
		{"the proxy before another", inbound(`"defaultFilterChain": {"filters": [{"name": "f", "typedConfig": {` + tcpProxyType + `, "statPrefix": "x", "cluster": "a"}}, {"name": "g", "typedConfig": {` + tcpProxyType + `, "statPrefix": "x", "cluster": "a"}}]}`),
			[]string{in + `[0].typed_config: "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" is not supported here: must be "envoy.extensions.filters.network.rbac.v3.RBAC"`}},
		{"a policy about requests", inbound(`"defaultFilterChain": {"filters": [{"name": "f", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC", "statPrefix": "x", "rules": {"policies": {"p": {"permissions": [{"urlPath": {"path": {"exact": "/"}}}], "principals": [{"any": true}]}}}}}, {"name": "g", "typedConfig": {` + tcpProxyType + `, "statPrefix": "x", "cluster": "a"}}]}`),
			[]string{in + `[0].typed_config.rules.policies["p"].permissions[0].url_path: a connection has no requests: use the HTTP filter`}},
	})
}
