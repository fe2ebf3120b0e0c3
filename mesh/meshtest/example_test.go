package meshtest_test

import (
	"context"
	"fmt"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// Retries: a customer does not notice that the payment fails twice.
func Example() {
	test := func(t meshtest.TB) { // in your code: func TestRetries(t *testing.T)
		w := meshtest.New(t)
		payment := w.Service("payment.shop")
		w.Apply(retriesYAML) // or w.ApplyFiles with the files of production
		payment.FailNext(2)
		resp, err := w.Workload("customer.shop").HTTPClient().Get("http://payment.shop/charge")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		w.WantCalls("customer.shop GET payment.shop/charge: payment 503, payment 503, payment 200")
	}
	run(test)
	// Output:
}

const retriesYAML = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: payment}}]
`

// A canary: testers get the new version, and everybody else one call in ten.
func Example_canary() {
	test := func(t meshtest.TB) { // in your code: func TestCanary(t *testing.T)
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.Version("v1"))
		v2 := w.Service("payment.shop", meshtest.Version("v2"))
		w.Apply(canaryYAML)
		client := w.Workload("customer.shop").HTTPClient()
		visit(t, client, "http://payment.shop/charge", "X-Tester", "yes")
		w.WantCalls("customer.shop GET payment.shop/charge: payment-v2 200")
		for range 400 {
			visit(t, client, "http://payment.shop/charge")
		}
		if n := v2.Requests(); n < 10 || n > 80 { // about a tenth of 400
			t.Errorf("v2 got %d calls", n)
		}
	}
	run(test)
	// Output:
}

// visit is what an application does.
func visit(t meshtest.TB, client *http.Client, url string, header ...string) {
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if len(header) > 0 {
		req.Header.Set(header[0], header[1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// What the mesh decided of a call: its route, its cluster, and where each attempt went.
func ExampleWorld_Calls() {
	run(func(t meshtest.TB) {
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.Version("v1"))
		w.Service("payment.shop", meshtest.Version("v2"))
		w.Apply(canaryYAML)
		visit(t, w.Workload("customer.shop").HTTPClient(), "http://payment.shop/charge", "X-Tester", "yes")
		for _, call := range w.Calls() {
			fmt.Println(call.Route, "chose", call.Cluster)
			fmt.Println(call.Attempts[0].Instance, call.Outcome.Status)
		}
	})
	// Output:
	// testers chose outbound|80|v2|payment.shop.svc.cluster.local
	// payment-v2 200
}

const canaryYAML = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - name: testers
    match: [{headers: {x-tester: {exact: "yes"}}}]
    route: [{destination: {host: payment, subset: v2}}]
  - name: everyone
    route:
    - {destination: {host: payment, subset: v1}, weight: 90}
    - {destination: {host: payment, subset: v2}, weight: 10}
`

// A crash: what was sent to the instance that died is sent to the other one.
func ExampleInstance_Kill() {
	run(func(t meshtest.TB) {
		w := meshtest.New(t)
		a := w.Service("payment.shop", meshtest.Version("a"))
		w.Service("payment.shop", meshtest.Version("b"))
		client := w.Workload("customer.shop").HTTPClient()
		a.Kill()
		failed := 0
		for range 20 {
			resp, err := client.Get("http://payment.shop/")
			if err != nil {
				failed++
				continue
			}
			resp.Body.Close()
		}
		fmt.Println("failed:", failed)
	})
	// Output: failed: 0
}

// gRPC, with a service of the test's own.
func ExampleGRPC() {
	run(func(t meshtest.TB) {
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) {
			grpc_testing.RegisterTestServiceServer(s, &pay{name: "alice"})
		}))
		conn, err := grpc.NewClient("mesh:///payment.shop:9090", w.Workload("customer.shop").DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		reply, err := grpc_testing.NewTestServiceClient(conn).UnaryCall(context.Background(), &grpc_testing.SimpleRequest{})
		fmt.Println(reply.GetUsername(), err)
	})
	// Output: alice <nil>
}

// Who is not in the mesh is refused where mutual TLS is STRICT.
func ExampleWorld_DialContext() {
	run(func(t meshtest.TB) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		w.Apply(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
`)
		stranger := &http.Client{Transport: &http.Transport{DialContext: w.DialContext}}
		_, err := stranger.Get("http://payment.shop/")
		fmt.Println("a stranger is refused:", err != nil)
		resp, err := w.Workload("customer.shop").HTTPClient().Get("http://payment.shop/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println("a workload gets", resp.StatusCode)
	})
	// Output:
	// a stranger is refused: true
	// a workload gets 200
}

// A configuration that must not pass review: the test says why it is refused.
func ExampleWorld_Try() {
	run(func(t meshtest.TB) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		fmt.Println(w.Try(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - rewrite: {uriRegexRewrite: {match: /v1/(.*), rewrite: /\2}}
    route: [{destination: {host: payment}}]
`))
	})
	// Output:
	// configuration is invalid:
	// config.yaml:8:59: VirtualService shop/payment: spec.http[0].rewrite.uriRegexRewrite.rewrite: has "\2", but the last group of the expression is "\1"
}
