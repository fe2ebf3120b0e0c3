package mesh_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
)

// dialingFrom dials from an address of this machine.
func dialingFrom(ip string) func(context.Context, string, string) (net.Conn, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	return dialer.DialContext
}

// TestS35_AuthorizationByAddresses: over sockets, from addresses of their own.
// What a client writes into x-forwarded-for is nobody's address, for no proxy is
// trusted.
func TestS35_AuthorizationByAddresses(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	payment := w.Payment("v1-a", map[string]string{"app": "payment"})
	clients := make(map[string]*mesh.Mesh)
	channels := make(map[string]*grpc.ClientConn)
	for _, ip := range []string{"127.0.1.1", "127.0.1.2", "127.0.2.1"} {
		clients[ip] = w.Join("shop", "customer", nil, mesh.Network{Dial: dialingFrom(ip)})
		conn, err := grpc.NewClient("mesh:///"+paymentHost+":9090", clients[ip].DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		channels[ip] = conn
	}
	call := func(protocol, ip, forwarded string) int {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if protocol == "gRPC" {
			_, err := grpc_testing.NewTestServiceClient(channels[ip]).EmptyCall(
				metadata.AppendToOutgoingContext(ctx, "x-forwarded-for", forwarded), &grpc_testing.Empty{}, grpc.WaitForReady(true))
			if status.Code(err) == codes.PermissionDenied {
				return http.StatusForbidden
			} else if err != nil {
				t.Errorf("got %v", err)
			}
			return http.StatusOK
		}
		port := map[string]string{"HTTP/1.1": "80", "HTTP/2": "82"}[protocol]
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+paymentHost+":"+port+"/charge", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", forwarded)
		resp, err := clients[ip].Transport().RoundTrip(req)
		if err != nil {
			t.Errorf("got %v", err)
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for name, tt := range map[string]struct {
		spec string
		want [3]bool // of the clients, in their order
	}{
		"an address":              {`{rules: [{from: [{source: {ipBlocks: [127.0.1.1]}}]}]}`, [3]bool{true, false, false}},
		"a block":                 {`{rules: [{from: [{source: {ipBlocks: [127.0.1.0/24]}}]}]}`, [3]bool{true, true, false}},
		"not a block":             {`{rules: [{from: [{source: {notIpBlocks: [127.0.1.0/24]}}]}]}`, [3]bool{false, false, true}},
		"a block is denied":       {`{action: DENY, rules: [{from: [{source: {ipBlocks: [127.0.1.0/24]}}]}]}`, [3]bool{false, false, true}},
		"all but a block":         {`{action: DENY, rules: [{from: [{source: {notIpBlocks: [127.0.1.0/24]}}]}]}`, [3]bool{true, true, false}},
		"the client's address":    {`{rules: [{from: [{source: {remoteIpBlocks: [127.0.1.1, 127.0.2.1]}}]}]}`, [3]bool{true, false, true}},
		"not the client's":        {`{rules: [{from: [{source: {notRemoteIpBlocks: [127.0.1.1]}}]}]}`, [3]bool{false, true, true}},
		"by a condition":          {`{rules: [{when: [{key: source.ip, values: [127.0.1.0/24]}, {key: remote.ip, notValues: [127.0.1.2]}]}]}`, [3]bool{true, false, false}},
		"what is said to be it":   {`{rules: [{from: [{source: {remoteIpBlocks: [127.0.9.9]}}]}]}`, [3]bool{}},
		"not what is said to be":  {`{action: DENY, rules: [{from: [{source: {remoteIpBlocks: [127.0.9.9]}}]}]}`, [3]bool{true, true, true}},
		"the payment's own":       {`{rules: [{when: [{key: destination.ip, values: [127.0.0.1]}]}]}`, [3]bool{true, true, true}},
		"not the payment's own":   {`{action: DENY, rules: [{when: [{key: destination.ip, values: [127.0.0.0/8]}]}]}`, [3]bool{}},
		"two that are never both": {`{rules: [{from: [{source: {ipBlocks: [127.0.1.1], remoteIpBlocks: [127.0.2.1]}}]}]}`, [3]bool{}},
	} {
		w.Apply(services(payment) + "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: " + tt.spec + "\n")
		for i, ip := range []string{"127.0.1.1", "127.0.1.2", "127.0.2.1"} {
			for _, protocol := range authorizationProtocols {
				want := http.StatusForbidden
				if tt.want[i] {
					want = http.StatusOK
				}
				// The policy arrives some time after it was applied.
				got := 0
				until(t, name+": "+protocol+" from "+ip, func() bool {
					got = call(protocol, ip, "127.0.9.9")
					return got == want
				})
			}
		}
		for _, protocol := range authorizationProtocols {
			for i, ip := range []string{"127.0.1.1", "127.0.1.2", "127.0.2.1"} {
				if got := call(protocol, ip, "127.0.1.1, 127.0.9.9"); (got == http.StatusOK) != tt.want[i] {
					t.Errorf("%s: %s from %s: status %d", name, protocol, ip, got)
				}
			}
		}
	}
}
