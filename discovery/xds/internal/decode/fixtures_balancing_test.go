package decode

// typedPolicy is a cluster with one load_balancing_policy, of the extension with
// this package, message and further fields.
func typedPolicy(extension, fields string) string {
	return `{"name": "typed", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}},
  "loadBalancingPolicy": {"policies": [` + typedExtension(extension, fields) + `]}}`
}

func typedExtension(extension, fields string) string {
	if fields != "" {
		fields = ", " + fields
	}
	return `{"typedExtensionConfig": {"name": "p", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.` +
		extension + `"` + fields + `}}}`
}

const (
	slowStartFixture = `{"slowStartWindow": "7s", "aggression": {"defaultValue": 1.5}, "minWeightPercent": {"value": 20}}`
	hashingFixture   = `{"useHostnameForHashing": true, "hashBalanceFactor": 150, "hashPolicy": [{"header": {"headerName": "x"}, "terminal": true}]}`
	subsetsFixture   = `"fallbackPolicy": "DEFAULT_SUBSET", "defaultSubset": {"version": "v1"}, "localityWeightAware": true, "panicModeAny": true,
    "subsetSelectors": [{"keys": ["version", "stage"], "fallbackPolicy": "KEYS_SUBSET", "fallbackKeysSubset": ["version"]}, {"keys": ["version"]}]`
)

// aggregateFixture is an aggregate cluster.
const aggregateFixture = `{"name": "all", "lbPolicy": "CLUSTER_PROVIDED", "connectTimeout": "2s",
  "circuitBreakers": {"thresholds": [{"maxRetries": 7}]},
  "clusterType": {"name": "envoy.clusters.aggregate", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters": ["near", "far"]}}}`

// balancingFixtures are clusters with every way to balance.
var balancingFixtures = []string{
	clusterWith(`"lbPolicy": "RING_HASH", "ringHashLbConfig": {"minimumRingSize": 10, "maximumRingSize": 70},
      "commonLbConfig": {"consistentHashingLbConfig": {"useHostnameForHashing": true, "hashBalanceFactor": 120}}`),
	clusterWith(`"commonLbConfig": {"zoneAwareLbConfig": {"routingEnabled": {"value": 40}, "minClusterSize": "3", "failTrafficOnPanic": true}}`),
	typedPolicy("random.v3.Random", `"localityLbConfig": {"zoneAwareLbConfig": {"routingEnabled": {"value": 40}, "minClusterSize": "3",
      "failTrafficOnPanic": true, "forceLocalZone": {"minSize": 4}, "localityBasis": "HEALTHY_HOSTS_WEIGHT"}}`),
	typedPolicy("random.v3.Random", `"localityLbConfig": {"zoneAwareLbConfig": {"forceLocalityDirectRouting": true}}`),
	clusterWith(`"lbPolicy": "MAGLEV", "maglevLbConfig": {"tableSize": 101}, "lbSubsetConfig": {` + subsetsFixture + `}`),
	clusterWith(`"lbPolicy": "LEAST_REQUEST", "leastRequestLbConfig": {"slowStartConfig": ` + slowStartFixture + `}`),
	clusterWith(`"roundRobinLbConfig": {"slowStartConfig": ` + slowStartFixture + `}`),
	typedPolicy("ring_hash.v3.RingHash", `"minimumRingSize": 10, "maximumRingSize": 70, "hashFunction": "XX_HASH",
      "useHostnameForHashing": true, "hashBalanceFactor": 130`),
	typedPolicy("ring_hash.v3.RingHash", `"localityWeightedLbConfig": {}, "consistentHashingLbConfig": `+hashingFixture),
	typedPolicy("maglev.v3.Maglev", `"tableSize": 101, "localityWeightedLbConfig": {}, "consistentHashingLbConfig": `+hashingFixture),
	typedPolicy("round_robin.v3.RoundRobin", `"slowStartConfig": `+slowStartFixture),
	typedPolicy("least_request.v3.LeastRequest", `"enableFullScan": true, "slowStartConfig": `+slowStartFixture),
	typedPolicy("least_request.v3.LeastRequest", `"selectionMethod": "FULL_SCAN"`),
	typedPolicy("pick_first.v3.PickFirst", `"shuffleAddressList": true`),
	typedPolicy("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", `"enableOobLoadReport": true, "oobReportingPeriod": "5s",
      "blackoutPeriod": "1s", "weightExpirationPeriod": "30s", "weightUpdatePeriod": "2s", "errorUtilizationPenalty": 2,
      "metricNamesForComputingUtilization": ["named_metrics.a"], "slowStartConfig": `+slowStartFixture),
	typedPolicy("subset.v3.Subset", subsetsFixture+`, "subsetLbPolicy": {"policies": [`+typedExtension("random.v3.Random", "")+`]}`),
}

// ownBalancingFixtures are clusters with policies by name, with parts of the
// endpoints, and with sessions.
var ownBalancingFixtures = []string{
	typedPolicy("random_subsetting.v3.RandomSubsetting", `"subsetSize": 7, "childPolicy": {"policies": [`+typedExtension("random.v3.Random", "")+`]}`),
	`{"name": "named", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}},
      "loadBalancingPolicy": {"policies": [{"typedExtensionConfig": {"name": "p", "typedConfig": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
      "typeUrl": "type.googleapis.com/inboard.peak_ewma", "value": {"decayTime": "5s"}}}}]}}`,
	clusterWith(`"commonLbConfig": {"overrideHostStatus": {"statuses": ["DRAINING"]}}`),
}

// hashRoutesFixture is a table of routes that hash and that choose subsets.
const hashRoutesFixture = `{
  "name": "hashes",
  "virtualHosts": [{"name": "a", "domains": ["*"], "routes": [
    {"match": {"prefix": "/a"}, "route": {"cluster": "c", "hashPolicy": [
      {"header": {"headerName": "X-User"}, "terminal": true},
      {"cookie": {"name": "session", "ttl": "60s", "path": "/p", "attributes": [{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}]}},
      {"connectionProperties": {"sourceIp": true}},
      {"queryParameter": {"name": "q"}},
      {"filterState": {"key": "io.grpc.channel_id"}}
    ], "metadataMatch": {"filterMetadata": {"envoy.lb": {"version": "v1"}}}}},
    {"match": {"prefix": "/b"}, "route": {"weightedClusters": {"clusters": [
      {"name": "c", "weight": 1, "metadataMatch": {"filterMetadata": {"envoy.lb": {"stage": "prod"}}}}, {"name": "d", "weight": 1}
    ]}, "metadataMatch": {"filterMetadata": {"envoy.lb": {"version": "v1", "stage": "any"}}}}}
  ]}]
}`
