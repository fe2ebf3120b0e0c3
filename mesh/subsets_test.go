package mesh_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
)

// subsetGround is a mesh with the payments 1 and 2 of the version v1, 1 of them for
// tests, and 3 and 4 of v2, 3 of them for tests; 5 says nothing of itself. Routes ask
// for what match says, unless that is "".
func subsetGround(t *testing.T, fields, match string) (*ground, []*counted) {
	t.Helper()
	g := &ground{t: t, network: newGroundNetwork()}
	g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
	labels := []string{`"version": "v1", "stage": "test"`, `"version": "v1"`, `"version": "v2", "stage": "test"`, `"version": "v2"`, ``}
	var all []proto.Message
	for _, port := range []string{groundHTTP, groundGRPC} {
		routes := groundRoutes(port, port)
		if match != "" {
			proto.Merge(routes.GetVirtualHosts()[0].GetRoutes()[0].GetRoute(),
				parsed(&routev3.RouteAction{}, `{"metadataMatch": {"filterMetadata": {"envoy.lb": {%s}}}}`, match))
		}
		endpoints := assignment(port, port, 1, 1, 2, 3, 4, 5)
		for i, e := range endpoints.GetEndpoints()[0].GetLbEndpoints() {
			proto.Merge(e, parsed(&endpointv3.LbEndpoint{}, `{"metadata": {"filterMetadata": {"envoy.lb": {%s}}}}`, labels[i]))
		}
		all = append(all, groundListener(port), routes, balancedCluster(port, `"lbPolicy": "ROUND_ROBIN", `+fields), endpoints)
	}
	g.plane.Set(all...)
	payments := g.counting(5, nil)
	g.join(&bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"}})
	return g, payments
}

// whoAnswers makes calls over both protocols and returns which payments answered, and
// how many calls failed.
func (g *ground) whoAnswers(n int) (http, grpc string, failed int) {
	g.t.Helper()
	seen := [2]map[string]bool{{}, {}}
	for range n {
		if by, err := g.callHTTP(g.t.Context()); err == nil {
			seen[0][by] = true
		} else {
			failed++
		}
		if by, err := g.callGRPCNow(); err == nil {
			seen[1][by] = true
		} else {
			failed++
		}
	}
	names := func(m map[string]bool) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }
	return names(seen[0]), names(seen[1]), failed
}

// TestSubsetsOverHTTPAndGRPC: every fallback that Envoy's subsets have, for calls of both
// protocols.
func TestSubsetsOverHTTPAndGRPC(t *testing.T) {
	t.Parallel()
	const (
		versions  = `{"keys": ["version"]}`
		stages    = `{"keys": ["version", "stage"]%s}`
		nobody    = `"version": "v9"`
		everybody = "1 2 3 4 5"
	)
	tests := []struct{ name, config, match, want string }{
		{"a subset", `"subsetSelectors": [` + versions + `]`, `"version": "v1"`, "1 2"},
		{"a subset of two keys", `"subsetSelectors": [` + fmt.Sprintf(stages, "") + `]`, `"stage": "test", "version": "v2"`, "3"},
		{"a subset of nobody", `"subsetSelectors": [` + versions + `]`, nobody, ""},
		{"nothing is asked for", `"subsetSelectors": [` + versions + `]`, "", ""},
		{"nothing is asked for, any will do", `"fallbackPolicy": "ANY_ENDPOINT", "subsetSelectors": [` + versions + `]`, "", everybody},
		{"keys that no selector has", `"fallbackPolicy": "ANY_ENDPOINT", "subsetSelectors": [` + versions + `]`, `"zone": "a"`, everybody},
		{"NO_FALLBACK", `"fallbackPolicy": "NO_FALLBACK", "panicModeAny": true, "subsetSelectors": [` + versions + `]`, nobody, ""},
		{"ANY_ENDPOINT", `"fallbackPolicy": "ANY_ENDPOINT", "subsetSelectors": [` + versions + `]`, nobody, everybody},
		{"DEFAULT_SUBSET", `"fallbackPolicy": "DEFAULT_SUBSET", "defaultSubset": {"stage": "test"}, "subsetSelectors": [` + versions + `]`, nobody, "1 3"},
		{"DEFAULT_SUBSET of nobody", `"fallbackPolicy": "DEFAULT_SUBSET", "defaultSubset": {"stage": "x"}, "subsetSelectors": [` + versions + `]`, nobody, ""},
		{
			"DEFAULT_SUBSET of nobody, in a panic any",
			`"fallbackPolicy": "DEFAULT_SUBSET", "panicModeAny": true, "defaultSubset": {"stage": "x"}, "subsetSelectors": [` + versions + `]`, nobody, everybody,
		},
		{
			"a selector's NO_FALLBACK", `"fallbackPolicy": "ANY_ENDPOINT", "panicModeAny": true, "subsetSelectors": [{"keys": ["version"], "fallbackPolicy": "NO_FALLBACK"}]`,
			nobody, "",
		},
		{"a selector's ANY_ENDPOINT", `"subsetSelectors": [{"keys": ["version"], "fallbackPolicy": "ANY_ENDPOINT"}]`, nobody, everybody},
		{
			"a selector's DEFAULT_SUBSET", `"defaultSubset": {"version": "v2"}, "subsetSelectors": [{"keys": ["version"], "fallbackPolicy": "DEFAULT_SUBSET"}]`,
			nobody, "3 4",
		},
		{
			"KEYS_SUBSET", `"subsetSelectors": [` + versions + `, ` + fmt.Sprintf(stages, `, "fallbackPolicy": "KEYS_SUBSET", "fallbackKeysSubset": ["version"]`) + `]`,
			`"version": "v2", "stage": "x"`, "3 4",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g, _ := subsetGround(t, `"lbSubsetConfig": {`+tt.config+`}`, tt.match)
				http, grpc, failed := g.whoAnswers(20)
				if http != tt.want || grpc != tt.want || (failed > 0) != (tt.want == "") {
					t.Errorf("HTTP: %q, gRPC: %q, %d failed, want %q", http, grpc, failed, tt.want)
				}
			})
		})
	}
}

// TestEjectionsAndPanicsStayInTheirSubset: detection ejects all of a subset, which are
// less than half of the cluster. Who asks for the subset gets nobody else.
func TestEjectionsAndPanicsStayInTheirSubset(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ threshold, want string }{
		"in a panic all of the subset serve": {"50", "1 2"},
		"without a panic nobody does":        {"0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g, payments := subsetGround(t, `"lbSubsetConfig": {"fallbackPolicy": "ANY_ENDPOINT", "subsetSelectors": [{"keys": ["version"]}]},
					"commonLbConfig": {"healthyPanicThreshold": {"value": `+tt.threshold+`}},
					"outlierDetection": {"interval": "1s", "baseEjectionTime": "30s", "maxEjectionPercent": 50, "consecutive5xx": 3}`, `"version": "v1"`)
				for i := range 2 {
					payments[i].broken.Store(true)
				}
				g.whoAnswers(10)
				for i := range 2 {
					payments[i].broken.Store(false)
				}
				http, grpc, _ := g.whoAnswers(20)
				if http != tt.want || grpc != tt.want {
					t.Errorf("with all of the subset ejected, HTTP: %q, gRPC: %q, want %q", http, grpc, tt.want)
				}
				time.Sleep(time.Minute)
				if http, grpc, failed := g.whoAnswers(20); http != "1 2" || grpc != "1 2" || failed != 0 {
					t.Errorf("after the ejections, HTTP: %q, gRPC: %q, %d failed", http, grpc, failed)
				}
				if n := payments[2].http.Load() + payments[2].grpc.Load() + payments[3].http.Load() + payments[4].grpc.Load(); n != 0 {
					t.Errorf("%d calls left the subset", n)
				}
			})
		})
	}
}

// TestASessionStaysInTheSubsetOfItsRoute: the route asks for v1, and the caller brings the
// address of a payment of v2.
func TestASessionStaysInTheSubsetOfItsRoute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, payments := subsetGround(t, `"lbSubsetConfig": {"fallbackPolicy": "ANY_ENDPOINT", "subsetSelectors": [{"keys": ["version"]}]}`, `"version": "v1"`)
		for _, port := range []string{groundHTTP, groundGRPC} {
			g.plane.Set(parsed(&listenerv3.Listener{}, `{"name": %q, "apiListener": {"apiListener": {
				"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
				"rds": {"routeConfigName": %q, "configSource": {"ads": {}}},
				"httpFilters": [
					{"name": "session", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession", "sessionState": {
						"name": "header", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState", "name": "x-session"}}}},
					{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}}`, groundHost+":"+port, port))
		}
		g.both(1)
		for number, want := range map[int]int64{2: 10, 3: 0, 5: 0} { // 2 is of v1, and not for tests
			p := payments[number-1]
			p.http.Store(0)
			p.grpc.Store(0)
			for range 10 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+groundHost+":"+groundHTTP+"/", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("X-Session", base64.StdEncoding.EncodeToString([]byte(hostOf(number)+":"+groundHTTP)))
				resp, err := g.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				ctx := metadata.AppendToOutgoingContext(t.Context(), "x-session", base64.StdEncoding.EncodeToString([]byte(hostOf(number)+":"+groundGRPC)))
				if _, err := g.callGRPC(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if overHTTP, overGRPC := p.http.Load(), p.grpc.Load(); overHTTP != want || overGRPC != want {
				t.Errorf("with the address of payment %d, it got %d calls over HTTP and %d over gRPC, want %d of 10", number, overHTTP, overGRPC, want)
			}
		}
	})
}
