package mesh_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// A call whose time is over in an injected delay is not forwarded, and is not explained
// so, over both protocols.
func TestExplainSaysThatADelayTakesTheTimeOfACall(t *testing.T) {
	t.Parallel()
	const fault = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - timeout: 10s
    fault: FAULT
    route: [{destination: {host: payment}}]
`
	const delay, abort = `delay: {percentage: {value: 100}, fixedDelay: 5s}`, `, abort: {percentage: {value: 100}, httpStatus: 418}`
	for _, tt := range []struct {
		name, fault   string
		options       mesh.CallOptions
		deadline      time.Duration // 0 is none
		want          mesh.Verdict
		reason        string
		sent, aborted bool
	}{
		{"no time is given", delay, mesh.CallOptions{}, 0, mesh.VerdictForward, "", true, false},
		{"the call's timeout", delay, mesh.CallOptions{Timeout: time.Second}, 0, mesh.VerdictNoTime, "not sent: 1s are left, and an injected fault delays by 5s", false, false},
		{"the context's deadline", delay, mesh.CallOptions{Timeout: time.Minute}, 100 * time.Millisecond, mesh.VerdictNoTime, "not sent: 100ms are left, and an injected fault delays by 5s", false, false},
		{"time enough", delay, mesh.CallOptions{Timeout: 6 * time.Second}, time.Minute, mesh.VerdictForward, "", true, false},
		{"an abort would follow", delay + abort, mesh.CallOptions{Timeout: time.Second}, 0, mesh.VerdictNoTime, "not sent: 1s are left", false, false},
		{"an abort follows", delay + abort, mesh.CallOptions{Timeout: 6 * time.Second}, 0, mesh.VerdictFilter, "", false, true},
		{"a share is delayed", strings.Replace(delay, "100", "50", 1), mesh.CallOptions{Timeout: 6 * time.Second}, 0, mesh.VerdictForward, "", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := meshtest.New(t)
				w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(echoRequest)),
					meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, echoService{}) }))
				w.Apply(strings.Replace(fault, "FAULT", "{"+tt.fault+"}", 1))
				customer := w.Workload("customer.shop")
				conn, err := grpc.NewClient("mesh:///payment.shop:9090", customer.DialOptions()...)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				within := func() (context.Context, context.CancelFunc) {
					ctx := mesh.WithCall(t.Context(), tt.options)
					if tt.deadline == 0 {
						return context.WithCancel(ctx)
					}
					return context.WithTimeout(ctx, tt.deadline)
				}
				check := func(e *mesh.Explanation, err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
					if e.Verdict != tt.want || !strings.HasPrefix(e.Reason, tt.reason) {
						t.Errorf("explained as %v: %q, want %v: %q", e.Verdict, e.Reason, tt.want, tt.reason)
					}
					calls := w.Calls()
					w.ResetCalls()
					if sent := len(calls[0].Attempts) > 0; sent != tt.sent {
						t.Errorf("sent: %t, want %t", sent, tt.sent)
					}
				}
				ctx, cancel := within()
				e, explained := customer.Explain(post(ctx, t))
				resp, err := customer.Transport().RoundTrip(post(ctx, t))
				cancel()
				if err == nil {
					_ = resp.Body.Close()
				}
				if aborted := err == nil && resp.StatusCode == http.StatusTeapot; aborted != tt.aborted {
					t.Errorf("aborted: %t, want %t (%v)", aborted, tt.aborted, err)
				}
				check(e, explained)
				ctx, cancel = within()
				e, explained = customer.ExplainRPC(ctx, "mesh:///payment.shop:9090", explainPaths[0])
				_ = conn.Invoke(ctx, explainPaths[0], new(grpc_testing.Empty), new(grpc_testing.Empty)) // explained, whatever comes of it
				cancel()
				check(e, explained)
			})
		})
	}
}
