package mesh_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"
)

const byUser, byOrder = `{"header": {"headerName": "x-user"}}`, `{"header": {"headerName": "x-order"}}`

// A hash policy of the route reaches into the clusters of an aggregate: whoever it is for
// comes to one endpoint, and Explain knows which.
func TestTheHashOfARouteReachesIntoTheClustersOfAnAggregate(t *testing.T) {
	t.Parallel()
	const ring, maglev, turns = `"lbPolicy": "RING_HASH",`, `"lbPolicy": "MAGLEV",`, `"lbPolicy": "ROUND_ROBIN",`
	own := func(policy string) string {
		return `"loadBalancingPolicy": {"policies": [{"typedExtensionConfig": {"name": "ring", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
			"consistentHashingLbConfig": {"hashPolicy": [` + policy + `]}}}}]},`
	}
	for _, test := range []struct {
		name      string
		near, far string
		header    string
		// of is what is hashed, hash what Explain says of all callers, "determined" if
		// it is so of those who come to a cluster that hashes.
		of, hash string
	}{
		{"rings", ring, ring, "x-user", "header x-user", "determined"},
		{"maglevs", maglev, maglev, "x-user", "header x-user", "determined"},
		{"a ring and a maglev", ring, maglev, "x-user", "header x-user", "determined"},
		{"only the first hashes", maglev, turns, "x-user", "header x-user", "determined"},
		{"only the second hashes", turns, ring, "x-user", "header x-user", "determined"},
		{"none hashes", turns, turns, "x-user", "", ""},
		{"both have policies of their own", own(byOrder), own(byOrder), "x-order", "header x-order", "determined"},
		{"the policies are the first one's", own(byOrder), own(byOrder), "x-user", "header x-order", "drawn: the request has nothing of that"},
		{"the request has nothing of that", ring, maglev, "x-other", "header x-user", "drawn: the request has nothing of that"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLeavesWorld(t)
				at := l.everywhere(t)
				var pushed []proto.Message
				for _, host := range leavesHosts {
					at := at[host]
					pushed = append(pushed, aggregated(host, "near "+host, "far "+host)[1], hashing(host, byUser, ""),
						leafCluster("near "+host, test.near, []string{leafEndpoint(at[0], "HEALTHY"), leafEndpoint(at[1], "HEALTHY"), leafEndpoint(at[2], "UNHEALTHY"), leafEndpoint(at[3], "UNHEALTHY")}),
						leafCluster("far "+host, test.far, []string{leafEndpoint(at[4], "HEALTHY"), leafEndpoint(at[5], "HEALTHY")}))
				}
				l.world.Push(pushed...)
				for _, host := range leavesHosts {
					used := make(map[string]bool)
					for i := range 24 {
						value := fmt.Sprint("ann-", i)
						e := l.explainWith(t, host, test.header, value)
						if got := strings.Join(e.Cluster.HashOf, ", "); got != test.of {
							t.Errorf("hashed is %q, want %q\n%v", got, test.of, e)
						}
						candidates := make(map[string]string)
						for _, endpoint := range e.Cluster.Endpoints {
							if endpoint.Candidate {
								candidates[endpoint.Address] = endpoint.Cluster
							}
						}
						switch turned := strings.HasPrefix(e.Cluster.Hash, "drawn") || e.Cluster.Hash == ""; {
						case e.Cluster.Hash != test.hash && (e.Cluster.Hash != "" || test.near != turns && test.far != turns):
							t.Errorf("the hash is %q, want %q\n%v", e.Cluster.Hash, test.hash, e)
						case turned != (len(candidates) > 1):
							t.Errorf("the hash is %q of %d candidates\n%v", e.Cluster.Hash, len(candidates), e)
						}
						l.holdAgainst(t, e, host, test.header, value)
						call := l.callWith(t, host, test.header, value)
						used[call.Attempts[0].Endpoint] = true
					}
					// What is drawn, and where a round robin stands, is not known here.
					if hash := test.hash == "determined" && test.near != turns && test.far != turns; hash && len(used) != 4 {
						t.Errorf("of 4 endpoints 24 callers use %v", used)
					}
				}
			})
		})
	}
}

// A cluster may have policies that differ from those of the next: it goes by its own.
func TestEachClusterOfAnAggregateHashesByItsOwnPolicies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		at := l.everywhere(t)
		var pushed []proto.Message
		for _, host := range leavesHosts {
			at := at[host]
			options := `"typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
				"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"useDownstreamProtocolConfig": {"httpProtocolOptions": {}, "http2ProtocolOptions": {}}, "hashPolicy": [` + byOrder + `]}},`
			pushed = append(pushed, aggregated(host, "near "+host, "far "+host)[1], hashing(host, byUser, ""),
				leafCluster("near "+host, `"lbPolicy": "RING_HASH",`, []string{leafEndpoint(at[0], "UNHEALTHY")}),
				leafCluster("far "+host, options+`"lbPolicy": "MAGLEV",`, []string{leafEndpoint(at[1], "HEALTHY"), leafEndpoint(at[2], "HEALTHY"), leafEndpoint(at[3], "HEALTHY")}))
		}
		l.world.Push(pushed...)
		for _, host := range leavesHosts {
			used := make(map[string]bool)
			for i := range 24 {
				value := fmt.Sprint(i)
				e := l.explainWith(t, host, "x-order", value)
				if e.Cluster.Hash != "drawn: the request has nothing of that" && e.Cluster.Hash != "determined" {
					t.Errorf("the hash is %q\n%v", e.Cluster.Hash, e)
				}
				first := l.callWith(t, host, "x-order", value).Attempts[0].Endpoint
				for range 3 {
					if again := l.callWith(t, host, "x-order", value).Attempts[0].Endpoint; again != first {
						t.Errorf("order %s goes to %s and %s", value, first, again)
					}
				}
				l.holdAgainst(t, e, host, "x-order", value)
				used[first] = true
			}
			if len(used) != 3 {
				t.Errorf("of 3 endpoints 24 orders use %v", used)
			}
		}
	})
}
