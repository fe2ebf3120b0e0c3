package nativegrpc_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
)

func virtualService(http string) string {
	return "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: payment, namespace: shop}\n" +
		"spec:\n  hosts: [payment.shop.svc.cluster.local]\n  http:" + http + "\n"
}

func destinationRule(spec string) string {
	return "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: payment, namespace: shop}\n" +
		"spec:\n  host: payment.shop.svc.cluster.local\n" + spec + "\n"
}

// subsets are the servers, by their versions.
const subsets = `  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}`

// to is a route to a subset.
func to(subset string) string {
	return "{destination: {host: payment.shop.svc.cluster.local, subset: " + subset + "}}"
}

// outcome is what became of some calls.
type outcomes struct {
	hosts map[string]int
	codes map[codes.Code]int
}

// callSome makes calls one after the other.
func callSome(t *testing.T, conn grpc.ClientConnInterface, n int, headers ...string) outcomes {
	t.Helper()
	o := outcomes{hosts: make(map[string]int), codes: make(map[codes.Code]int)}
	for range n {
		response, err := call(deadline(t), conn, headers...)
		o.codes[status.Code(err)]++
		if err == nil {
			o.hosts[response.GetHostname()]++
		}
	}
	return o
}

// only reports whether all calls were answered by a server.
func only(host string) func(outcomes) bool {
	return func(o outcomes) bool { return len(o.codes) == 1 && len(o.hosts) == 1 && o.hosts[host] > 0 }
}

// all reports whether all calls ended with a code.
func all(code codes.Code) func(outcomes) bool {
	return func(o outcomes) bool { return len(o.codes) == 1 && o.codes[code] > 0 }
}

func both(o outcomes) bool { return len(o.codes) == 1 && o.hosts["a"] > 0 && o.hosts["b"] > 0 }

// notes are what the guests of a mesh do not get.
func notes(m *mesh.Mesh) string {
	var b strings.Builder
	for _, g := range m.Guests() {
		for _, l := range g.Listeners {
			for _, n := range l.Notes {
				b.WriteString(n.String() + "\n")
			}
		}
	}
	return b.String()
}

// TestANativeClientDoesWhatItCan: with what Istio's configuration asks for, or
// the mesh says that it does not. Nothing is rejected but what is to be.
func TestANativeClientDoesWhatItCan(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	a, b := newNative(t, w, "a"), newNative(t, w, "b")
	base := servers(a, b) + strict
	w.Apply(base)
	for _, p := range []*nativePayment{a, b} {
		if err := p.awaitMode(t, connectivity.ServingModeServing); err != nil {
			t.Fatal(err)
		}
	}
	m, guest := guestOf(t, w)
	conn := dial(t, guest, target)
	type row struct {
		name, yaml string
		headers    []string
		want       func(outcomes) bool
		note       string // in the notes, if not ""
		fail       int64  // so many calls of each server fail with UNAVAILABLE first
	}
	for _, tt := range []row{
		{name: "all endpoints are called", want: both},
		{name: "a subset", yaml: destinationRule(subsets) + virtualService(" [{route: ["+to("v2")+"]}]"), want: only("b")},
		{name: "another one", yaml: destinationRule(subsets) + virtualService(" [{route: ["+to("v1")+"]}]"), want: only("a")},
		{
			name: "weights", want: both,
			yaml: destinationRule(subsets) + virtualService(`
  - route:
    - {destination: {host: payment.shop.svc.cluster.local, subset: v1}, weight: 50}
    - {destination: {host: payment.shop.svc.cluster.local, subset: v2}, weight: 50}`),
		},
		{
			name: "a header matches", headers: []string{"x-user", "ann"}, want: only("b"),
			yaml: destinationRule(subsets) + virtualService(`
  - {match: [{headers: {x-user: {exact: ann}}}], route: [`+to("v2")+`]}
  - {route: [`+to("v1")+`]}`),
		},
		{
			name: "a method matches, which is POST", want: only("b"),
			yaml: destinationRule(subsets) + virtualService(`
  - {match: [{method: {exact: GET}}], route: [`+to("v1")+`]}
  - {match: [{method: {exact: POST}}], route: [`+to("v2")+`]}
  - {route: [`+to("v1")+`]}`),
		},
		{
			name: "a query matches no call", want: only("b"),
			yaml: destinationRule(subsets) + virtualService(`
  - {match: [{queryParams: {a: {exact: b}}}], route: [`+to("v1")+`]}
  - {route: [`+to("v2")+`]}`),
		},
		{
			name: "the authority matches", want: only("b"),
			yaml: destinationRule(subsets) + virtualService(`
  - {match: [{authority: {prefix: payment}}], route: [`+to("v2")+`]}
  - {route: [`+to("v1")+`]}`),
		},
		{
			name: "a prefix of path elements", want: only("b"),
			yaml: destinationRule(subsets) + virtualService(`
  - {match: [{uri: {prefix: /grpc.testing.Test}}], route: [`+to("v2")+`]}
  - {route: [`+to("v1")+`]}`),
		},
		{
			name: "CORS is nothing to gRPC", want: both,
			yaml: virtualService(`
  - corsPolicy: {allowOrigins: [{exact: "https://shop.example"}]}
    route: [{destination: {host: payment.shop.svc.cluster.local}}]`),
		},
		{
			name: "an aborted call", want: all(codes.ResourceExhausted),
			yaml: virtualService(`
  - fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}
    route: [{destination: {host: payment.shop.svc.cluster.local}}]`),
		},
		{
			name: "a call is repeated", fail: 1, want: all(codes.OK), note: "a retry may go to any endpoint",
			yaml: virtualService(`
  - retries: {attempts: 2, retryOn: "unavailable"}
    route: [{destination: {host: payment.shop.svc.cluster.local}}]`),
		},
		{
			name: "a call is not repeated", fail: 1000, want: all(codes.Unavailable),
			yaml: virtualService(`
  - retries: {attempts: 0}
    route: [{destination: {host: payment.shop.svc.cluster.local}}]`),
		},
		{
			name: "a path is not rewritten, so the call fails", want: all(codes.Unavailable), note: "does not rewrite paths",
			yaml: virtualService(`
  - {match: [{uri: {prefix: /grpc.testing.TestService/}}], rewrite: {uri: /other/}, route: [{destination: {host: payment.shop.svc.cluster.local}}]}`),
		},
		{
			name: "nor the authority", want: all(codes.Unavailable), note: "does not rewrite the authority",
			yaml: virtualService(`
  - {rewrite: {authority: other}, route: [{destination: {host: payment.shop.svc.cluster.local}}]}`),
		},
		{
			name: "a direct response fails, and other routes do not", want: only("a"), note: "no direct responses",
			yaml: destinationRule(subsets) + virtualService(`
  - {match: [{uri: {prefix: /other}}], directResponse: {status: 403}}
  - {route: [`+to("v1")+`]}`),
		},
		{
			name: "copies are not sent, headers not changed", want: only("a"), note: "no copies are sent",
			yaml: destinationRule(subsets) + virtualService(`
  - mirror: {host: payment.shop.svc.cluster.local, subset: v2}
    headers: {request: {set: {x-a: b}}}
    route: [`+to("v1")+`]`),
		},
		{name: "RANDOM", yaml: destinationRule("  trafficPolicy: {loadBalancer: {simple: RANDOM}}"), want: both, note: "not at random"},
		{name: "LEAST_REQUEST", yaml: destinationRule("  trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}"), want: both},
		{
			name: "MAGLEV", headers: []string{"x-user", "ann"}, note: "a ring takes the place",
			yaml: destinationRule("  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user, maglev: {}}}}"),
			want: func(o outcomes) bool { return all(codes.OK)(o) && len(o.hosts) == 1 },
		},
		{
			name: "a ring", headers: []string{"x-user", "ann"},
			yaml: destinationRule("  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user, ringHash: {minimumRingSize: 64}}}}"),
			want: func(o outcomes) bool { return all(codes.OK)(o) && len(o.hosts) == 1 },
		},
		{
			name: "limits and outlier detection", want: both, note: "not ejected for failures in a row",
			yaml: destinationRule(`  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 10}, http: {http2MaxRequests: 100, maxRequestsPerConnection: 7}}
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s}`),
		},
		{
			name: "TLS with the operating system's roots", want: all(codes.Unavailable), note: "no system roots",
			yaml: destinationRule("  trafficPolicy: {tls: {mode: SIMPLE}}"),
		},
	} {
		w.Apply(base + tt.yaml)
		var got outcomes
		until(t, tt.name, func() bool {
			a.fail.Store(tt.fail)
			b.fail.Store(tt.fail)
			got = callSome(t, conn, 12, tt.headers...)
			return tt.want(got) && strings.Contains(notes(m), tt.note)
		})
		a.fail.Store(0)
		b.fail.Store(0)
		for _, g := range m.Guests() {
			for _, typ := range g.Types {
				if typ.Rejected != "" && !strings.Contains(typ.Rejected, "refused by the mesh") {
					t.Errorf("%s: rejected: %s", tt.name, typ.Rejected)
				}
			}
		}
	}
}
