package mesh_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
)

const outlierRule = `
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 5, interval: 100ms, baseEjectionTime: 2s}
`

// callOf returns how to make a call over a protocol, which reports a failure of the
// server as one. The headers go with it.
func callOf(t *testing.T, customer *mesh.Mesh, protocol string) func(ctx context.Context, headers map[string]string) error {
	t.Helper()
	if protocol == "gRPC" {
		conn, err := grpc.NewClient("mesh:///"+paymentHost+":9090", customer.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // with the test
		client := grpc_testing.NewTestServiceClient(conn)
		return func(ctx context.Context, headers map[string]string) error {
			ctx = metadata.NewOutgoingContext(ctx, metadata.New(headers))
			_, err := client.EmptyCall(ctx, &grpc_testing.Empty{})
			return err
		}
	}
	port := map[string]string{"HTTP/1.1": "80", "HTTP/2": "82"}[protocol]
	return func(ctx context.Context, headers map[string]string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+paymentHost+":"+port+"/charge", nil)
		if err != nil {
			return err
		}
		for name, value := range headers {
			req.Header.Set(name, value)
		}
		resp, err := customer.HTTPClient().Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return &statusError{resp.Status}
		}
		return nil
	}
}

type statusError struct{ status string }

func (e *statusError) Error() string { return e.status }

func TestBO8_G8_AFailingPaymentIsLeftOutAndTakenBack(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2", "gRPC"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			w := worldtest.New(t, "")
			labels := map[string]string{"app": "payment"}
			payments := []*worldtest.Payment{w.Payment("v1-a", labels), w.Payment("v1-b", labels), w.Payment("v1-c", labels)}
			w.Apply(services(payments...) + outlierRule)
			events := make(chan string, 16)
			customer := w.Join("shop", "customer", nil, mesh.WithHooks(&observe.Hooks{
				EndpointEjected:  func(e observe.EjectionEvent) { events <- "ejected " + e.Endpoint + ": " + e.Reason },
				EndpointReturned: func(e observe.EjectionEvent) { events <- "returned " + e.Endpoint + ": " + e.Reason },
			}))
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			call := callOf(t, customer, protocol)

			// All fail, in a way that the default retry policy does not hide. The
			// first with five failures is the only one of three that may go.
			fail := map[string]string{worldtest.ScriptHeader: "fail=500/13"}
			i := -1
			for i < 0 {
				if len(events) > 0 {
					t.Fatalf("event %q before the fifth failure of any payment", <-events)
				}
				if call(ctx, fail) == nil {
					t.Fatal("a call succeeded while all fail")
				}
				if ctx.Err() != nil {
					t.Fatal("no payment got five calls")
				}
				i = slices.IndexFunc(payments, func(p *worldtest.Payment) bool { return p.Calls.Load() == 5 })
			}
			ejected := time.Now()
			failing := payments[i]
			address := failing.HTTP
			if protocol == "gRPC" {
				address = failing.GRPC
			}
			want := "ejected " + address + ": consecutive-5xx"
			if got := nextEvent(ctx, events); got != want {
				t.Fatalf("event %q, want %q", got, want)
			}
			for i := range 50 {
				if err := call(ctx, nil); err != nil {
					t.Errorf("call %d after the ejection: %v", i, err)
				}
			}
			if got := failing.Calls.Load() - 5; got != 0 && time.Since(ejected) < 2*time.Second {
				t.Errorf("the ejected payment got %d calls", got)
			}

			for failing.Calls.Load() == 5 {
				if err := call(ctx, nil); err != nil {
					t.Fatalf("call until the return: %v", err)
				}
			}
			if got := time.Since(ejected); got < 1900*time.Millisecond {
				t.Errorf("the payment returned after %v, want 2s or more", got)
			}
			want = "returned " + address + ": consecutive-5xx"
			if got := nextEvent(ctx, events); got != want {
				t.Errorf("event %q, want %q", got, want)
			}
		})
	}
}

func nextEvent(ctx context.Context, events <-chan string) string {
	select {
	case e := <-events:
		return e
	case <-ctx.Done():
		return ctx.Err().Error()
	}
}
