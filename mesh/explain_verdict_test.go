package mesh_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// What a filter answers is never forwarded, and the explanation says so.
func TestExplainSaysThatAFilterAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		payment := w.Service("payment.shop", meshtest.HTTP(80, http.NotFoundHandler()))
		w.Apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - match: [{uri: {prefix: /all}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 418}}
    route: [{destination: {host: payment}}]
  - match: [{uri: {prefix: /direct}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 418}}
    route: [{destination: {host: payment}}]
  - match: [{uri: {prefix: /some}}]
    fault: {abort: {percentage: {value: 30}, httpStatus: 418}}
    route: [{destination: {host: payment}}]
  - match: [{uri: {prefix: /cors}}]
    corsPolicy: {allowOrigins: [{exact: "https://a"}], unmatchedPreflights: FORWARD}
    route: [{destination: {host: payment}}]
  - match: [{uri: {prefix: /retry}}]
    retries: {attempts: 1, retryOn: "reset,503,504"}
    route: [{destination: {host: payment}}]
  - match: [{uri: {prefix: /far}}]
    retries: {attempts: 1, retryRemoteLocalities: true}
    route: [{destination: {host: payment}}]
  - route: [{destination: {host: payment}}]
`)
		customer := w.Workload("customer.shop")
		for _, c := range []struct {
			name, method, path, origin string
			verdict                    mesh.Verdict
			reason, text               string
			status                     int
		}{
			{"always", "GET", "/all", "", mesh.VerdictFilter, "an injected fault answers: nothing is sent", "answer        status 418, 18 bytes: \"fault filter abort\"\n", 418},
			{"some", "GET", "/some", "", mesh.VerdictForward, "but an injected fault answers 30% of such calls with status 418", "verdict       forward: but an injected fault answers 30%", 0},
			{"a preflight", "OPTIONS", "/cors", "https://a", mesh.VerdictFilter, "CORS answers: nothing is sent", "answer        status 200, with access-control-allow-origin: https://a\n", 200},
			{"a preflight of somebody else", "OPTIONS", "/cors", "https://b", mesh.VerdictForward, "", "verdict       forward\n", 0},
			{"a request with an origin", "GET", "/cors", "https://a", mesh.VerdictForward, "", "verdict       forward\n", 0},
			{"retries of statuses", "GET", "/retry", "", mesh.VerdictForward, "", "retries       1, on reset, retriable-status-codes (statuses 503 504), after", 0},
			{"retries in other localities", "GET", "/far", "", mesh.VerdictForward, "", "each on another endpoint, in another priority after each 2 attempts\n", 0},
			{"retries by default", "GET", "/", "", mesh.VerdictForward, "", "retries       2, on connect-failure, refused-stream, cancelled, unavailable, after", 0},
		} {
			req := request(t, c.method, "http://payment.shop"+c.path)
			if c.origin != "" {
				req.Header.Set("Origin", c.origin)
				req.Header.Set("Access-Control-Request-Method", "PUT")
			}
			e, err := customer.Explain(req)
			if err != nil {
				t.Fatal(err)
			}
			if e.Verdict != c.verdict || e.Reason != c.reason || !strings.Contains(e.String(), c.text) {
				t.Errorf("%s: no %q in\n%v", c.name, c.text, e)
			}
			if (e.Cluster == nil) != (c.verdict == mesh.VerdictFilter) {
				t.Errorf("%s: cluster %v", c.name, e.Cluster)
			}
			if c.status == 0 {
				continue
			}
			before := payment.Requests()
			resp, err := customer.HTTPClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.status || e.Answer.Status != c.status || payment.Requests() != before {
				t.Errorf("%s: got %d, explained %v", c.name, resp.StatusCode, e.Answer)
			}
		}
	})
}

// A timeout that has passed is none that is missing: what is computed from a deadline
// becomes negative when it is too late.
func TestACallWhoseTimeHasPassedIsNotSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		payment := w.Service("payment.shop", meshtest.HTTP(80, http.NotFoundHandler()),
			meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) {
				grpc_testing.RegisterTestServiceServer(s, grpc_testing.UnimplementedTestServiceServer{})
			}))
		customer := w.Workload("customer.shop")
		ctx := mesh.WithCall(t.Context(), mesh.CallOptions{Timeout: -time.Second})
		req := request(t, http.MethodGet, "http://payment.shop/").WithContext(ctx)
		resp, err := customer.Transport().RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		if failure, ok := errors.AsType[*mesh.Error](err); !ok || !failure.SafeToRetry() || !strings.Contains(err.Error(), "not sent: the timeout of the call, -1s, has passed") {
			t.Errorf("got %v", err)
		}
		conn, err := grpc.NewClient("mesh:///payment.shop:9090", customer.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client := grpc_testing.NewTestServiceClient(conn)
		if _, err = client.EmptyCall(ctx, new(grpc_testing.Empty)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		stream, err := client.FullDuplexCall(metadata.NewOutgoingContext(ctx, nil))
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a stream: got %v", err)
		}
		if n := payment.Requests(); n > 0 {
			t.Errorf("%d requests arrived", n)
		}
		if _, err = client.EmptyCall(context.WithoutCancel(t.Context()), new(grpc_testing.Empty)); status.Code(err) != codes.Unimplemented {
			t.Errorf("without options: got %v", err)
		}
	})
}
