package offline_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/internal/offline"
	"github.com/inboardmesh/inboard/mesh"
)

const services = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}, {name: grpc, number: 90, protocol: GRPC}]
  endpoints:
  - {address: 10.0.0.1, serviceAccount: payment, labels: {version: v1}}
  - {address: 10.0.0.2, serviceAccount: payment, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}]
---
`

func open(t *testing.T, http string, node offline.Node) *offline.Mesh {
	t.Helper()
	yaml := services
	if http != "" {
		yaml += "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: payment, namespace: shop}\nspec:\n  hosts: [payment]\n  http:\n" + http
	}
	m, err := offline.New([]istio.File{{Name: "x.yaml", Data: []byte(yaml)}}, node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

const toPayment = "    route: [{destination: {host: payment}}]\n"

func TestExplainOfFiles(t *testing.T) {
	t.Parallel()
	http := "  - name: web\n    match: [{sourceLabels: {app: web}}]\n    directResponse: {status: 204}\n  - name: rest\n" + toPayment
	for _, c := range []struct {
		name string
		node offline.Node
		ask.Request

		verdict mesh.Verdict
		route   string
	}{
		{"a caller without labels", offline.Node{}, ask.Request{Method: "GET", URL: "http://payment.shop/"}, mesh.VerdictForward, "rest"},
		{"a caller with labels", offline.Node{Namespace: "shop", Labels: map[string]string{"app": "web"}}, ask.Request{Method: "GET", URL: "http://payment/"}, mesh.VerdictDirectResponse, "web"},
		{"a name that only its namespace knows", offline.Node{Namespace: "bank"}, ask.Request{Method: "GET", URL: "http://payment/"}, mesh.VerdictAroundMesh, ""},
		{"gRPC", offline.Node{}, ask.Request{GRPC: true, Method: "/a.B/C", URL: "mesh:///payment.shop:90"}, mesh.VerdictForward, "rest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e, err := open(t, http, c.node).Explain(t.Context(), &c.Request)
			if err != nil {
				t.Fatal(err)
			}
			route := ""
			if e.Route != nil {
				route = e.Route.Name
			}
			if e.Verdict != c.verdict || route != c.route {
				t.Errorf("want %s by %q, got\n%v", c.verdict, c.route, e)
			}
			if e.Verdict == mesh.VerdictForward && (len(e.Cluster.Endpoints) != 2 || !e.Cluster.MutualTLS || !e.Cluster.Endpoints[0].Candidate) {
				t.Errorf("got\n%v", e)
			}
		})
	}
}

// What another namespace does not have, or has removed, fails the calls for it, and no others.
func TestAReferenceToWhatOthersDoNotHaveFailsItsCallsOnly(t *testing.T) {
	t.Parallel()
	m := open(t, "  - match: [{uri: {prefix: /gone}}]\n    route: [{destination: {host: gone.bank.svc.cluster.local, port: {number: 80}}}]\n  -\n"+toPayment, offline.Node{})
	for path, want := range map[string]mesh.Verdict{"/gone": mesh.VerdictNoCluster, "/": mesh.VerdictForward} {
		e, err := m.Explain(t.Context(), &ask.Request{Method: "GET", URL: "http://payment.shop" + path})
		if err != nil || e.Verdict != want {
			t.Errorf("%s: want %s, got %v, %v", path, want, e, err)
		}
	}
}

func TestFilesThatNobodyWouldServe(t *testing.T) {
	t.Parallel()
	_, err := offline.New([]istio.File{{Name: "x.yaml", Data: []byte("kind: Odd")}}, offline.Node{})
	if _, ok := errors.AsType[*controlplane.InvalidConfigError](err); !ok || !strings.Contains(err.Error(), "x.yaml:1") {
		t.Errorf("got %v", err)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	get := func(url string, header ...string) ask.Recorded {
		r := ask.Recorded{Request: ask.Request{Method: "GET", URL: url}, Line: 1, Count: 1}
		for _, h := range header {
			if err := r.Add(h); err != nil {
				t.Fatal(err)
			}
		}
		return r
	}
	const (
		whole = "outbound|80||payment.shop.svc.cluster.local"
		v1    = "outbound|80|v1|payment.shop.svc.cluster.local"
		v2    = "outbound|80|v2|payment.shop.svc.cluster.local"
	)
	split := func(first, second string, headers string) string {
		return "  - route: [{destination: {host: payment, subset: v1}, weight: " + first + "}, {destination: {host: payment, subset: v2}, weight: " + second + headers + "}]\n"
	}
	for _, c := range []struct {
		name, before, after string
		request             ask.Recorded
		want                []offline.Change
	}{
		{"nothing but names", "  - name: a\n" + toPayment, "  - name: b\n    match: [{uri: {prefix: /}}]\n" + toPayment, get("http://payment.shop/"), nil},
		{"the same split", split("50", "50", ""), split("50", "50", ""), get("http://payment.shop/"), nil},
		{"what the request does not meet", "", "  - match: [{uri: {exact: /a}}]\n    directResponse: {status: 204}\n  -\n" + toPayment, get("http://payment.shop/"), nil},
		{"an answer", "", "  - directResponse: {status: 204}\n", get("http://payment.shop/"), []offline.Change{
			{"verdict", "forward", "direct-response"}, {"clusters", whole + " 100%", "none"}, {"answer", "none", "status 204"},
		}},
		{"a split", "", split("90", "10", ""), get("http://payment.shop/"), []offline.Change{
			{"clusters", whole + " 100%", v1 + " 90%, " + v2 + " 10%"},
		}},
		{"the shares", split("90", "10", ""), split("80", "20", ""), get("http://payment.shop/"), []offline.Change{
			{"clusters", v1 + " 90%, " + v2 + " 10%", v1 + " 80%, " + v2 + " 20%"},
		}},
		{"what one of a split is sent", split("99", "1", ""), split("99", "1", ", headers: {request: {set: {x-canary: a}}}"), get("http://payment.shop/"), []offline.Change{
			{v2 + ": sent as", "payment.shop/", "payment.shop/, sets x-canary: a"},
		}},
		{"shares of the same cluster", "  - route: [{destination: {host: payment, subset: v1}, weight: 50}, {destination: {host: payment, subset: v1}, weight: 50}]\n", "  - route: [{destination: {host: payment, subset: v1}}]\n", get("http://payment.shop/"), nil},
		{"what one share of the same cluster is sent and answers", "  - route: [{destination: {host: payment, subset: v1}}]\n", "  - route: [{destination: {host: payment, subset: v1}, weight: 75}, {destination: {host: payment, subset: v1}, weight: 25, headers: {request: {set: {x-a: b}}, response: {set: {x-c: d}}}}]\n", get("http://payment.shop/"), []offline.Change{
			{"response headers", "none", "25%: sets x-c: d; 75%: none"},
			{v1 + ": sent as", "payment.shop/", "25%: payment.shop/, sets x-a: b; 75%: payment.shop/"},
		}},
		{"the same share without endpoints", "  - route: [{destination: {host: payment, subset: v1}, weight: 75}, {destination: {host: payment, subset: v3}, weight: 25}]\n", "  - route: [{destination: {host: payment, subset: v3}, weight: 25}, {destination: {host: payment, subset: v1}, weight: 75}]\n", get("http://payment.shop/"), nil},
		{"a header that is matched", "", "  - match: [{headers: {x-user: {exact: ann}}}]\n    fault: {abort: {percentage: {value: 100}, httpStatus: 503}}\n" + toPayment + "  -\n" + toPayment, get("http://payment.shop/", "x-user: ann"), []offline.Change{
			{"verdict", "forward", "filter-answers"}, {"filters", "none", "aborts 100% with status 503"},
			{"clusters", whole + " 100%", "none"}, {"answer", "none", `status 503, 18 bytes: "fault filter abort"`},
		}},
		{"another value of a header", "  - headers: {request: {set: {x-tier: gold}}}\n" + toPayment, "  - headers: {request: {set: {x-tier: silver}}}\n" + toPayment, get("http://payment.shop/"), []offline.Change{
			{whole + ": sent as", "payment.shop/, sets x-tier: gold", "payment.shop/, sets x-tier: silver"},
		}},
		{"another value of a header that may be a secret", "  - headers: {request: {set: {x-api-key: gold}}}\n" + toPayment, "  - headers: {request: {set: {x-api-key: silver}}}\n" + toPayment, get("http://payment.shop/"), []offline.Change{
			{whole + ": sent as", "payment.shop/, sets x-api-key: (hidden), SHA-256 24d7f03d...", "payment.shop/, sets x-api-key: (hidden), SHA-256 78cde64c..."},
		}},
		{"the same computed value", "  - headers: {request: {set: {x-start: '%START_TIME(%s.%9f)%'}}}\n" + toPayment, "  - headers: {request: {set: {x-start: '%START_TIME(%s.%9f)%'}}}\n" + toPayment, get("http://payment.shop/"), nil},
		{"the removal of a header that the request has not", "  -\n" + toPayment, "  - headers: {request: {remove: [x-tier]}}\n" + toPayment, get("http://payment.shop/"), nil},
		{"headers of responses", "  - headers: {response: {set: {x-frame-options: DENY}}}\n" + toPayment, "  - headers: {response: {add: {x-frame-options: DENY}, remove: [server]}}\n" + toPayment, get("http://payment.shop/"), []offline.Change{
			{"response headers", "sets x-frame-options: DENY", "removes server; adds x-frame-options: DENY"},
		}},
		{"another body of the same length", "  - directResponse: {status: 200, body: {string: yes!}}\n", "  - directResponse: {status: 200, body: {string: nope}}\n", get("http://payment.shop/"), []offline.Change{
			{"answer", `status 200, 4 bytes: "yes!"`, `status 200, 4 bytes: "nope"`},
		}},
		{
			"whom a browser may show the response to",
			"  - corsPolicy: {allowOrigins: [{exact: https://a.example}]}\n" + toPayment, "  - corsPolicy: {allowOrigins: [{exact: https://b.example}]}\n" + toPayment,
			get("http://payment.shop/", "origin: https://a.example"),
			[]offline.Change{{"filters", "answers preflights, and marks responses with access-control-allow-origin: https://a.example", "none"}},
		},
		{"time and retries", "  -\n" + toPayment, "  - timeout: 2s\n    retries: {attempts: 0}\n" + toPayment, get("http://payment.shop/"), []offline.Change{
			{whole + ": timeouts", "call 0s, attempt 0s, idle attempt 0s, connect 10s", "call 2s, attempt 0s, idle attempt 0s, connect 10s"},
			{whole + ": retries", "2, on connect-failure, refused-stream, cancelled, unavailable, after 25ms to 250ms, each on another endpoint", "none"},
		}},
		{"a cluster without endpoints", "  - route: [{destination: {host: payment, subset: v3}}]\n", "  -\n" + toPayment, get("http://payment.shop/"), []offline.Change{
			{"verdict", "no-endpoint", "forward"},
			{"clusters", "outbound|80|v3|payment.shop.svc.cluster.local 100%", whole + " 100%"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, _, err := offline.Diff(t.Context(), open(t, c.before, offline.Node{}), open(t, c.after, offline.Node{}), []ask.Recorded{c.request})
			if err != nil {
				t.Fatal(err)
			}
			var changes []offline.Change
			for _, d := range got {
				changes = append(changes, d.Changes...)
			}
			if diff := cmp.Diff(c.want, changes); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
	m := open(t, "", offline.Node{})
	bad := get("ftp://payment.shop/")
	bad.Line = 7
	if _, _, err := offline.Diff(t.Context(), m, m, []ask.Recorded{bad}); err == nil || !strings.HasPrefix(err.Error(), "line 7: ") {
		t.Errorf("got %v", err)
	}
}

// Where no endpoint is known, nobody's identity is: that is said, and not an identity
// which nobody has.
func TestExplainOfAServiceWithoutEndpoints(t *testing.T) {
	t.Parallel()
	m, err := offline.New([]istio.File{{Name: "x.yaml", Data: []byte(`
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
`)}}, offline.Node{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Explain(t.Context(), &ask.Request{Method: "GET", URL: "http://cart.shop/"})
	if err = errors.Join(err, m.Close()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"nobody, as no endpoint says who it is"}, e.Cluster.Peers); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
}
