package nativegrpc_test

import (
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/worldtest"
)

// tokens asks for tokens of an issuer, whose key is that of RFC 7517, A.1.
const tokens = `---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  jwtRules:
  - issuer: someone
    jwks: '{"keys":[{"kty":"EC","crv":"P-256","kid":"1","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}'
`

func policy(spec string) string {
	return "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: policy, namespace: shop}\nspec:" + spec + "\n"
}

// TestAuthorizationHoldsAtNativeServers: with one call from customer for each
// policy, in one world that changes.
func TestAuthorizationHoldsAtNativeServers(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	payment := newNative(t, w, "a")
	service := servers(payment) + strict
	w.Apply(service)
	_, guest := guestOf(t, w)
	conn := dial(t, guest, target)
	for _, tt := range []struct {
		name, policy string
		want         codes.Code
	}{
		{"without a policy everybody may call", "", codes.OK},
		{"a policy without rules allows nothing", policy(" {}"), codes.PermissionDenied},
		{"who is allowed may call", policy(`
  rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/customer"]}}]}]`), codes.OK},
		{"who is not may not", policy(`
  rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/other"]}}]}]`), codes.PermissionDenied},
		{"who is denied may not", policy(`
  action: DENY
  rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/customer"]}}]}]`), codes.PermissionDenied},
		{"a method is allowed by its path", policy(`
  rules: [{to: [{operation: {paths: ["/grpc.testing.TestService/UnaryCall"]}}]}]`), codes.OK},
		{"another method is not", policy(`
  rules: [{to: [{operation: {paths: ["/grpc.testing.TestService/EmptyCall"]}}]}]`), codes.PermissionDenied},
		{"a template of a path", policy(`
  rules: [{to: [{operation: {paths: ["/{*}/UnaryCall"]}}]}]`), codes.OK},
		{"a host is denied in whatever spelling", policy(`
  action: DENY
  rules: [{to: [{operation: {hosts: ["PAYMENT.shop.svc.cluster.local"]}}]}]`), codes.PermissionDenied},
		{"the port is that of the listener", policy(`
  action: DENY
  rules: [{to: [{operation: {ports: ["1"]}}]}]`), codes.OK},
		{"a header", policy(`
  action: DENY
  rules: [{when: [{key: "request.headers[x-tenant]", values: ["red"]}]}]`), codes.PermissionDenied},
		{"gRPC is POST", policy(`
  rules: [{to: [{operation: {methods: ["POST"]}}]}]`), codes.OK},
		{"a network", policy(`
  rules: [{from: [{source: {ipBlocks: ["127.0.0.0/8"]}}]}]`), codes.OK},
	} {
		w.Apply(service + tt.policy)
		var err error
		until(t, tt.name, func() bool {
			_, err = call(deadline(t), conn, "x-tenant", "red")
			return status.Code(err) == tt.want
		})
		if tt.want == codes.PermissionDenied && !strings.Contains(err.Error(), "policy") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestAServerThatCannotEnforceIsNotServed: from the beginning, and after it was
// served, with the reason where its callers, its owner and its mesh look.
func TestAServerThatCannotEnforceIsNotServed(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := service(ln.Addr().String()) + strict
	w.Apply(config + tokens)
	payment := serveNative(t, w, "a", ln)
	const reason = "cannot enforce JWTAuthn"
	if err := payment.awaitMode(t, connectivity.ServingModeNotServing); err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("not serving because of %v", err)
	}
	_, guest := guestOf(t, w)
	conn := dial(t, guest, target)
	if _, err := call(deadline(t), conn); status.Code(err) != codes.Unavailable {
		t.Errorf("call: %v", err)
	}

	w.Apply(config)
	if err := payment.awaitMode(t, connectivity.ServingModeServing); err != nil {
		t.Fatal(err)
	}
	until(t, "the call succeeds", func() bool { _, err = call(deadline(t), conn); return err == nil })

	w.Apply(config + tokens)
	if err := payment.awaitMode(t, connectivity.ServingModeNotServing); err == nil {
		t.Error("not serving without a reason")
	}
	until(t, "the connection is gone", func() bool { _, err = call(deadline(t), conn); return status.Code(err) == codes.Unavailable })
	before := payment.calls.Load()
	if _, err := call(deadline(t), conn); status.Code(err) != codes.Unavailable || payment.calls.Load() != before {
		t.Errorf("call: %v, %d arrived", err, payment.calls.Load()-before)
	}
	found := false
	for _, g := range payment.mesh.Guests() {
		for _, l := range g.Listeners {
			for _, n := range l.Notes {
				found = found || l.Refused && n.Refused && strings.Contains(n.What, reason)
			}
		}
	}
	if !found {
		t.Errorf("the mesh says %+v", payment.mesh.Guests())
	}
}

// TestPlaintextIsAcceptedWhereItMayBe: PERMISSIVE, and STRICT.
func TestPlaintextIsAcceptedWhereItMayBe(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	payment := newNative(t, w, "a")
	service := servers(payment)
	w.Apply(service)
	if err := payment.awaitMode(t, connectivity.ServingModeServing); err != nil {
		t.Fatal(err)
	}
	_, guest := guestOf(t, w)
	secure := dial(t, guest, target)
	response, err := call(deadline(t), secure)
	if err != nil || response.GetUsername() != customerID {
		t.Errorf("with mutual TLS: %v, %v", response, err)
	}
	plain, err := grpc.NewClient("passthrough:///"+payment.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	response, err = call(deadline(t), plain)
	if err != nil || response.GetUsername() != "nobody" {
		t.Errorf("in plaintext: %v, %v", response, err)
	}

	w.Apply(service + policy(`
  rules: [{from: [{source: {principals: ["*"]}}]}]`))
	until(t, "policies hold in plaintext", func() bool { _, err = call(deadline(t), plain); return status.Code(err) == codes.PermissionDenied })
	if _, err := call(deadline(t), secure); err != nil {
		t.Errorf("with mutual TLS: %v", err)
	}

	w.Apply(service + strict)
	until(t, "no plaintext", func() bool { _, err = call(deadline(t), plain); return status.Code(err) == codes.Unavailable })
	if _, err := call(deadline(t), secure); err != nil {
		t.Errorf("with mutual TLS: %v", err)
	}
}
