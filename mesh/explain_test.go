package mesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

const explainYAML = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1, interval: 10s, baseEjectionTime: 60s, maxEjectionPercent: 50}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - name: admins
    match: [{headers: {authorization: {exact: "Bearer s3cret"}}}]
    route: [{destination: {host: payment}}]
  - name: testers
    match: [{headers: {x-tester: {exact: "yes"}}}]
    directResponse: {status: 204}
  - name: everyone
    timeout: 2s
    retries: {attempts: 0}
    route: [{destination: {host: payment}}]
`

func request(t *testing.T, method, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestExplainSendsNothingAndCountsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		payment := w.Service("payment.shop")
		w.Apply(explainYAML)
		customer := w.Workload("customer.shop")
		body := &untouched{t: t}
		req := request(t, http.MethodPost, "http://payment.shop/charge")
		req.Body = body
		first, err := customer.Explain(req)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			again, err := customer.Explain(req)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("another explanation (-first +again):\n%s", diff)
			}
		}
		if len(w.Calls()) > 0 || payment.Requests() > 0 {
			t.Errorf("calls %v, %d requests arrived", w.Calls(), payment.Requests())
		}
		if len(req.Header) > 0 {
			t.Errorf("the request has become %v", req.Header)
		}
	})
}

// untouched is a body that nobody may read or close.
type untouched struct{ t *testing.T }

func (u *untouched) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func (u *untouched) Close() error {
	u.t.Error("the body was closed")
	return nil
}

func TestExplainShowsTheStateOfTheMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		bad := w.Service("payment.shop", meshtest.Version("bad"))
		w.Service("payment.shop", meshtest.Version("good"))
		w.Apply(explainYAML)
		customer := w.Workload("customer.shop")
		req := request(t, http.MethodGet, "http://payment.shop/charge")
		for bad.Requests() == 0 {
			bad.FailNext(1)
			resp, err := customer.Transport().RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		e, err := customer.Explain(req)
		if err != nil {
			t.Fatal(err)
		}
		ejected, candidates := "", 0
		for _, endpoint := range e.Cluster.Endpoints {
			if endpoint.Candidate {
				candidates++
			} else {
				ejected = endpoint.Ejected
			}
		}
		if ejected != "consecutive-5xx" || candidates != 1 {
			t.Errorf("want one ejected endpoint and one candidate, got\n%v", e)
		}
	})
}

func TestExplainKeepsSecrets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		w.Apply(explainYAML)
		req := request(t, http.MethodGet, "http://payment.shop/charge?access_token=0000")
		req.Header.Set("Authorization", "Bearer guessed")
		e, err := w.Workload("customer.shop").Explain(req)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{e.String(), string(e.JSON())} {
			for _, secret := range []string{"s3cret", "guessed", "0000"} {
				if strings.Contains(text, secret) {
					t.Errorf("%q is in\n%s", secret, text)
				}
			}
		}
		want := mesh.ExplainedMismatch{Index: 0, Name: "admins", Condition: "header authorization", Want: "(hidden)", Got: "(hidden)"}
		if e.NotMatched[0] != want {
			t.Errorf("got %+v, want %+v", e.NotMatched[0], want)
		}
	})
}

func TestExplainIsJSON(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		w.Apply(explainYAML)
		e, err := w.Workload("customer.shop").Explain(request(t, http.MethodGet, "http://payment.shop/charge"))
		if err != nil {
			t.Fatal(err)
		}
		var back mesh.Explanation
		if err := json.Unmarshal(e.JSON(), &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*e, back); diff != "" {
			t.Errorf("through JSON (-want +got):\n%s", diff)
		}
	})
}

func TestExplainOfCallsThatTheMeshDoesNotMake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		customer := w.Workload("customer.shop") // whose outbound policy is RegistryOnly
		for url, want := range map[string]string{
			"http://nobody.shop/":       `refused: by the outbound policy (registry only): `,
			"https://payment.shop/":     `refused: by the outbound policy (registry only): https is end-to-end`,
			"http://payment.shop:81/":   `refused: by the outbound policy (registry only): `,
			"http://PAYMENT.shop/there": `forward: `,
		} {
			e, err := customer.Explain(request(t, http.MethodGet, url))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(e.Verdict) + ": " + e.Reason; !strings.HasPrefix(got, want) {
				t.Errorf("%s: got %q, want %q", url, got, want)
			}
		}
		e, err := customer.ExplainRPC(t.Context(), "mesh:///nobody.shop:90", "/a.B/C")
		if err != nil || e.Verdict != mesh.VerdictRefused {
			t.Errorf("got %v, %v", e, err)
		}
		if len(w.Calls()) > 0 {
			t.Errorf("calls %v", w.Calls())
		}
	})
}

func TestExplainRefusesWhatIsNoCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		customer := meshtest.New(t).Workload("customer.shop")
		bad := request(t, http.MethodGet, "ftp://payment.shop/")
		if _, err := customer.Explain(bad); err == nil || err.Error() != `mesh: URL "ftp://payment.shop/": unsupported scheme "ftp": use http` {
			t.Errorf("got %v", err)
		}
		for _, c := range []struct{ target, method, want string }{
			{"payment.shop:90", "/a.B/C", `mesh: target "payment.shop:90": it is not the mesh's: use mesh:///HOST:PORT`},
			{"mesh:///payment.shop", "/a.B/C", `mesh: target "mesh:///payment.shop": it needs a port: mesh:///HOST:PORT`},
			{"mesh:///payment.shop:90", "a.B/C", `mesh: method "a.B/C": write it like "/package.Service/Method"`},
			{"mesh:///payment.shop:90", "/a.B", `mesh: method "/a.B": write it like "/package.Service/Method"`},
		} {
			if _, err := customer.ExplainRPC(t.Context(), c.target, c.method); err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		}
	})
}

func TestExplainAfterClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		customer := w.Workload("customer.shop")
		if err := customer.Close(); err != nil {
			t.Fatal(err)
		}
		e, err := customer.Explain(request(t, http.MethodGet, "http://payment.shop/"))
		if err != nil || e.Verdict != mesh.VerdictNoConfig || e.Reason != "mesh closed" {
			t.Errorf("got %v, %v", e, err)
		}
	})
}

func ExampleMesh_Explain() {
	withWorld(func(w *meshtest.World) {
		customer := w.Workload("customer.shop")
		req, err := http.NewRequest(http.MethodGet, "http://payment.shop/charge", http.NoBody)
		if err != nil {
			fmt.Println(err)
			return
		}
		explained, err := customer.Explain(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, m := range explained.NotMatched[1:] {
			fmt.Printf("not %s: %s: wants %s, got %s\n", m.Name, m.Condition, m.Want, m.Got)
		}
		fmt.Println(explained.Verdict, "by", explained.Route.Name)
		fmt.Println("to", explained.Cluster.Endpoints[0].Address, "within", explained.Timeouts.Call)
		fmt.Println("calls that were made:", len(w.Calls()))
	})
	// Output:
	// not testers: header x-tester: wants exact "yes", got (none)
	// forward by everyone
	// to 10.0.0.1:80 within 2s
	// calls that were made: 0
}

func ExampleMesh_ExplainRPC() {
	withWorld(func(w *meshtest.World) {
		customer := w.Workload("customer.shop")
		ctx := metadata.AppendToOutgoingContext(context.Background(), "x-tester", "yes")
		explained, err := customer.ExplainRPC(ctx, "mesh:///payment.shop:80", "/shop.Payment/Charge")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(explained.Verdict, "by", explained.Route.Name, explained.Answer)
	})
	// Output:
	// direct-response by testers gRPC Unknown
}

// withWorld runs an example in a mesh in memory. A test has meshtest.New(t).
func withWorld(f func(w *meshtest.World)) {
	t := &exampleTB{}
	defer t.end()
	w := meshtest.New(t)
	w.Service("payment.shop")
	w.Apply(explainYAML)
	f(w)
}

// exampleTB lets an example have what a test has.
type exampleTB struct{ cleanups []func() }

func (*exampleTB) Helper()                           {}
func (t *exampleTB) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }
func (*exampleTB) Logf(string, ...any)               {}
func (*exampleTB) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) } //nolint:forbidigo // an example has nobody else to tell
func (*exampleTB) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (*exampleTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (t *exampleTB) end() {
	for len(t.cleanups) > 0 {
		last := t.cleanups[len(t.cleanups)-1]
		t.cleanups = t.cleanups[:len(t.cleanups)-1]
		last()
	}
}
