package decode

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

func decodeCluster(t *testing.T, text string) *discovery.Cluster {
	t.Helper()
	_, c, err := Cluster(marshal(t, fromJSON[clusterv3.Cluster](t, text)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClusterDecodesEveryField(t *testing.T) {
	t.Parallel()
	want := &discovery.Cluster{
		Name:    "outbound|80||payment.shop",
		EDSName: "payment-endpoints",
		Balancer: balancer.Config{
			Policy: balancer.LeastRequest, ChoiceCount: 3, ActiveRequestBias: 1.5,
			PanicThreshold: 30, LocalityWeighted: true,
		},
		ConnectTimeout: time.Second,
		Limits: [2]breaker.Limits{
			discovery.PriorityDefault: {MaxConnections: 1, MaxPendingRequests: 2, MaxRequests: 3, MaxRetries: 4},
			discovery.PriorityHigh:    {MaxConnections: 1024, MaxPendingRequests: 1024, MaxRequests: 1024, MaxRetries: 3},
		},
		RetryBudget:   [2]*retry.Budget{discovery.PriorityHigh: {Percent: 25, MinConcurrency: 5}},
		RetryThrottle: &retry.ThrottleSettings{MaxTokens: 10, TokenRatio: 0.1},
		Breaker:       &breaker.Settings{FailureRatio: 0.25, MinRequests: 10, Window: 20 * time.Second, OpenTime: time.Second, HalfOpenProbes: 2},
		Outlier: &balancer.OutlierConfig{
			Interval: time.Second, BaseEjectionTime: 2 * time.Second, MaxEjectionTime: 3 * time.Second, EjectionJitter: 4 * time.Second,
			MaxEjectionPercent: 5, AlwaysEjectOneHost: true, SplitLocalOrigin: true,
			Consecutive5xx:     balancer.ConsecutiveFailures{Threshold: 6, Enforcing: 7},
			ConsecutiveGateway: balancer.ConsecutiveFailures{Threshold: 8, Enforcing: 9},
			ConsecutiveLocal:   balancer.ConsecutiveFailures{Threshold: 10, Enforcing: 11},
			SuccessRate:        balancer.SuccessRate{MinimumHosts: 12, RequestVolume: 13, StdevFactor: 14, Enforcing: 15, EnforcingLocal: 16},
			FailurePercentage:  balancer.FailurePercentage{Threshold: 17, MinimumHosts: 18, RequestVolume: 19, Enforcing: 20, EnforcingLocal: 21},
		},
		TLS: &discovery.UpstreamTLS{
			IdentityInstance: "default", RootInstance: "default", SNI: "payment.shop", ALPN: []string{"h2"},
			SANs: []discovery.StringMatch{
				{Kind: discovery.MatchExact, Value: "spiffe://cluster.local/ns/shop/sa/payment"},
				{Kind: discovery.MatchRegex, Value: "spiffe://.*", Regex: mustRegex(t, "spiffe://.*")},
			},
		},
		TLSMatches: []discovery.TLSMatch{
			{Name: "tlsMode-istio", Match: map[string]string{"tlsMode": "istio"}, TLS: &discovery.UpstreamTLS{RootInstance: "istio"}},
			{Name: "tlsMode-disabled"},
		},
		Protocol: discovery.HTTP2,
		HTTP2: discovery.HTTP2Options{MaxStreams: 50, Pings: discovery.Pings{
			Interval: 30 * time.Second, Jitter: 20, Timeout: 5 * time.Second, Idle: time.Minute,
		}},
		MaxRequestsPerConnection: 100,
		IdleTimeout:              time.Minute,
		MaxConnectionDuration:    time.Hour,
		PreconnectRatio:          1.25,
		KeepAlive:                &discovery.KeepAlive{Probes: 3, Time: time.Minute, Interval: 5 * time.Second},
		Families:                 discovery.Families{First: discovery.IPv4, Count: 2},
	}
	if diff := cmp.Diff(want, decodeCluster(t, edsClusterFixture), sameModel); diff != "" {
		t.Errorf("cluster (-want +got):\n%s", diff)
	}
}

func TestClusterDefaults(t *testing.T) {
	t.Parallel()
	want := &discovery.Cluster{
		Name:           "c",
		EDSName:        "c",
		Balancer:       balancer.Config{PanicThreshold: 50},
		ConnectTimeout: 5 * time.Second,
		Limits:         [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits},
		IdleTimeout:    time.Hour,
	}
	got := decodeCluster(t, `{"name": "c", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}}`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cluster (-want +got):\n%s", diff)
	}

	got = decodeCluster(t, clusterWith(`"circuitBreakers": {"thresholds": [{"retryBudget": {}}]}, "commonLbConfig": {"healthyPanicThreshold": {"value": 0}}, "metadata": {"filterMetadata": {"inboard.breaker": {}}}`))
	if diff := cmp.Diff([2]*retry.Budget{{Percent: 20, MinConcurrency: 3}}, got.RetryBudget); diff != "" {
		t.Errorf("retry budget (-want +got):\n%s", diff)
	}
	if got.Balancer.PanicThreshold != 0 {
		t.Errorf("panic threshold %v, want 0 as configured", got.Balancer.PanicThreshold)
	}
	wantBreaker := &breaker.Settings{FailureRatio: 0.5, MinRequests: 20, Window: 10 * time.Second, OpenTime: 5 * time.Second, HalfOpenProbes: 3}
	if diff := cmp.Diff(wantBreaker, got.Breaker); diff != "" {
		t.Errorf("breaker (-want +got):\n%s", diff)
	}
}

func TestBO1_BO2_OutlierDetectionDefaults(t *testing.T) {
	t.Parallel()
	got := decodeCluster(t, clusterWith(`"outlierDetection": {}`)).Outlier
	want := &balancer.OutlierConfig{
		UnejectOnCheck: true,
		Interval:       10 * time.Second, BaseEjectionTime: 30 * time.Second, MaxEjectionTime: 300 * time.Second,
		MaxEjectionPercent: 10,
		Consecutive5xx:     balancer.ConsecutiveFailures{Threshold: 5, Enforcing: 100},
		ConsecutiveGateway: balancer.ConsecutiveFailures{Threshold: 5},
		ConsecutiveLocal:   balancer.ConsecutiveFailures{Threshold: 5, Enforcing: 100},
		SuccessRate:        balancer.SuccessRate{MinimumHosts: 5, RequestVolume: 100, StdevFactor: 1900, Enforcing: 100, EnforcingLocal: 100},
		FailurePercentage:  balancer.FailurePercentage{Threshold: 85, MinimumHosts: 5, RequestVolume: 50},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outlier detection (-want +got):\n%s", diff)
	}
	for text, want := range map[string]time.Duration{
		`{"baseEjectionTime": "400s"}`:                           400 * time.Second,
		`{"baseEjectionTime": "4s"}`:                             300 * time.Second,
		`{"baseEjectionTime": "4s", "maxEjectionTime": "3s"}`:    4 * time.Second,
		`{"baseEjectionTime": "400s", "maxEjectionTime": "30s"}`: 400 * time.Second,
	} {
		if got := decodeCluster(t, clusterWith(`"outlierDetection": `+text)).Outlier.MaxEjectionTime; got != want {
			t.Errorf("%s: max ejection time %v, want %v", text, got, want)
		}
	}
	// Every zero that means something stays one.
	got = decodeCluster(t, clusterWith(`"outlierDetection": {"consecutive5xx": 0, "enforcingConsecutive5xx": 0, "maxEjectionPercent": 0}`)).Outlier
	if got.Consecutive5xx != (balancer.ConsecutiveFailures{}) || got.MaxEjectionPercent != 0 {
		t.Errorf("explicit zeros became %+v", got)
	}
}

func TestClusterDecodesStaticEndpoints(t *testing.T) {
	t.Parallel()
	got := decodeCluster(t, staticClusterFixture)
	want := &discovery.Assignment{
		Name: "static", OverprovisioningFactor: 140,
		// No locality weight: Envoy asks for none unless it balances by them.
		Localities: []discovery.LocalityEndpoints{{Endpoints: []balancer.Endpoint{{Address: "127.0.0.1:80"}}}},
	}
	if diff := cmp.Diff(want, got.Static); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	if got.EDSName != "" || got.Protocol != discovery.HTTPDownstream || got.TLS.RootInstance != "old" {
		t.Errorf("EDS name %q, protocol %v, TLS %+v", got.EDSName, got.Protocol, got.TLS)
	}
}

// namedCluster is a cluster of a type of DNS with endpoints at these addresses.
func namedCluster(kind, fields string, addresses ...string) string {
	var endpoints []string
	for _, address := range addresses {
		endpoints = append(endpoints, `{"endpoint": {"address": {"socketAddress": {"address": "`+address+`", "portValue": 80}}}}`)
	}
	return `{"name": "c", "type": "` + kind + `", "loadAssignment": {"clusterName": "c", "endpoints": [{"lbEndpoints": [` +
		strings.Join(endpoints, ",") + `]}]}` + fields + `}`
}

func TestClusterDecodesNames(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, kind, fields string
		want               discovery.DNS
	}{
		{"the defaults", "STRICT_DNS", "", discovery.DNS{Refresh: 5 * time.Second}},
		{"one endpoint", "LOGICAL_DNS", "", discovery.DNS{Logical: true, Refresh: 5 * time.Second}},
		{"everything", "STRICT_DNS", `, "dnsRefreshRate": "2s", "dnsJitter": "0.1s", "respectDnsTtl": true, "dnsLookupFamily": "V4_PREFERRED",
			"dnsFailureRefreshRate": {"baseInterval": "1s", "maxInterval": "4s"}`, discovery.DNS{
			Refresh: 2 * time.Second, Jitter: 100 * time.Millisecond, Family: discovery.DNSV4Preferred,
			FailureBase: time.Second, FailureMax: 4 * time.Second,
		}},
		{"ten times as long after failures", "STRICT_DNS", `, "dnsFailureRefreshRate": {"baseInterval": "1s"}, "dnsLookupFamily": "ALL"`, discovery.DNS{
			Refresh: 5 * time.Second, Family: discovery.DNSAll, FailureBase: time.Second, FailureMax: 10 * time.Second,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := decodeCluster(t, namedCluster(tt.kind, tt.fields, "api.example."))
			if c.DNS == nil || *c.DNS != tt.want {
				t.Errorf("DNS %+v, want %+v", c.DNS, tt.want)
			}
			if got := c.Static.Localities[0].Endpoints[0].Address; got != "api.example.:80" || c.EDSName != "" {
				t.Errorf("endpoint %q, EDS name %q", got, c.EDSName)
			}
		})
	}
	if got := decodeCluster(t, namedCluster("STRICT_DNS", "", "fd00::1")).Static.Localities[0].Endpoints[0].Address; got != "[fd00::1]:80" {
		t.Errorf("an address became %q", got)
	}
}

func TestNamesThatCannotBeResolved(t *testing.T) {
	t.Parallel()
	const at = "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address."
	wantClusterErrors(t, []clusterCase{
		{"none", namedCluster("STRICT_DNS", "", "a b"), []string{at + `address: "a b" is neither an IP address nor a host name`}},
		{"a socket", namedCluster("STRICT_DNS", "", "unix:/a"), []string{at + `address: "unix:/a" is neither an IP address nor a host name`}},
		{"a name of a STATIC cluster", namedCluster("STATIC", "", "a"), []string{at + `address: "a" is not an IP address`}},
		{"two in one", namedCluster("LOGICAL_DNS", "", "a", "b"), []string{"load_assignment.endpoints: must be one locality with one endpoint for type LOGICAL_DNS"}},
		{"failures that pass too soon", namedCluster("STRICT_DNS", `, "dnsFailureRefreshRate": {"baseInterval": "2s", "maxInterval": "1s"}`, "a"),
			[]string{"dns_failure_refresh_rate.max_interval: 1s must not be less than base_interval, 2s"}},
		{"no refresh", namedCluster("STRICT_DNS", `, "dnsRefreshRate": "0s"`, "a"), []string{"dns_refresh_rate: value must be greater than 1ms"}},
		{"another resolver", namedCluster("STRICT_DNS", `, "useTcpForDnsLookups": true, "dnsResolvers": [{"socketAddress": {"address": "10.0.0.1", "portValue": 53}}]`, "a"),
			[]string{
				"dns_resolvers: not supported for type STRICT_DNS: the process's resolver is asked",
				"use_tcp_for_dns_lookups: not supported for type STRICT_DNS: the process's resolver is asked",
			}},
	})
}

func TestBalancingPolicies(t *testing.T) {
	t.Parallel()
	for fixture, want := range map[string]balancer.Config{
		wrrLocalityClusterFixture:                  {Policy: balancer.LeastRequest, ChoiceCount: 4, ActiveRequestBias: 2, LocalityWeighted: true, PanicThreshold: 50},
		randomClusterFixture:                       {Policy: balancer.Random, LocalityWeighted: true, PanicThreshold: 50},
		roundRobinClusterFixture:                   {Policy: balancer.RoundRobin, LocalityWeighted: true, PanicThreshold: 50},
		clusterWith(`"lbPolicy": "RANDOM"`):        {Policy: balancer.Random, PanicThreshold: 50},
		clusterWith(`"lbPolicy": "LEAST_REQUEST"`): {Policy: balancer.LeastRequest, PanicThreshold: 50},
	} {
		c := decodeCluster(t, fixture)
		if diff := cmp.Diff(want, c.Balancer); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.Name, diff)
		}
	}
}

func TestHTTPProtocols(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]discovery.HTTPProtocol{
		`"explicitHttpConfig": {"httpProtocolOptions": {}}`:                    discovery.HTTP1,
		`"explicitHttpConfig": {"http2ProtocolOptions": {}}`:                   discovery.HTTP2,
		`"useDownstreamProtocolConfig": {}`:                                    discovery.HTTPDownstream,
		`"autoConfig": {}`:                                                     discovery.HTTPAuto,
		`"autoConfig": {}, "commonHttpProtocolOptions": {"idleTimeout": "0s"}`: discovery.HTTPAuto,
	} {
		c := decodeCluster(t, clusterWith(httpOptions(config)))
		if c.Protocol != want {
			t.Errorf("%s: protocol %v, want %v", config, c.Protocol, want)
		}
	}
	if c := decodeCluster(t, clusterWith(httpOptions(`"autoConfig": {}, "commonHttpProtocolOptions": {"idleTimeout": "0s"}`))); c.IdleTimeout != 0 {
		t.Errorf("idle timeout %v, want none", c.IdleTimeout)
	}
}

func TestTheCurrentTLSFieldsWinOverTheDeprecated(t *testing.T) {
	t.Parallel()
	c := decodeCluster(t, clusterWith(clientTLS(`
		"tlsCertificateProviderInstance": {"instanceName": "new"}, "tlsCertificateCertificateProviderInstance": {"instanceName": "old"},
		"combinedValidationContext": {
			"defaultValidationContext": {
				"caCertificateProviderInstance": {"instanceName": "new-roots"},
				"matchTypedSubjectAltNames": [{"sanType": "URI", "matcher": {"exact": "spiffe://new"}}],
				"matchSubjectAltNames": [{"exact": "spiffe://old"}]},
			"validationContextCertificateProviderInstance": {"instanceName": "old-roots"}}`)))
	want := &discovery.UpstreamTLS{
		IdentityInstance: "new", RootInstance: "new-roots",
		SANs: []discovery.StringMatch{{Kind: discovery.MatchExact, Value: "spiffe://new"}},
	}
	if diff := cmp.Diff(want, c.TLS); diff != "" {
		t.Errorf("TLS (-want +got):\n%s", diff)
	}
}

func TestTLSToAServerOutsideTheMesh(t *testing.T) {
	t.Parallel()
	digest := func(text string) [][sha256.Size]byte {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return [][sha256.Size]byte{[sha256.Size]byte(raw)}
	}
	name := func(kind discovery.NameType, value string) discovery.NameMatch {
		return discovery.NameMatch{Type: kind, StringMatch: discovery.StringMatch{Value: value}}
	}
	other, suffix := name(discovery.NameOther, "ada@example"), name(discovery.NameEmail, "@example")
	other.OID, suffix.Kind = "1.3.6.1.4.1.311.20.2.3", discovery.MatchSuffix
	want := &discovery.UpstreamTLS{
		IdentityInstance: "own", SystemRoots: true, SNI: "api.example",
		Names: []discovery.NameMatch{name(discovery.NameDNS, "api.example"), suffix, name(discovery.NameIP, "10.0.0.1"), other},
		TLSParams: discovery.TLSParams{
			MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13,
			CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256},
			Curves:       []tls.CurveID{tls.X25519},
			Certificates: digest("df6ff72fe9116521268f6f2dd4966f51df479883fe7037b39f75916ac3049d1a"),
			Keys:         digest("36fa9821849b80adaf089a5084e6dfefbbeff9b416b5ce5e9394483b03e20bd0"),
		},
	}
	if diff := cmp.Diff(want, decodeCluster(t, outsideClusterFixture).TLS); diff != "" {
		t.Errorf("TLS (-want +got):\n%s", diff)
	}
}

// TestBS3_TheServerNameIsTheNameToMatch if the configuration asks for it.
func TestBS3_TheServerNameIsTheNameToMatch(t *testing.T) {
	t.Parallel()
	const context = `"transportSocket": {"name": "tls", "typedConfig": {
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", %s "autoSniSanValidation": true,
		"commonTlsContext": {"validationContext": {"systemRootCerts": {}, "matchSubjectAltNames": [{"exact": "a"}]}}}}`
	got := decodeCluster(t, clusterWith(fmt.Sprintf(context, `"sni": "api.example",`))).TLS
	want := &discovery.UpstreamTLS{
		SystemRoots: true, SNI: "api.example",
		Names: []discovery.NameMatch{{Type: discovery.NameDNS, StringMatch: discovery.StringMatch{Value: "api.example"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("TLS (-want +got):\n%s", diff)
	}
	wantClusterErrors(t, []clusterCase{
		{"without a server name", clusterWith(fmt.Sprintf(context, "")), []string{"transport_socket.typed_config.auto_sni_san_validation: needs sni"}},
	})
}

// TestSecretsAreTheProvidersOfThisProcess has the names of istiod's.
func TestSecretsAreTheProvidersOfThisProcess(t *testing.T) {
	t.Parallel()
	want := &discovery.UpstreamTLS{
		IdentityInstance: "default", RootInstance: "default", ALPN: []string{"istio-peer-exchange", "istio"},
		SANs: []discovery.StringMatch{{Value: "spiffe://cluster.local/ns/shop/sa/payment"}},
	}
	if diff := cmp.Diff(want, decodeCluster(t, istiodClusterFixture).TLS); diff != "" {
		t.Errorf("TLS (-want +got):\n%s", diff)
	}
}

func TestMetadataOfOthersIsIgnored(t *testing.T) {
	t.Parallel()
	c := decodeCluster(t, clusterWith(`"metadata": {"filterMetadata": {"inboard.other": {"failureRatio": 7}, "istio": {"services": [1]}}}`))
	if c.Breaker != nil {
		t.Errorf("breaker %+v, want none", c.Breaker)
	}
}

// clusterWith is an EDS cluster with these fields, in JSON.
func clusterWith(fields string) string {
	return `{"name": "c", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}, ` + fields + `}`
}

func httpOptions(fields string) string {
	return `"typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", ` + fields + `}}`
}

func clientTLS(common string) string {
	return `"transportSocket": {"name": "envoy.transport_sockets.tls", "typedConfig": {
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "commonTlsContext": {` + common + `}}}`
}

type clusterCase struct {
	name string
	json string
	want []string
}

func wantClusterErrors(t *testing.T, tests []clusterCase) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, c, err := Cluster(marshal(t, fromJSON[clusterv3.Cluster](t, tt.json)))
			if (c == nil) != (len(tt.want) > 0) {
				t.Errorf("cluster %v", c)
			}
			wantErrors(t, err, tt.want...)
		})
	}
}

func TestX76_WhereEndpointsComeFrom(t *testing.T) {
	t.Parallel()
	wantClusterErrors(t, []clusterCase{
		{"an xdstp name without a service name", `{"name": "xdstp://a/envoy.config.cluster.v3.Cluster/c", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}}`,
			[]string{"eds_cluster_config.service_name: must be set for a cluster with an xdstp name"}},
		{"an xdstp name with a service name", `{"name": "xdstp://a/envoy.config.cluster.v3.Cluster/c", "type": "EDS", "edsClusterConfig": {"serviceName": "e", "edsConfig": {"ads": {}}}}`, nil},
		{"another server", `{"name": "c", "type": "EDS", "edsClusterConfig": {"edsConfig": {"apiConfigSource": {"apiType": "GRPC"}}}}`,
			[]string{
				"eds_cluster_config.eds_config.api_config_source: not supported",
				"eds_cluster_config.eds_config: must be ads or self",
			}},
		{"no source", `{"name": "c", "type": "EDS"}`, []string{"eds_cluster_config: must be set for type EDS"}},
		{"a source that is empty", `{"name": "c", "type": "EDS", "edsClusterConfig": {}}`, []string{"eds_cluster_config.eds_config: must be ads or self"}},
		{"inline endpoints for EDS", clusterWith(`"loadAssignment": {"clusterName": "c"}`), []string{"load_assignment: must not be set for type EDS"}},
		{"no endpoints for STATIC", `{"name": "c", "edsClusterConfig": {"edsConfig": {"ads": {}}}}`,
			[]string{"eds_cluster_config: must not be set for type STATIC", "load_assignment: must be set for type STATIC"}},
		{"a bad inline endpoint", `{"name": "c", "loadAssignment": {"clusterName": "c", "endpoints": [{"lbEndpoints": [{}]}]}}`,
			[]string{
				"load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address: must be set",
			}},
		{"names without any", `{"name": "c", "type": "STRICT_DNS"}`, []string{"load_assignment: must be set for type STRICT_DNS"}},
		{"where a connection was going to", `{"name": "c", "type": "ORIGINAL_DST", "lbPolicy": "CLUSTER_PROVIDED"}`, []string{
			"lb_policy: CLUSTER_PROVIDED is not supported: use ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH or MAGLEV",
			"type: ORIGINAL_DST is not supported: use EDS, STATIC, STRICT_DNS or LOGICAL_DNS",
		}},
		{"a custom type", `{"name": "c", "clusterType": {"name": "envoy.clusters.aggregate"}}`,
			[]string{`cluster_type.typed_config: "" is not supported here: must be "envoy.extensions.clusters.aggregate.v3.ClusterConfig"`}},
	})
}

func TestBadClusters(t *testing.T) {
	t.Parallel()
	const (
		tls  = "transport_socket.typed_config."
		http = `typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].`
		mesh = `metadata.filter_metadata["inboard.breaker"]`
	)
	settings := func(s string) string {
		return clusterWith(`"metadata": {"filterMetadata": {"inboard.breaker": ` + s + `}}`)
	}
	wantClusterErrors(t, []clusterCase{
		{"no name", `{"type": "EDS", "edsClusterConfig": {"serviceName": "e", "edsConfig": {"ads": {}}}}`, []string{"name: value length must be at least 1 runes"}},
		{"a throttle that is none", clusterWith(`"metadata": {"filterMetadata": {"inboard.retry_throttle": {"maxTokens": 1001, "tokenratio": 1}}}`), []string{
			`metadata.filter_metadata["inboard.retry_throttle"].tokenratio: unknown: use maxTokens and tokenRatio`,
			`metadata.filter_metadata["inboard.retry_throttle"]: maxTokens 1001: must be above 0 and at most 1000; tokenRatio 0: must be at least 0.001 and at most 1000`,
		}},
		{"sockets by endpoint", clusterWith(`"transportSocketMatches": [{"name": "m", "match": {"a": 1}}]`), []string{
			"transport_socket_matches[0].transport_socket: must be set",
			`transport_socket_matches[0].match.fields["a"]: must be a string`,
		}},
		{"deprecated HTTP/2", clusterWith(`"http2ProtocolOptions": {}`), []string{"http2_protocol_options: not supported: use typed_extension_protocol_options"}},
		{"ejection of more than all", clusterWith(`"outlierDetection": {"maxEjectionPercent": 101, "enforcingSuccessRate": 101}`),
			[]string{
				"outlier_detection.max_ejection_percent: value must be less than or equal to 100",
				"outlier_detection.enforcing_success_rate: value must be less than or equal to 100",
			}},
		{"ejection for no time", clusterWith(`"outlierDetection": {"interval": "0s", "baseEjectionTime": "-1s", "maxEjectionTimeJitter": "-1s"}`),
			[]string{
				"outlier_detection.interval: value must be greater than 0s",
				"outlier_detection.base_ejection_time: value must be greater than 0s",
				"outlier_detection.max_ejection_time_jitter: must not be negative: is -1s",
			}},
		{"sweeps without a pause", clusterWith(`"outlierDetection": {"interval": "0.000999s"}`),
			[]string{"outlier_detection.interval: must be at least 1ms: is 999µs"}},
		{"monitors", clusterWith(`"outlierDetection": {"monitors": [{"name": "m", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}]}`),
			[]string{"outlier_detection.monitors: not supported: no monitor is known: use the detectors of this message"}},
		{"degraded hosts by outlier detection", clusterWith(`"outlierDetection": {"detectDegradedHosts": true}`),
			[]string{"outlier_detection.detect_degraded_hosts: not supported with another value than zero"}},
		{"outlier detection by default", clusterWith(`"outlierDetection": {}`), nil},

		{"an unknown balancer", clusterWith(`"lbPolicy": "CLUSTER_PROVIDED"`),
			[]string{"lb_policy: CLUSTER_PROVIDED is not supported: use ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH or MAGLEV"}},
		{"a ring for another balancer", clusterWith(`"ringHashLbConfig": {}`),
			[]string{"ring_hash_lb_config: must not be set for lb_policy ROUND_ROBIN"}},
		{"a missing policy", clusterWith(`"lbPolicy": "LOAD_BALANCING_POLICY_CONFIG"`),
			[]string{"load_balancing_policy: must be set for lb_policy LOAD_BALANCING_POLICY_CONFIG"}},
		{"a configuration of another balancer", clusterWith(`"lbPolicy": "RANDOM", "leastRequestLbConfig": {}`),
			[]string{"least_request_lb_config: must not be set for lb_policy RANDOM"}},
		{"a configuration of round robin for another balancer", clusterWith(`"lbPolicy": "RANDOM", "roundRobinLbConfig": {}`),
			[]string{"round_robin_lb_config: must not be set for lb_policy RANDOM"}},
		{"one choice", clusterWith(`"lbPolicy": "LEAST_REQUEST", "leastRequestLbConfig": {"choiceCount": 1}`),
			[]string{"least_request_lb_config.choice_count: value must be greater than or equal to 2"}},
		{"no bias", clusterWith(`"lbPolicy": "LEAST_REQUEST", "leastRequestLbConfig": {"activeRequestBias": {"runtimeKey": "k"}}`),
			[]string{"least_request_lb_config.active_request_bias.default_value: must be more than 0: is 0"}},
		{"a panic threshold of 101", clusterWith(`"commonLbConfig": {"healthyPanicThreshold": {"value": 101}}`),
			[]string{"common_lb_config.healthy_panic_threshold.value: value must be inside range [0, 100]"}},
		{"locality weights in the wrong place", clusterWith(`"commonLbConfig": {"localityWeightedLbConfig": {}}, "loadBalancingPolicy": {"policies": [` +
			`{"typedExtensionConfig": {"name": "r", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random"}}}]}`),
			[]string{"common_lb_config.locality_weighted_lb_config: must not be set beside load_balancing_policy: set it in the policy"}},

		{"priorities twice", clusterWith(`"circuitBreakers": {"thresholds": [{}, {"maxRequests": 1}]}`),
			[]string{"circuit_breakers.thresholds[1].priority: DEFAULT has thresholds already"}},
		{"limits per host that are none", clusterWith(`"circuitBreakers": {"perHostThresholds": [{"maxRequests": 5, "trackRemaining": true}, {"priority": "HIGH", "maxConnections": 1}, {"priority": "HIGH", "maxConnections": 2}]}`),
			[]string{
				"circuit_breakers.per_host_thresholds[0].max_requests: not supported for a host: max_connections is the only limit of hosts",
				"circuit_breakers.per_host_thresholds[0].track_remaining: not supported for a host: max_connections is the only limit of hosts",
				"circuit_breakers.per_host_thresholds[0].max_connections: must be at least 1",
				"circuit_breakers.per_host_thresholds[2].priority: HIGH has thresholds already",
			}},
		{"a limit on pools", clusterWith(`"circuitBreakers": {"thresholds": [{"maxConnectionPools": 1}]}`),
			[]string{"circuit_breakers.thresholds[0].max_connection_pools: not supported: a pool is an endpoint's: use max_connections"}},

		{"other protocol options", clusterWith(`"typedExtensionProtocolOptions": {"envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}`),
			[]string{`typed_extension_protocol_options["envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions"]: not supported: use "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"`}},
		{"no protocol", clusterWith(httpOptions(`"commonHttpProtocolOptions": {}`)), []string{http + "upstream_protocol_options: value is required"}},
		{"HTTP/3", clusterWith(httpOptions(`"explicitHttpConfig": {"http3ProtocolOptions": {}}`)), []string{http + "explicit_http_config.http3_protocol_options: not supported: there is no HTTP/3: use http2_protocol_options"}},
		{"SNI by host", clusterWith(httpOptions(`"autoConfig": {}, "upstreamHttpProtocolOptions": {"autoSni": true}`)), []string{http + "upstream_http_protocol_options.auto_sni: not supported: name sni in the transport socket"}},
		{"a stream limit", clusterWith(httpOptions(`"autoConfig": {}, "commonHttpProtocolOptions": {"maxStreamDuration": "1s"}`)),
			[]string{http + "common_http_protocol_options.max_stream_duration: not supported in a cluster: set it in the route"}},

		{"TLS without roots", clusterWith(clientTLS(``)), []string{tls + "common_tls_context.validation_context: must name a certificate provider instance for the roots that verify the peer"}},
		{"TLS with roots of the system", clusterWith(clientTLS(`"validationContext": {"systemRootCerts": {}}`)), []string{
			tls + "common_tls_context.validation_context: must match names beside system_root_certs",
		}},
		{"TLS of a proxy", clusterWith(`"transportSocket": {"name": "t", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}`),
			[]string{`transport_socket.typed_config: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"`}},
		{"a name that is a broken expression", clusterWith(clientTLS(`"validationContext": {"caCertificateProviderInstance": {"instanceName": "r"}, "matchSubjectAltNames": [{"safeRegex": {"regex": "("}}]}`)),
			[]string{tls + "common_tls_context.validation_context.match_subject_alt_names[0].safe_regex: missing closing )"}},

		{"an unknown breaker setting", settings(`{"ratio": 0.5, "window": "1s"}`),
			[]string{mesh + ".ratio: unknown: use failureRatio, minimumRequests, window, openTime, halfOpenProbes or scope"}},
		{"breaker settings of the wrong types", settings(`{"failureRatio": "half", "minimumRequests": 1.5, "window": 10, "openTime": "soon", "halfOpenProbes": [1]}`),
			[]string{
				mesh + `.failureRatio: must be a number: is "half"`,
				mesh + `.halfOpenProbes: must be a whole number up to 4294967295: is a list`,
				mesh + `.minimumRequests: must be a whole number up to 4294967295: is 1.5`,
				mesh + `.openTime: must be a duration such as "10s": is "soon"`,
				mesh + `.window: must be a duration such as "10s": is 10`,
			}},
		{"breaker settings out of range", settings(`{"failureRatio": 1.5, "minimumRequests": 0, "window": "-1s", "openTime": "0s", "halfOpenProbes": 0}`),
			[]string{mesh + ": failureRatio 1.5: must be above 0 and at most 1; minimumRequests 0: must be at least 1; window -1s: must be above 0 and at most 24h0m0s; openTime 0s: must be a positive duration; halfOpenProbes 0: must be at least 1"}},
		{"breaker settings that are null, false and an object", settings(`{"failureRatio": null, "minimumRequests": false, "window": {}}`),
			[]string{
				mesh + `.failureRatio: must be a number: is null`,
				mesh + `.minimumRequests: must be a whole number up to 4294967295: is false`,
				mesh + `.window: must be a duration such as "10s": is an object`,
			}},
	})
}

func TestBL11_NoKnownBalancingPolicy(t *testing.T) {
	t.Parallel()
	c := fromJSON[clusterv3.Cluster](t, clusterWith(`"loadBalancingPolicy": {"policies": [
		{"typedExtensionConfig": {"name": "a", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}},
		{"typedExtensionConfig": {"name": "b", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Node"}}}]}`))
	_, _, err := Cluster(marshal(t, c))
	wantErrors(t, err, "load_balancing_policy.policies: none of the policies is supported: [envoy.config.core.v3.Locality, envoy.config.core.v3.Node]")
}

func TestNestedBalancingPoliciesAreBounded(t *testing.T) {
	t.Parallel()
	nest := func(depth int) *clusterv3.Cluster {
		policy := &clusterv3.LoadBalancingPolicy{}
		var inner proto.Message = &leastrequestv3.LeastRequest{}
		for range depth {
			policy = &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
				TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: "p", TypedConfig: wrap(t, inner)},
			}}}
			inner = &wrrlocalityv3.WrrLocality{EndpointPickingPolicy: policy}
		}
		c := edsCluster("c")
		c.LoadBalancingPolicy = policy
		return c
	}
	if _, _, err := Cluster(marshal(t, nest(maxPolicyDepth))); err != nil {
		t.Errorf("%d policies: %v", maxPolicyDepth, err)
	}
	_, _, err := Cluster(marshal(t, nest(maxPolicyDepth+1)))
	if want := fmt.Sprintf("more than %d policies within each other", maxPolicyDepth); len(errorsEnding(err, want)) != 1 {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestNotANumber(t *testing.T) {
	t.Parallel()
	c := edsCluster("c")
	nan := math.NaN()
	c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: nan}}
	c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{
		ActiveRequestBias: &corev3.RuntimeDouble{DefaultValue: nan, RuntimeKey: "k"},
	}}
	c.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		RetryBudget: &clusterv3.CircuitBreakers_Thresholds_RetryBudget{BudgetPercent: &typev3.Percent{Value: nan}},
	}}}
	c.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{breakerKey: {Fields: map[string]*structpb.Value{
		"failureRatio": structpb.NewNumberValue(nan), "halfOpenProbes": structpb.NewNumberValue(nan),
	}}}}
	_, _, err := Cluster(marshal(t, c))
	wantErrors(t, err,
		"least_request_lb_config.active_request_bias.default_value: must be more than 0: is NaN",
		"common_lb_config.healthy_panic_threshold: is not a number",
		`metadata.filter_metadata["inboard.breaker"].halfOpenProbes: must be a whole number up to 4294967295: is NaN`,
		`metadata.filter_metadata["inboard.breaker"]: failureRatio NaN: must be above 0 and at most 1`,
		"circuit_breakers.thresholds[0].retry_budget.budget_percent: is not a number",
	)
}
