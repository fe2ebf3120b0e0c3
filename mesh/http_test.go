package mesh_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// speaking runs f with a payment over each version of HTTP, and a transport to
// it. serve makes the payment's handler.
func speaking(t *testing.T, yaml string, serve func() http.HandlerFunc, f func(t *testing.T, transport http.RoundTripper)) {
	t.Helper()
	for name, upgrade := range map[string]string{"HTTP/1.1": "DO_NOT_UPGRADE", "HTTP/2": "UPGRADE"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := meshtest.New(t)
				w.Service("payment.shop", meshtest.HTTP(80, serve()))
				w.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec: {host: payment, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: ` + upgrade + `}}}}
` + yaml)
				f(t, w.Workload("customer.shop").Transport())
			})
		})
	}
}

// send sends a request to the payment and fails the test if there is no answer.
func send(t *testing.T, transport http.RoundTripper, edit func(*http.Request)) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+paymentHost+"/charge", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// readAll reads and closes a response's body.
func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Error(err)
	}
	return string(body)
}

func TestARetryDoesNotWaitForTheRestOfAFailure(t *testing.T) {
	t.Parallel()
	speaking(t, `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - retries: {attempts: 1, retryOn: 5xx}
    route: [{destination: {host: payment}}]
`, func() http.HandlerFunc {
		var calls atomic.Int64
		return func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				_ = http.NewResponseController(w).Flush() // the test sees what became of it
				<-r.Context().Done()
			}
		}
	}, func(t *testing.T, transport http.RoundTripper) {
		began := time.Now()
		resp := send(t, transport, nil)
		_ = readAll(t, resp)
		if took := time.Since(began); resp.StatusCode != http.StatusOK || took > time.Second {
			t.Errorf("status %d after %v", resp.StatusCode, took)
		}
	})
}

func TestEverySpellingOfAHostIsTheSameHost(t *testing.T) {
	t.Parallel()
	speaking(t, "", func() http.HandlerFunc { return func(http.ResponseWriter, *http.Request) {} },
		func(t *testing.T, transport http.RoundTripper) {
			for _, host := range []string{"Payment.Shop.svc.cluster.LOCAL", paymentHost + ".", paymentHost + ".:80", "PAYMENT"} {
				resp := send(t, transport, func(r *http.Request) { r.URL.Host, r.Host = host, host })
				_ = readAll(t, resp)
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%s: status %d", host, resp.StatusCode)
				}
			}
		})
}

func TestAnUpgradedConnectionCanBeHalfClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, err = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"))
			received, readErr := io.ReadAll(buffered) // to the end of the caller's side
			_, writeErr := conn.Write(bytes.ToUpper(received))
			if err := errors.Join(err, readErr, writeErr, conn.Close()); err != nil {
				t.Error(err)
			}
		})))
		resp := send(t, w.Workload("customer.shop").Transport(), func(r *http.Request) {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "echo")
		})
		upgraded, ok := resp.Body.(interface {
			io.Writer
			CloseWrite() error
		})
		if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
			t.Fatalf("status %d, a body of type %T", resp.StatusCode, resp.Body)
		}
		_, err := upgraded.Write([]byte("hello"))
		if err := errors.Join(err, upgraded.CloseWrite()); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, resp); got != "HELLO" {
			t.Errorf("got %q", got)
		}
	})
}

// What net/http would not send is an error that no attempt is made for.
func TestARequestThatIsInvalidIsNoFailureOfAnEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		transport := w.Workload("customer.shop").Transport()
		for name, test := range map[string]struct {
			edit func(*http.Request)
			want string
		}{
			"method":       {func(r *http.Request) { r.Method = "GET /" }, `mesh: invalid method "GET /"`},
			"header name":  {func(r *http.Request) { r.Header["a b"] = []string{"c"} }, `mesh: invalid header name "a b"`},
			"header value": {func(r *http.Request) { r.Header.Set("X-Key", "se\ncret") }, `mesh: header "X-Key" has an invalid value`},
			"trailer":      {func(r *http.Request) { r.Trailer = http.Header{"a b": nil} }, `mesh: invalid trailer name "a b"`},
			"query": {func(r *http.Request) { r.URL.RawQuery = "a\r\nb" },
				"mesh: URL \"http://payment.shop.svc.cluster.local/?a\\r\\nb\" has a control character: escape it"},
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+paymentHost+"/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			test.edit(req)
			if _, err := transport.RoundTrip(req); err == nil || err.Error() != test.want {
				t.Errorf("%s: %v, want %s", name, err, test.want)
			}
		}
		if calls := w.Calls(); len(calls) != 0 {
			t.Errorf("calls %v", calls)
		}
	})
}
