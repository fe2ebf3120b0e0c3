package mesh_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// hashing is a listener whose calls go to the cluster "all" by a hash.
func hashing(host, policies, more string) *listenerv3.Listener {
	return parsed(new(listenerv3.Listener), `{"name": %q, "apiListener": {"apiListener": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
		"routeConfig": {"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, %s "route": {"cluster": %q, "hashPolicy": [%s]}}]}]}}}}`,
		host, more, "all "+host, policies)
}

func TestExplainKnowsTheEndpointOfAHash(t *testing.T) {
	t.Parallel()
	const cookie, made, user = `{"cookie": {"name": "c"}}`, `{"cookie": {"name": "c", "ttl": "60s"}}`, `{"header": {"headerName": "x-user"}}`
	tests := []struct {
		name     string
		policies string
		more     string
		header   string
		value    string
		hash     string // by protocol, if there is a '|'
	}{
		{name: "a header", policies: user, header: "x-user", value: "ann", hash: "determined"},
		{name: "a header that is not there", policies: user, header: "x-other", value: "ann", hash: "drawn: the request has nothing of that"},
		{name: "a header that the route sets", policies: user, header: "x-other", value: "ann", hash: "drawn: the request has nothing of that",
			more: `"requestHeadersToAdd": [{"header": {"key": "x-user", "value": "eve"}}],`},
		{name: "a header that the route removes", policies: user, header: "x-user", value: "ann", hash: "determined",
			more: `"requestHeadersToRemove": ["x-user"],`},
		{name: "a cookie", policies: made, header: "cookie", value: "c=7", hash: "determined"},
		{name: "a cookie that is made", policies: made, header: "x-other", value: "ann", hash: "drawn: the response brings the cookie c"},
		{name: "a cookie that is not there", policies: cookie, header: "x-other", value: "ann", hash: "drawn: the request has nothing of that"},
		{name: "a terminal header before a cookie that is made", policies: `{"header": {"headerName": "x-user"}, "terminal": true}, ` + made, header: "x-user", value: "ann", hash: "determined"},
		{name: "this process", policies: `{"connectionProperties": {"sourceIp": true}}`, header: "x-other", value: "ann", hash: "determined"},
		{name: "the channel", policies: `{"filterState": {"key": "io.grpc.channel_id"}}`, header: "x-other", value: "ann", hash: "determined|drawn: it is that of the channel, which is not known here"},
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		at := l.everywhere(t)
		for _, policy := range []string{"RING_HASH", "MAGLEV"} {
			for _, test := range tests {
				var pushed []proto.Message
				for _, host := range leavesHosts { // the second priority has what the first has no room for, by the hash too
					pushed = append(pushed, hashing(host, test.policies, test.more), leafCluster("all "+host, `"lbPolicy": "`+policy+`",`,
						[]string{leafEndpoint(at[host][0], "HEALTHY"), leafEndpoint(at[host][1], "UNHEALTHY")},
						[]string{leafEndpoint(at[host][2], "HEALTHY"), leafEndpoint(at[host][3], "HEALTHY")}))
				}
				l.world.Push(pushed...)
				for i, host := range leavesHosts {
					e := l.explainWith(t, host, test.header, test.value)
					want := test.hash
					if both := strings.Split(want, "|"); len(both) > 1 {
						want = both[i]
					}
					if e.Cluster.Hash != want {
						t.Errorf("%s, %s: the hash is %q, want %q\n%v", policy, test.name, e.Cluster.Hash, want, e)
					}
					candidates := 3
					if want == "determined" {
						candidates = 1
						says(t, e, "not picked: the hash leads to another endpoint", "the hash determines the endpoint\n")
					} else {
						says(t, e, "the endpoint is "+want+"\n")
					}
					says(t, e, fmt.Sprintf("of which %d can be picked", candidates))
					l.holdAgainst(t, e, host, test.header, test.value)
				}
			}
		}
	})
}

// A key of the application leads to a cluster of an aggregate, and to an endpoint there.
func TestExplainKnowsTheEndpointOfAKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		at := l.everywhere(t)
		for _, policy := range []string{"RING_HASH", "ROUND_ROBIN"} {
			var pushed []proto.Message
			for _, host := range leavesHosts {
				at := at[host]
				pushed = append(pushed, aggregated(host, "first "+host, "second "+host)...)
				pushed = append(pushed,
					leafCluster("first "+host, `"lbPolicy": "`+policy+`",`, []string{leafEndpoint(at[0], "HEALTHY"), leafEndpoint(at[1], "UNHEALTHY"), leafEndpoint(at[2], "UNHEALTHY")}),
					leafCluster("second "+host, `"lbPolicy": "`+policy+`",`, []string{leafEndpoint(at[3], "HEALTHY"), leafEndpoint(at[4], "HEALTHY")}))
			}
			l.world.Push(pushed...)
			clusters := make(map[string]bool)
			for key := range 10 {
				ctx := mesh.WithCall(context.Background(), mesh.CallOptions{HashKey: fmt.Sprint("order-", key)})
				for _, host := range leavesHosts {
					e, calls := l.explainAndCall(ctx, t, host)
					picked := make(map[string]string)
					for _, endpoint := range e.Cluster.Endpoints {
						if endpoint.Candidate {
							picked[endpoint.Address] = endpoint.Cluster
						}
					}
					if policy == "RING_HASH" && len(picked) != 1 {
						t.Errorf("want one candidate\n%v", e)
					}
					for _, call := range calls {
						a := call.Attempts[0]
						clusters[a.Cluster] = true
						if got, ok := picked[a.Endpoint]; !ok || got != a.Cluster {
							t.Errorf("%s of %q got the call\n%v", a.Endpoint, a.Cluster, e)
						}
					}
				}
			}
			if len(clusters) < 3 {
				t.Errorf("all calls went to %v", clusters)
			}
		}
	})
}

// explainAndCall asks about a call, and makes some.
func (l *leavesWorld) explainAndCall(ctx context.Context, t *testing.T, host string) (*mesh.Explanation, []meshtest.Call) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment.shop/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	http1 := strings.HasSuffix(host, ":80")
	var e *mesh.Explanation
	if http1 {
		e, err = l.customer.Explain(req)
	} else {
		e, err = l.customer.ExplainRPC(ctx, "mesh:///"+host, explainPaths[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	l.world.ResetCalls()
	for range 5 {
		if !http1 {
			_ = l.channel.Invoke(ctx, explainPaths[0], &grpc_testing.Empty{}, &grpc_testing.Empty{})
		} else if resp, err := l.customer.Transport().RoundTrip(req); err == nil {
			resp.Body.Close()
		}
	}
	return e, l.world.Calls()
}

// A host with all the requests that bounded loads give it gets no more.
func TestExplainKnowsThatAHashIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		const host = "payment.shop:80"
		at := l.everywhere(t)[host]
		l.world.Push(hashing(host, `{"header": {"headerName": "x-user"}}`, ""), leafCluster("all "+host, `"loadBalancingPolicy": {"policies": [{"typedExtensionConfig": {"name": "ring", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
			"consistentHashingLbConfig": {"hashBalanceFactor": 100}}}}]},`, []string{leafEndpoint(at[0], "HEALTHY"), leafEndpoint(at[1], "HEALTHY")}))
		before := l.explainWith(t, host, "x-user", "ann")
		ctx, cancel := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		for range 2 { // each until the test ends
			calls.Go(func() {
				req := request(t, http.MethodGet, "http://payment.shop/").WithContext(ctx)
				req.Header.Set("X-User", "ann")
				req.Header.Set(slowHeader, "yes")
				if resp, err := l.customer.Transport().RoundTrip(req); err == nil {
					resp.Body.Close()
				}
			})
		}
		synctest.Wait()
		during := l.explainWith(t, host, "x-user", "ann")
		for i := range during.Cluster.Endpoints {
			if before.Cluster.Endpoints[i].Candidate == during.Cluster.Endpoints[i].Candidate {
				t.Errorf("the endpoint is the same\n%v\n%v", before, during)
			}
		}
		l.holdAgainst(t, during, host, "x-user", "ann")
		cancel()
		calls.Wait()
	})
}
