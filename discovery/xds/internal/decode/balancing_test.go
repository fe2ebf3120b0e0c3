package decode

import (
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

func TestBL1to12_BalancersAreDecoded(t *testing.T) {
	t.Parallel()
	slow := balancer.SlowStart{Window: 7 * time.Second, Aggression: 1.5, MinWeightPercent: 20}
	subsets := &balancer.Subsets{
		Fallback: balancer.FallbackDefault, Default: map[string]string{"version": "v1"}, PanicAny: true, LocalityWeightAware: true,
		Selectors: []balancer.SubsetSelector{
			{Keys: []string{"version", "stage"}, Fallback: balancer.FallbackKeysSubset, FallbackKeys: []string{"version"}},
			{Keys: []string{"version"}},
		},
	}
	hash := []discovery.HashPolicy{{Header: "x", Terminal: true}}
	want := []struct {
		balancer.Config

		hash []discovery.HashPolicy
	}{
		{Config: balancer.Config{
			Policy: balancer.RingHash, MinRingSize: 10, MaxRingSize: 70, HashHostnames: true, HashBalanceFactor: 120,
		}},
		{Config: balancer.Config{FailOnPanic: true, ZoneAware: &balancer.ZoneAware{RoutingEnabled: 40, MinClusterSize: 3}}},
		{Config: balancer.Config{
			Policy: balancer.Random, FailOnPanic: true,
			ZoneAware: &balancer.ZoneAware{RoutingEnabled: 40, MinClusterSize: 3, ForceLocal: 4, ByWeight: true},
		}},
		{Config: balancer.Config{Policy: balancer.Random, ZoneAware: &balancer.ZoneAware{RoutingEnabled: 100, ForceLocal: 1}}},
		{Config: balancer.Config{Policy: balancer.Maglev, MaglevSize: 101, Subsets: subsets}},
		{Config: balancer.Config{Policy: balancer.LeastRequest, SlowStart: slow}},
		{Config: balancer.Config{SlowStart: slow}},
		{Config: balancer.Config{Policy: balancer.RingHash, MinRingSize: 10, MaxRingSize: 70, HashHostnames: true, HashBalanceFactor: 130}},
		{Config: balancer.Config{Policy: balancer.RingHash, LocalityWeighted: true, HashHostnames: true, HashBalanceFactor: 150}, hash: hash},
		{Config: balancer.Config{Policy: balancer.Maglev, MaglevSize: 101, LocalityWeighted: true, HashHostnames: true, HashBalanceFactor: 150}, hash: hash},
		{Config: balancer.Config{SlowStart: slow}},
		{Config: balancer.Config{Policy: balancer.LeastRequest, FullScan: true, SlowStart: slow}},
		{Config: balancer.Config{Policy: balancer.LeastRequest, FullScan: true}},
		{Config: balancer.Config{Policy: balancer.PickFirst, Shuffle: true}},
		{Config: balancer.Config{
			Policy: balancer.ClientWeighted, SlowStart: slow,
			ClientWeighted: balancer.ClientWeightedConfig{
				OutOfBand: true, ReportPeriod: 5 * time.Second, Blackout: time.Second, Expiration: 30 * time.Second,
				UpdatePeriod: 2 * time.Second, ErrorPenalty: 2, Metrics: []string{"named_metrics.a"},
			},
		}},
		{Config: balancer.Config{Policy: balancer.Random, Subsets: subsets}},
	}
	for i, text := range balancingFixtures {
		got := decodeCluster(t, text)
		want[i].PanicThreshold = 50
		if diff := cmp.Diff(want[i].Config, got.Balancer); diff != "" {
			t.Errorf("%s\n(-want +got):\n%s", text, diff)
		}
		if diff := cmp.Diff(want[i].hash, got.Hash); diff != "" {
			t.Errorf("%s\nhash policies (-want +got):\n%s", text, diff)
		}
	}
}

func TestBL8_PeriodsOfZeroAreNone(t *testing.T) {
	t.Parallel()
	got := decodeCluster(t, typedPolicy("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
		`"blackoutPeriod": "0s", "weightExpirationPeriod": "0s"`)).Balancer.ClientWeighted
	want := balancer.ClientWeightedConfig{Blackout: -1, Expiration: -1, ErrorPenalty: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBL3_HashPoliciesAndSubsetsOfRoutes(t *testing.T) {
	t.Parallel()
	_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, hashRoutesFixture)))
	if err != nil {
		t.Fatal(err)
	}
	routes := table.VirtualHosts[0].Routes
	want := []discovery.HashPolicy{
		{Header: "x-user", Terminal: true},
		{Cookie: "session", NewCookie: &discovery.NewCookie{
			TTL: time.Minute, Path: "/p", Attributes: []discovery.CookieAttribute{{Name: "SameSite", Value: "Lax"}, {Name: "Secure"}},
		}},
		{Source: true},
		{Query: "q"},
		{Channel: true},
	}
	if diff := cmp.Diff(want, routes[0].Forward.Hash); diff != "" {
		t.Errorf("hash policies (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		name  string
		match *balancer.Match
		want  map[string]string
	}{
		{"a route", routes[0].Forward.Subset, map[string]string{"version": "v1"}},
		{"a weighted cluster and its route", routes[1].Forward.Clusters[0].Subset, map[string]string{"version": "v1", "stage": "prod"}},
		{"a weighted cluster without its own", routes[1].Forward.Clusters[1].Subset, map[string]string{"version": "v1", "stage": "any"}},
	} {
		if diff := cmp.Diff(tt.want, tt.match.Values()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// As in Envoy lb_subset_config is off without selectors, and the policy is not: its
// fallback says what every call gets.
func TestSubsetsWithoutSelectors(t *testing.T) {
	t.Parallel()
	const fields = `"fallbackPolicy": "DEFAULT_SUBSET", "defaultSubset": {"version": "v1"}`
	if c := decodeCluster(t, clusterWith(`"lbSubsetConfig": {`+fields+`}`)); c.Balancer.Subsets != nil {
		t.Errorf("lb_subset_config is %+v, want none", c.Balancer.Subsets)
	}
	c := decodeCluster(t, typedPolicy("subset.v3.Subset", fields+`, "subsetLbPolicy": {"policies": [`+typedExtension("random.v3.Random", "")+`]}`))
	want := &balancer.Subsets{Fallback: balancer.FallbackDefault, Default: map[string]string{"version": "v1"}}
	if diff := cmp.Diff(want, c.Balancer.Subsets); diff != "" {
		t.Errorf("the policy (-want +got):\n%s", diff)
	}
}

func TestBL3_BL5_BL6_BadBalancersAreRefused(t *testing.T) {
	t.Parallel()
	const typed = "load_balancing_policy.policies[0].typed_extension_config.typed_config."
	tests := []struct {
		name, text string
		want       []string
	}{
		{"a ring that is too large", clusterWith(`"lbPolicy": "RING_HASH", "ringHashLbConfig": {"maximumRingSize": 8388609}`),
			[]string{"ring_hash_lb_config.maximum_ring_size: value must be less than or equal to 8388608"}},
		{"a minimum above the maximum", clusterWith(`"lbPolicy": "RING_HASH", "ringHashLbConfig": {"minimumRingSize": 11, "maximumRingSize": 10}`),
			[]string{"ring_hash_lb_config.minimum_ring_size: 11 is more than the maximum of 10"}},
		{"a maximum below the default", clusterWith(`"lbPolicy": "RING_HASH", "ringHashLbConfig": {"maximumRingSize": 1000}`),
			[]string{"ring_hash_lb_config.minimum_ring_size: 1024 is more than the maximum of 1000"}},
		{"a table whose size is not prime", clusterWith(`"lbPolicy": "MAGLEV", "maglevLbConfig": {"tableSize": 100}`),
			[]string{"maglev_lb_config.table_size: must be a prime number up to 5000011: is 100"}},
		{"a bound below the average", typedPolicy("maglev.v3.Maglev", `"consistentHashingLbConfig": {"hashBalanceFactor": 99}`),
			[]string{typed + "consistent_hashing_lb_config.hash_balance_factor: value must be greater than or equal to 100"}},
		{"an aggression of 0", clusterWith(`"roundRobinLbConfig": {"slowStartConfig": {"aggression": {"runtimeKey": "k"}}}`),
			[]string{"round_robin_lb_config.slow_start_config.aggression.default_value: must be more than 0: is 0"}},
		{"a negative penalty", typedPolicy("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", `"errorUtilizationPenalty": -1`),
			[]string{typed + "error_utilization_penalty: value must be greater than or equal to 0"}},
		{"subsets by numbers", clusterWith(`"lbSubsetConfig": {"defaultSubset": {"n": 1}, "subsetSelectors": [{"keys": ["n"]}]}`),
			[]string{`lb_subset_config.default_subset.fields["n"]: must be a string`}},
		{"a selector without keys", clusterWith(`"lbSubsetConfig": {"subsetSelectors": [{}]}`),
			[]string{"lb_subset_config.subset_selectors[0].keys: must not be empty"}},
		{"fewer keys that are not fewer", clusterWith(`"lbSubsetConfig": {"subsetSelectors": [{"keys": ["a"], "fallbackPolicy": "KEYS_SUBSET", "fallbackKeysSubset": ["a"]}]}`),
			[]string{"lb_subset_config.subset_selectors[0].fallback_keys_subset: must not be all of the keys"}},
		{"fewer keys that are others", clusterWith(`"lbSubsetConfig": {"subsetSelectors": [{"keys": ["a"], "fallbackPolicy": "KEYS_SUBSET", "fallbackKeysSubset": ["b"]}]}`),
			[]string{"lb_subset_config.subset_selectors[0].fallback_keys_subset: must be some of the keys"}},
		{"fewer keys without the policy", clusterWith(`"lbSubsetConfig": {"subsetSelectors": [{"keys": ["a", "b"], "fallbackKeysSubset": ["b"]}]}`),
			[]string{"lb_subset_config.subset_selectors[0].fallback_keys_subset: is only for fallback_policy KEYS_SUBSET"}},
		{"fewer keys that are not given", clusterWith(`"lbSubsetConfig": {"subsetSelectors": [{"keys": ["a", "b"], "fallbackPolicy": "KEYS_SUBSET"}]}`),
			[]string{"lb_subset_config.subset_selectors[0].fallback_keys_subset: must be set for fallback_policy KEYS_SUBSET"}},
		{"subsets in the wrong place", clusterWith(`"lbSubsetConfig": {}, "loadBalancingPolicy": {"policies": [` + typedExtension("random.v3.Random", "") + `]}`),
			[]string{"lb_subset_config: must not be set beside load_balancing_policy: set it in the policy"}},
		{"a metadata fallback", clusterWith(`"lbSubsetConfig": {"metadataFallbackPolicy": "FALLBACK_LIST"}`),
			[]string{"lb_subset_config.metadata_fallback_policy: not supported: use fallback_policy, of the whole or of a selector"}},
		{"weights and zones at once", typedPolicy("wrr_locality.v3.WrrLocality", `"endpointPickingPolicy": {"policies": [`+
			typedExtension("random.v3.Random", `"localityLbConfig": {"zoneAwareLbConfig": {}}`)+`]}`),
			[]string{typed + "endpoint_picking_policy: must not be zone aware: the weights choose the locality"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := Cluster(marshal(t, fromJSON[clusterv3.Cluster](t, tt.text)))
			wantErrors(t, err, tt.want...)
		})
	}
}

func TestBL3_BadHashPoliciesAreRefused(t *testing.T) {
	t.Parallel()
	const at = "virtual_hosts[0].routes[0].route."
	for _, tt := range []struct{ name, policy, want string }{
		{"filter state that nobody sets", `{"filterState": {"key": "k"}}`, at + `hash_policy[0].filter_state.key: "k" is not supported, as no filter sets it: use "io.grpc.channel_id", or let the application give a hash key (mesh.CallOptions)`},
		{"a path that would end the cookie", `{"cookie": {"name": "c", "ttl": "1s", "path": "/;a"}}`, at + `hash_policy[0].cookie.path: "/;a" must not contain a control character or ';'`},
		{"a negative time", `{"cookie": {"name": "c", "ttl": "-1s"}}`, at + "hash_policy[0].cookie.ttl: must not be negative: is -1s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t,
				`{"name": "r", "virtualHosts": [{"name": "a", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c", "hashPolicy": [`+tt.policy+`]}}]}]}`)))
			wantErrors(t, err, tt.want)
		})
	}
}
