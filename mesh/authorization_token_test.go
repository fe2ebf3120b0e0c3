package mesh_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tokentest"
)

// withToken calls the payment over a protocol, and returns the HTTP status; of a
// gRPC call, the one that means the same.
func (w *guardedWorld) withToken(t *testing.T, protocol, token string) int {
	t.Helper()
	before := w.served.Load()
	var got int
	if protocol == "gRPC" {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		_, err := grpc_testing.NewTestServiceClient(w.grpc[customer]).EmptyCall(ctx, &grpc_testing.Empty{})
		switch status.Code(err) {
		case codes.OK:
			got = http.StatusOK
		case codes.Unauthenticated:
			got = http.StatusUnauthorized
		case codes.PermissionDenied:
			got = http.StatusForbidden
		default:
			t.Errorf("got %v", err)
		}
	} else {
		resp := send(t, w.meshes[customer].Transport(), func(r *http.Request) {
			r.URL.Host = "payment.shop.svc.cluster.local:" + map[string]string{"HTTP/1.1": "80", "HTTP/2": "81"}[protocol]
			r.Host = r.URL.Host
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
		})
		readAll(t, resp)
		got = resp.StatusCode
	}
	if served := w.served.Load() - before; (served == 1) != (got == http.StatusOK) {
		t.Errorf("%s: status %d, served %d", protocol, got, served)
	}
	return got
}

// TestS35_AuthorizationByTokens: RequestAuthentication says who the caller is, and
// AuthorizationPolicy what that is good for. Claims decide only if the token was
// verified.
func TestS35_AuthorizationByTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer, other := tokentest.New("https://issuer.test/a"), tokentest.New("https://issuer.test/a")
		cook := issuer.Token(tokentest.Object{"sub": "cook", "groups": []string{"kitchen", "staff"}, "realm": tokentest.Object{"role": "chef"}, "azp": "till"})
		guest := issuer.Token(tokentest.Object{"sub": "guest"})
		slashes := issuer.Token(tokentest.Object{"sub": "a/cook"})
		forged := other.Token(tokentest.Object{"sub": "cook", "groups": []string{"kitchen"}})
		const ok, who, no = http.StatusOK, http.StatusUnauthorized, http.StatusForbidden
		w := newGuardedWorld(t)
		authentication := `---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  selector: {matchLabels: {app: payment}}
  jwtRules: [{issuer: "https://issuer.test/a", jwks: '` + issuer.Keys() + `'}]
`
		for _, tt := range []struct {
			spec string
			// want is for the cook, the guest, who has slashes in the name, who has no
			// token, and who has forged one.
			want [5]int
		}{
			{`{rules: [{from: [{source: {requestPrincipals: ["*"]}}]}]}`, [5]int{ok, ok, ok, no, who}},
			{`{rules: [{from: [{source: {requestPrincipals: ["https://issuer.test/a/cook"]}}]}]}`, [5]int{ok, no, no, no, who}},
			{`{rules: [{from: [{source: {requestPrincipals: ["https://issuer.test/a/*"]}}]}]}`, [5]int{ok, ok, ok, no, who}},
			{`{rules: [{from: [{source: {requestPrincipals: ["*/cook"]}}]}]}`, [5]int{ok, no, no, no, who}},
			{`{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ["*/cook"]}}]}]}`, [5]int{ok, no, no, no, who}},
			{`{action: DENY, rules: [{from: [{source: {requestPrincipals: ["*/guest"]}}]}]}`, [5]int{ok, no, ok, ok, who}},
			{`{rules: [{when: [{key: request.auth.principal, values: ["https://issuer.test/a/guest"]}]}]}`, [5]int{no, ok, no, no, who}},
			{`{rules: [{when: [{key: "request.auth.claims[groups]", values: [kitchen]}]}]}`, [5]int{ok, no, no, no, who}},
			{`{rules: [{when: [{key: "request.auth.claims[groups]", values: ["sta*"]}]}]}`, [5]int{ok, no, no, no, who}},
			{`{rules: [{when: [{key: "request.auth.claims[realm][role]", values: [chef]}]}]}`, [5]int{ok, no, no, no, who}},
			{`{action: DENY, rules: [{when: [{key: "request.auth.claims[groups]", notValues: [kitchen]}]}]}`, [5]int{ok, no, no, no, who}},
			{`{rules: [{when: [{key: request.auth.presenter, values: [till]}]}]}`, [5]int{ok, no, no, no, who}},
			{`{rules: [{from: [{source: {requestPrincipals: ["*"], namespaces: [bank]}}]}]}`, [5]int{no, no, no, no, who}},
		} {
			w.Apply(authorizationYAML("shop", "", tt.spec) + authentication)
			for _, protocol := range authorizationProtocols {
				for i, token := range []string{cook, guest, slashes, "", forged} {
					if got := w.withToken(t, protocol, token); got != tt.want[i] {
						t.Errorf("%s: %s: caller %d got %d, want %d", tt.spec, protocol, i, got, tt.want[i])
					}
				}
			}
		}
	})
}
