package mesh_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/outcome"
)

// explainWith asks about a call with a header.
func (l *leavesWorld) explainWith(t *testing.T, host, name, value string) *mesh.Explanation {
	t.Helper()
	if strings.HasSuffix(host, ":80") {
		req := request(t, http.MethodGet, "http://payment.shop/")
		req.Header.Set(name, value)
		e, err := l.customer.Explain(req)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e, err := l.customer.ExplainRPC(metadata.AppendToOutgoingContext(t.Context(), name, value), "mesh:///"+host, explainPaths[0])
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// callWith makes a call with a header and returns what became of it.
func (l *leavesWorld) callWith(t *testing.T, host, name, value string) meshtest.Call {
	t.Helper()
	l.world.ResetCalls()
	if strings.HasSuffix(host, ":80") {
		req := request(t, http.MethodGet, "http://payment.shop/")
		req.Header.Set(name, value)
		if resp, err := l.customer.Transport().RoundTrip(req); err == nil {
			resp.Body.Close()
		}
	} else {
		ctx := metadata.AppendToOutgoingContext(context.Background(), name, value)
		_ = l.channel.Invoke(ctx, explainPaths[0], &grpc_testing.Empty{}, &grpc_testing.Empty{})
	}
	calls := l.world.Calls()
	if len(calls) != 1 {
		t.Fatalf("%d calls", len(calls))
	}
	return calls[0]
}

// everywhere is the addresses of the payments by host.
func (l *leavesWorld) everywhere(t *testing.T) map[string][]string {
	at := make(map[string][]string)
	for _, host := range leavesHosts {
		at[host] = l.addresses(t, host)
	}
	return at
}

// holdAgainst holds an explanation against calls with a header: each goes to a candidate,
// or is answered.
func (l *leavesWorld) holdAgainst(t *testing.T, e *mesh.Explanation, host, name, value string) {
	t.Helper()
	candidates := make(map[string]bool)
	for _, endpoint := range e.Cluster.Endpoints {
		if endpoint.Candidate {
			candidates[endpoint.Address] = true
		} else if endpoint.Why == "" {
			t.Errorf("%s is not picked, and nothing says why\n%v", endpoint.Address, e)
		}
	}
	for range 3 {
		call := l.callWith(t, host, name, value)
		switch answered := call.Outcome.Kind == outcome.Local; {
		case answered != (e.Verdict == mesh.VerdictFilter):
			t.Errorf("%v, explained as\n%v", call, e)
		case answered && len(candidates)+len(call.Attempts) > 0:
			t.Errorf("%v goes somewhere\n%v", call, e)
		case answered && !call.Outcome.GRPC && call.Outcome.Status != e.Answer.Status:
			t.Errorf("%v\n%v", call, e)
		case !answered && !candidates[call.Attempts[0].Endpoint]:
			t.Errorf("%v went to no candidate\n%v", call, e)
		}
	}
}

// withSessions is a listener with a session filter whose calls go by a route.
func withSessions(host, settings, route string) proto.Message {
	return parsed(new(listenerv3.Listener), `{"name": %q, "apiListener": {"apiListener": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"httpFilters": [
			{"name": "session", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession", %s "sessionState": {
				"name": "header", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState", "name": "x-bound"}}}},
			{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
		"routeConfig": {"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {%s}}]}]}}}}`, host, settings, route)
}

func bound(to string) string { return base64.StdEncoding.EncodeToString([]byte(to)) }

func TestExplainKnowsTheEndpointOfASession(t *testing.T) {
	t.Parallel()
	const strict, alsoDraining = `"strict": true,`, `"commonLbConfig": {"overrideHostStatus": {"statuses": ["UNKNOWN", "HEALTHY", "DRAINING"]}},`
	tests := []struct {
		name     string
		strict   string
		cluster  string
		health   string // of the endpoint that is asked for
		asks     string // the endpoint if it is ""
		verdict  mesh.Verdict
		effect   string // after "asks for ADDRESS"
		endpoint string // why it is not picked; "" if it is
		others   string
	}{
		{name: "a healthy endpoint is picked", health: "HEALTHY", verdict: mesh.VerdictForward, effect: ", which is picked", others: "the session asks for another endpoint"},
		{name: "so it is strictly", strict: strict, health: "HEALTHY", verdict: mesh.VerdictForward, effect: ", which is picked", others: "the session asks for another endpoint"},
		{name: "one that drains is picked if it may", cluster: alsoDraining, health: "DRAINING", verdict: mesh.VerdictForward, effect: ", which is picked", others: "the session asks for another endpoint"},
		{
			name: "one that drains is not picked otherwise", health: "DRAINING", verdict: mesh.VerdictForward,
			effect: ", which cannot be used as it is draining: the balancer picks", endpoint: "it is draining",
		},
		{
			name: "strictly a draining one fails the call", strict: strict, health: "DRAINING", verdict: mesh.VerdictFilter,
			effect: ", which cannot be used as it is draining: the call is answered", endpoint: "it is draining", others: "the session asks for another endpoint",
		},
		{
			name: "one that is gone is not picked", health: "HEALTHY", asks: "10.99.0.7:80", verdict: mesh.VerdictForward,
			effect: ", which the cluster does not have: the balancer picks",
		},
		{
			name: "strictly one that is gone fails the call", strict: strict, health: "HEALTHY", asks: "10.99.0.7:80", verdict: mesh.VerdictFilter,
			effect: ", which the cluster does not have: the call is answered", endpoint: "the session asks for another endpoint", others: "the session asks for another endpoint",
		},
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		at := l.everywhere(t)
		for _, test := range tests {
			for _, aggregate := range []bool{false, true} {
				var pushed []proto.Message
				for _, host := range leavesHosts {
					name, leaves := "all "+host, []string(nil)
					if aggregate {
						name, leaves = "second "+host, []string{"first " + host, "second " + host}
						pushed = append(pushed, leafCluster("first "+host, "", []string{leafEndpoint(at[host][4], "HEALTHY"), leafEndpoint(at[host][5], "HEALTHY")}))
					}
					pushed = append(pushed, aggregated(host, leaves...)[1:]...) // without its listener
					pushed = append(pushed, leafCluster(name, test.cluster, []string{leafEndpoint(at[host][0], "HEALTHY"), leafEndpoint(at[host][1], test.health)}))
					pushed = append(pushed, withSessions(host, test.strict, fmt.Sprintf(`"cluster": %q`, "all "+host)))
				}
				l.world.Push(pushed...)
				for _, host := range leavesHosts {
					asked := test.asks
					if asked == "" {
						asked = at[host][1]
					}
					e := l.explainWith(t, host, "x-bound", bound(asked))
					if e.Verdict != test.verdict || (e.Answer != nil) != (test.verdict == mesh.VerdictFilter) {
						t.Errorf("%s: %s\n%v", test.name, e.Verdict, e)
					}
					if got, want := e.Filters[0].Effect, "the header x-bound asks for "+asked+test.effect; !e.Filters[0].Enabled || got != want {
						t.Errorf("%s: the effect is %q, want %q", test.name, got, want)
					}
					for _, endpoint := range e.Cluster.Endpoints {
						want := test.others
						if endpoint.Address == at[host][1] {
							want = test.endpoint
						}
						if !aggregate && want != endpoint.Why { // of two clusters the first suffices
							t.Errorf("%s: %s is not picked: %q, want %q", test.name, endpoint.Address, endpoint.Why, want)
						}
					}
					l.holdAgainst(t, e, host, "x-bound", bound(asked))
				}
			}
		}
	})
}

func TestExplainSaysWhatASessionAsksFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		var pushed []proto.Message
		for _, host := range leavesHosts {
			at := l.addresses(t, host)
			pushed = append(pushed, leafCluster("all "+host, "", []string{leafEndpoint(at[0], "HEALTHY"), leafEndpoint(at[1], "HEALTHY")}),
				withSessions(host, `"strict": true,`, fmt.Sprintf(`"cluster": %q`, "all "+host)))
		}
		l.world.Push(pushed...)
		for value, want := range map[string]string{
			bound("sesame"):              "the header x-bound asks for what is no address, which the cluster does not have: the call is answered",
			"???":                        "the header x-bound asks for no endpoint: the response brings one",
			bound("10.0.0.9:80;nowhere"): "the header x-bound asks for an endpoint of a cluster that the route does not lead to, which the cluster does not have: the call is answered",
		} {
			for _, host := range leavesHosts {
				e := l.explainWith(t, host, "x-bound", value)
				if got := e.Filters[0].Effect; got != want {
					t.Errorf("%q: the effect is %q, want %q", value, got, want)
				}
				if strings.Contains(e.String(), "sesame") {
					t.Errorf("the caller's word is in\n%v", e)
				}
				l.holdAgainst(t, e, host, "x-bound", value)
			}
		}
	})
}

// The cluster that a session names is called, whatever is drawn.
func TestExplainKnowsTheClusterOfASession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		at := l.everywhere(t)
		var pushed []proto.Message
		for _, host := range leavesHosts {
			pushed = append(
				pushed, leafCluster("one "+host, "", []string{leafEndpoint(at[host][0], "HEALTHY"), leafEndpoint(at[host][1], "HEALTHY")}),
				leafCluster("two "+host, "", []string{leafEndpoint(at[host][2], "HEALTHY"), leafEndpoint(at[host][3], "HEALTHY")}),
				withSessions(host, "", fmt.Sprintf(`"weightedClusters": {"clusters": [{"name": "one %[1]s", "weight": 99}, {"name": "two %[1]s", "weight": 1}]}`, host)))
		}
		l.world.Push(pushed...)
		for _, host := range leavesHosts {
			value := bound(at[host][3] + ";two " + host)
			e := l.explainWith(t, host, "x-bound", value)
			if e.Cluster.Name != "two "+host || e.Draw.By != "session" || !e.Choices[1].Chosen {
				t.Errorf("another cluster\n%v", e)
			}
			says(t, e, "two "+host+", 1% <- named by the session", "asks for "+at[host][3]+", which is picked", "endpoints     2, of which 1 can be picked")
			l.holdAgainst(t, e, host, "x-bound", value)

			value = bound("10.0.0.9:80;three")
			says(t, l.explainWith(t, host, "x-bound", value), "asks for an endpoint of a cluster that the route does not lead to, which the cluster does not have: the balancer picks")
		}
	})
}
