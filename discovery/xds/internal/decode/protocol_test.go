package decode

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
)

func TestHTTP2Options(t *testing.T) {
	t.Parallel()
	const (
		some  = `"http2ProtocolOptions": {"maxConcurrentStreams": 7, "connectionKeepalive": {"interval": "10s", "timeout": "2s"}}`
		whole = `"http2ProtocolOptions": {"connectionKeepalive": {"interval": "0.001s", "timeout": "2s", "intervalJitter": {"value": 0}, "connectionIdleInterval": "30s"}}`
	)
	pings := discovery.HTTP2Options{MaxStreams: 7, Pings: discovery.Pings{Interval: 10 * time.Second, Jitter: 15, Timeout: 2 * time.Second}}
	for options, want := range map[string]discovery.HTTP2Options{
		`"explicitHttpConfig": {"httpProtocolOptions": {}}`:  {},
		`"explicitHttpConfig": {"http2ProtocolOptions": {}}`: {},
		`"explicitHttpConfig": {` + some + `}`:               pings,
		`"useDownstreamProtocolConfig": {` + some + `}`:      pings,
		`"autoConfig": {` + some + `}`:                       pings,
		`"autoConfig": {` + whole + `}`: {Pings: discovery.Pings{
			Interval: time.Millisecond, Timeout: 2 * time.Second, Idle: 30 * time.Second,
		}},
	} {
		if got := decodeCluster(t, clusterWith(httpOptions(options))).HTTP2; got != want {
			t.Errorf("%s: %+v, want %+v", options, got, want)
		}
	}
}

func TestBadHTTP2Options(t *testing.T) {
	t.Parallel()
	const http = `typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].`
	wantClusterErrors(t, []clusterCase{
		{"HTTP/2 without streams", clusterWith(httpOptions(`"explicitHttpConfig": {"http2ProtocolOptions": {"maxConcurrentStreams": 0}}`)),
			[]string{http + "explicit_http_config.http2_protocol_options.max_concurrent_streams: value must be inside range [1, 2147483647]"}},
		{"pings without a timeout", clusterWith(httpOptions(`"autoConfig": {"http2ProtocolOptions": {"connectionKeepalive": {"interval": "10s"}}}`)),
			[]string{http + "auto_config.http2_protocol_options.connection_keepalive.timeout: value is required"}},
		{"pings without a pause", clusterWith(httpOptions(`"autoConfig": {"http2ProtocolOptions": {"connectionKeepalive": {"interval": "0s", "timeout": "0s", "connectionIdleInterval": "0s"}}}`)),
			[]string{
				http + "auto_config.http2_protocol_options.connection_keepalive.interval: value must be greater than or equal to 1ms",
				http + "auto_config.http2_protocol_options.connection_keepalive.timeout: value must be greater than or equal to 1ms",
				http + "auto_config.http2_protocol_options.connection_keepalive.connection_idle_interval: value must be greater than or equal to 1ms",
			}},
	})
}

func TestBL3_HashPoliciesOfAClustersProtocol(t *testing.T) {
	t.Parallel()
	byHeader := httpOptions(`"autoConfig": {}, "hashPolicy": [{"header": {"headerName": "X-User"}}]`)
	typed := `"loadBalancingPolicy": {"policies": [` + typedExtension("ring_hash.v3.RingHash",
		`"hashFunction": "MURMUR_HASH_2", "consistentHashingLbConfig": {"hashPolicy": [{"queryParameter": {"name": "q"}}]}`) + `]}, `
	for name, tt := range map[string]struct {
		json   string
		want   []discovery.HashPolicy
		murmur bool
	}{
		"none":                           {clusterWith(`"lbPolicy": "RING_HASH", ` + httpOptions(`"autoConfig": {}`)), nil, false},
		"those of the protocol":          {clusterWith(`"lbPolicy": "RING_HASH", "ringHashLbConfig": {"hashFunction": "MURMUR_HASH_2"}, ` + byHeader), []discovery.HashPolicy{{Header: "x-user"}}, true},
		"those of the balancer go first": {clusterWith(typed + byHeader), []discovery.HashPolicy{{Query: "q"}}, true},
	} {
		c := decodeCluster(t, tt.json)
		if diff := cmp.Diff(tt.want, c.Hash); diff != "" || c.Balancer.RingMurmur != tt.murmur {
			t.Errorf("%s: murmur %t, hash policies (-want +got):\n%s", name, c.Balancer.RingMurmur, diff)
		}
	}
}
