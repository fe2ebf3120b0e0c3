package mesh_test

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// TestBA13_APolicyAboutConnectionsActsOnTheNextRequestOfAnOpenOne, as it comes over xDS:
// over the same connection, of each protocol, a request is served and the next denied.
func TestBA13_APolicyAboutConnectionsActsOnTheNextRequestOfAnOpenOne(t *testing.T) {
	t.Parallel()
	const denies = `{"name": "rbac", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC", "statPrefix": "a",
		"rules": {"action": "DENY", "policies": {"all": {"permissions": [{"any": true}], "principals": [{"any": true}]}}}}}, `
	var served, dialed atomic.Int64
	listener := func(network string) func(address string) *listenerv3.Listener {
		return func(address string) *listenerv3.Listener { return rawListener(t, address, "", network, "") }
	}
	s := serveRawServers(t, newRawXDS(t), listener(""), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }), &countingService{served: &served})
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		dialed.Add(1)
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	overHTTP := func(http2 bool) func(ctx context.Context) (allowed bool, err error) {
		tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }}
		tr.Protocols.SetHTTP1(!http2)
		tr.Protocols.SetUnencryptedHTTP2(http2)
		t.Cleanup(tr.CloseIdleConnections)
		return func(ctx context.Context) (bool, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.web+"/", http.NoBody)
			if err != nil {
				return false, err
			}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				return false, err
			}
			_ = resp.Body.Close()
			return resp.StatusCode != http.StatusForbidden, nil
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+s.calls, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	calls := []func(ctx context.Context) (bool, error){overHTTP(false), overHTTP(true), func(ctx context.Context) (bool, error) {
		_, err := grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, new(grpc_testing.Empty))
		if status.Code(err) == codes.PermissionDenied {
			return false, nil
		}
		return true, err
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i, call := range calls {
		if allowed, err := call(ctx); err != nil || !allowed {
			t.Fatalf("%s: allowed %t: %v", authorizationProtocols[i], allowed, err)
		}
	}
	s.xds.set(listener(denies)(s.web), listener(denies)(s.calls))
	for i, call := range calls {
		until(t, authorizationProtocols[i]+" is denied", func() bool {
			allowed, err := call(ctx)
			if err != nil {
				t.Fatalf("%s: %v", authorizationProtocols[i], err)
			}
			return !allowed
		})
	}
	if got := dialed.Load(); got != int64(len(calls)) {
		t.Errorf("%d connections were made, want one of each protocol", got)
	}
}
