package decode

import (
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/health"
)

const httpCheckFixture = `{
  "name": "checked",
  "type": "EDS",
  "edsClusterConfig": {"edsConfig": {"ads": {}}},
  "ignoreHealthOnHostRemoval": true,
  "commonLbConfig": {"ignoreNewHostsUntilFirstHc": true},
  "healthChecks": [{
    "name": "hc", "timeout": "1s", "interval": "2s", "initialJitter": "3s", "intervalJitter": "4s", "intervalJitterPercent": 5,
    "unhealthyThreshold": 6, "healthyThreshold": 7, "altPort": 8, "reuseConnection": false,
    "noTrafficInterval": "9s", "noTrafficHealthyInterval": "10s", "unhealthyInterval": "11s",
    "unhealthyEdgeInterval": "12s", "healthyEdgeInterval": "13s",
    "alwaysLogHealthCheckFailures": true,
    "tlsOptions": {"alpnProtocols": ["checks"]},
    "httpHealthCheck": {
      "host": "payment.shop", "path": "/healthz", "method": "POST", "send": {"text": "01ff"},
      "receive": [{"text": "6f6b"}, {"binary": "YQ=="}], "responseBufferSize": 2048,
      "requestHeadersToAdd": [{"header": {"key": "X-Check", "value": "yes"}}],
      "requestHeadersToRemove": ["User-Agent"],
      "expectedStatuses": [{"start": 200, "end": 300}], "retriableStatuses": [{"start": 500, "end": 600}],
      "useAlpnProtocol": true,
      "serviceNameMatcher": {"prefix": "pay"}
    }}]
}`

const grpcCheckFixture = `{
  "name": "checked",
  "type": "EDS",
  "edsClusterConfig": {"edsConfig": {"ads": {}}},
  "healthChecks": [{"timeout": "1s", "interval": "2s", "unhealthyThreshold": 1, "healthyThreshold": 1,
    "grpcHealthCheck": {"serviceName": "pay", "authority": "payment.shop", "initialMetadata": [{"header": {"key": "x-check", "value": "yes"}}]}}]
}`

const tcpCheckFixture = `{
  "name": "checked",
  "type": "EDS",
  "edsClusterConfig": {"edsConfig": {"ads": {}}},
  "circuitBreakers": {"thresholds": [{"trackRemaining": true}], "perHostThresholds": [{"maxConnections": 2}]},
  "metadata": {"filterMetadata": {"inboard.breaker": {"scope": "endpoint"}}},
  "healthChecks": [{"timeout": "1s", "interval": "2s", "unhealthyThreshold": 1, "healthyThreshold": 1,
    "tcpHealthCheck": {"send": {"text": "70696e67"}, "receive": [{"text": "706f6e67"}]}}]
}`

const checkedEndpointsFixture = `{
  "clusterName": "payment-endpoints",
  "endpoints": [{"loadBalancingWeight": 1, "lbEndpoints": [
    {"endpoint": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 80}},
      "healthCheckConfig": {"portValue": 81, "hostname": "a.shop", "address": {"socketAddress": {"address": "10.0.1.1", "portValue": 82}}}}},
    {"endpoint": {"address": {"socketAddress": {"address": "10.0.0.2", "portValue": 80}},
      "healthCheckConfig": {"address": {"socketAddress": {"address": "10.0.1.2", "portValue": 82}}, "disableActiveHealthCheck": true}}}
  ]}]
}`

func TestHealthChecksDecodeEveryField(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		json string
		want *health.Config
	}{
		"HTTP": {httpCheckFixture, &health.Config{
			Timeout: time.Second, Interval: 2 * time.Second, InitialJitter: 3 * time.Second, IntervalJitter: 4 * time.Second,
			IntervalJitterPercent: 5, UnhealthyThreshold: 6, HealthyThreshold: 7, Port: 8, CloseConnection: true,
			NoTrafficInterval: 9 * time.Second, NoTrafficHealthyInterval: 10 * time.Second, UnhealthyInterval: 11 * time.Second,
			UnhealthyEdgeInterval: 12 * time.Second, HealthyEdgeInterval: 13 * time.Second,
			ExcludeNew: true, ALPN: []string{"checks"},
			HTTP: &health.HTTP{
				Host: "payment.shop", Path: "/healthz", Method: "POST", Body: []byte{1, 255},
				Receive: [][]byte{[]byte("ok"), []byte("a")}, BodyLimit: 2048,
				Set: []health.Header{{Name: "x-check", Value: "yes"}}, Remove: []string{"user-agent"},
				Expected: []health.Statuses{{Start: 200, End: 300}}, Retriable: []health.Statuses{{Start: 500, End: 600}},
				Codec: health.ALPN, Service: &discovery.StringMatch{Kind: discovery.MatchPrefix, Value: "pay"},
			},
		}},
		"gRPC": {grpcCheckFixture, &health.Config{
			Timeout: time.Second, Interval: 2 * time.Second, NoTrafficInterval: time.Minute, UnhealthyThreshold: 1, HealthyThreshold: 1,
			GRPC: &health.GRPC{Service: "pay", Authority: "payment.shop", Set: []health.Header{{Name: "x-check", Value: "yes"}}},
		}},
		"TCP": {tcpCheckFixture, &health.Config{
			Timeout: time.Second, Interval: 2 * time.Second, NoTrafficInterval: time.Minute, UnhealthyThreshold: 1, HealthyThreshold: 1,
			TCP: &health.TCP{Send: []byte("ping"), Receive: [][]byte{[]byte("pong")}},
		}},
	} {
		_, got, err := Cluster(marshal(t, fromJSON[clusterv3.Cluster](t, c.json)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, got.HealthCheck); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestLimitsOfHostsBreakersOfEndpointsAndTracking(t *testing.T) {
	t.Parallel()
	_, got, err := Cluster(marshal(t, fromJSON[clusterv3.Cluster](t, tcpCheckFixture)))
	if err != nil {
		t.Fatal(err)
	}
	if got.HostConnections != [2]uint32{2, 0} || got.TrackRemaining != [2]bool{true, false} || got.Breaker != nil || got.EndpointBreaker == nil {
		t.Errorf("connections %v, tracked %v, breakers %v and %v", got.HostConnections, got.TrackRemaining, got.Breaker, got.EndpointBreaker)
	}
	for scope, want := range map[string][2]bool{"cluster": {true, false}, "endpoint": {false, true}, "both": {true, true}} {
		_, got, err := Cluster(marshal(t, fromJSON[clusterv3.Cluster](t, clusterWith(`"metadata": {"filterMetadata": {"inboard.breaker": {"scope": "`+scope+`"}}}`))))
		if err != nil || got.Breaker != nil != want[0] || got.EndpointBreaker != nil != want[1] {
			t.Errorf("scope %s: %+v, %v", scope, got, err)
		}
	}
	wantClusterErrors(t, []clusterCase{{"a scope of none", clusterWith(`"metadata": {"filterMetadata": {"inboard.breaker": {"scope": "host"}}}`),
		[]string{`metadata.filter_metadata["inboard.breaker"].scope: must be "cluster", "endpoint" or "both": is "host"`}}})
}

func TestEndpointsSayHowTheyAreChecked(t *testing.T) {
	t.Parallel()
	_, got, err := Assignment(marshal(t, fromJSON[endpointv3.ClusterLoadAssignment](t, checkedEndpointsFixture)))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []*balancer.EndpointCheck{
		{Host: "10.0.1.1", Port: 81, Hostname: "a.shop"},
		{Host: "10.0.1.2", Port: 82, Disabled: true},
	} {
		if diff := cmp.Diff(want, got.Localities[0].Endpoints[i].Check); diff != "" {
			t.Errorf("endpoint %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestBadHealthChecks(t *testing.T) {
	t.Parallel()
	const common = `"timeout": "1s", "interval": "1s", "unhealthyThreshold": 1, "healthyThreshold": 1, `
	check := func(fields string) string {
		return clusterWith(`"healthChecks": [{` + common + fields + `}]`)
	}
	wantClusterErrors(t, []clusterCase{
		{"two", clusterWith(`"healthChecks": [{` + common + `"tcpHealthCheck": {}}, {` + common + `"tcpHealthCheck": {}}]`),
			[]string{"health_checks[1]: more than one health check of a cluster is not supported"}},
		{"nothing to ask", check(`"altPort": 80`), []string{"health_checks[0].health_checker: value is required"}},
		{"one of another's", check(`"customHealthCheck": {"name": "redis"}`),
			[]string{"health_checks[0].custom_health_check: not supported: use http_health_check, grpc_health_check or tcp_health_check"}},
		{"no time", clusterWith(`"healthChecks": [{"timeout": "0s", "interval": "-1s", "unhealthyThreshold": 1, "healthyThreshold": 1, "tcpHealthCheck": {}}]`),
			[]string{
				"health_checks[0].timeout: value must be greater than 0s",
				"health_checks[0].interval: value must be greater than 0s",
			}},
		{"times without a millisecond", clusterWith(`"healthChecks": [{"timeout": "0.000999s", "interval": "0.000000001s", "unhealthyInterval": "0.0005s", "intervalJitter": "0.0001s", "unhealthyThreshold": 1, "healthyThreshold": 1, "tcpHealthCheck": {}}]`),
			[]string{
				"health_checks[0].timeout: must be at least 1ms: is 999µs",
				"health_checks[0].interval: must be at least 1ms: is 1ns",
				"health_checks[0].unhealthy_interval: must be at least 1ms: is 500µs",
			}},
		{"ports and jitter", check(`"altPort": 70000, "initialJitter": "-1s", "tcpHealthCheck": {}`),
			[]string{
				"health_checks[0].alt_port: 70000 is not a port",
				"health_checks[0].initial_jitter: must not be negative: is -1s",
			}},
		{"HTTP that cannot be", check(`"httpHealthCheck": {"path": "healthz", "codecClientType": "HTTP3", "method": "CONNECT",
			"send": {"text": "x"}, "receive": [{"text": "0"}], "expectedStatuses": [{"start": 1, "end": 2}], "retriableStatuses": [{"start": 500, "end": 500}],
			"requestHeadersToAdd": [{"header": {"key": "a", "value": "%PROTOCOL%"}}]}`),
			[]string{
				"health_checks[0].http_health_check.method: value must not be in list [CONNECT]",
				"health_checks[0].http_health_check.request_headers_to_add[0].header.value: a value that is computed is not supported in a health check",
				"health_checks[0].http_health_check.send.text: must be in hexadecimal: encoding/hex: invalid byte: U+0078 'x'",
				"health_checks[0].http_health_check.expected_statuses[0]: [1, 2) is not a range in [100, 600)",
				"health_checks[0].http_health_check.retriable_statuses[0]: [500, 500) is not a range in [100, 600)",
				"health_checks[0].http_health_check.receive[0].text: must be in hexadecimal: encoding/hex: odd length hex string",
				`health_checks[0].http_health_check.path: "healthz" must begin with a slash`,
				"health_checks[0].http_health_check.codec_client_type: HTTP3 is not supported: use HTTP1 or HTTP2",
			}},
		{"a body for GET", check(`"httpHealthCheck": {"path": "/", "send": {"text": "01"}, "useAlpnProtocol": true, "codecClientType": "HTTP2"}`),
			[]string{
				"health_checks[0].http_health_check.send: must not be set for a method without a body: set method to POST",
				"health_checks[0].http_health_check.use_alpn_protocol: is not supported beside another codec_client_type than HTTP1",
			}},
	})
}
