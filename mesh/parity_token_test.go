package mesh_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/internal/tokentest"
)

// parityIssuers sign the tokens of the rows: the keys of the first are in its
// policy, those of the second are fetched.
var parityIssuers = sync.OnceValue(func() [2]*tokentest.Issuer {
	return [2]*tokentest.Issuer{tokentest.New("https://inline.test"), tokentest.New("https://fetched.test")}
})

// parityTokens is the policy of the payment that looks at tokens.
func parityTokens() string {
	issuers := parityIssuers()
	return `apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  selector: {matchLabels: {app: tokens}}
  jwtRules:
  - issuer: https://inline.test
    audiences: [shop]
    jwks: '` + issuers[0].Keys() + `'
    outputPayloadToHeader: x-claims
    outputClaimToHeaders: [{header: x-role, claim: realm.role}]
  - issuer: https://fetched.test
    jwksUri: http://HOST/echo?document=` + url.QueryEscape(issuers[1].Keys()) + `
    timeout: 3s
    fromHeaders: [{name: x-token, prefix: "Token "}]
    fromParams: [token]
    fromCookies: [session]
    forwardOriginalToken: true
    spaceDelimitedClaims: [roles]`
}

// grpcHasNoQuery is why a token in a query is no case of gRPC.
const grpcHasNoQuery = "a gRPC call has no query"

func parityTokenRows() []parityRow {
	issuers := parityIssuers()
	at := []parityEndpoint{{instance: "tokens-a"}}
	bearer := func(token string) parityCall {
		return parityCall{header: map[string]string{"authorization": "Bearer " + token}}
	}
	with := func(name, value string) parityCall { return parityCall{header: map[string]string{name: value}} }
	// refused are the two ways to say no. The payment gets nothing.
	unauthenticated := parityWant{status: http.StatusUnauthorized, code: codes.Unauthenticated}
	forbidden := parityWant{status: http.StatusForbidden, code: codes.PermissionDenied}
	inline := issuers[0].Token(tokentest.Object{"realm": tokentest.Object{"role": "cook"}})
	fetched := issuers[1].Token(nil)
	sent := func(want map[string]string) func(*testing.T, *parityProbe, *parityResult) {
		return func(t *testing.T, _ *parityProbe, r *parityResult) {
			for name, value := range want {
				if got := strings.Join(r.sent(name), "|"); got != value {
					t.Errorf("%s arrived as %q, want %q", name, got, value)
				}
			}
		}
	}
	untouched := func(t *testing.T, _ *parityProbe, r *parityResult) {
		if r.Arrivals != 0 {
			t.Error("the payment got the call")
		}
	}
	spoofed := with("x-role", "root")
	spoofed.header["x-claims"] = "e30"
	unverified := bearer(tokentest.New("https://inline.test").Token(nil))
	both := bearer(inline)
	both.header["x-token"] = "Token " + fetched
	return []parityRow{
		{
			name: "RequestAuthentication.jwtRules with jwks", routes: noRetries + toAll, endpoints: at, documents: parityTokens(),
			// The keys are fetched from the first payment, which is no guarded one.
			service: `endpoints:
- {address: 127.0.0.1, ports: {http: HTTP(v1-a), http2: HTTP(tokens-a), grpc: GRPC(tokens-a)}, labels: {version: v1}, serviceAccount: payment}
ports: [{number: 80, name: http, protocol: HTTP}, {number: 82, name: http2, protocol: HTTP2}, {number: 9090, name: grpc, protocol: GRPC}]`,
			run: func(*testing.T, *parityProbe) {},
		},
		{
			name: "RequestAuthentication.jwtRules", routes: noRetries + toAll, endpoints: at,
			cases: []parityCase{
				{name: "no token", want: answered},
				{name: "a token", call: bearer(inline), want: answered, check: sent(map[string]string{
					"x-role": "cook", "x-claims": strings.Split(inline, ".")[1], "authorization": "",
				})},
				{name: "V38 headers of claims without a token", call: spoofed, want: answered, check: sent(map[string]string{"x-role": "", "x-claims": ""})},
				{name: "an expired token", call: bearer(issuers[0].Token(tokentest.Object{"exp": 1})), want: unauthenticated, check: untouched},
				{name: "a token of the wrong audience", call: bearer(issuers[0].Token(tokentest.Object{"aud": "bank"})), want: forbidden, check: untouched},
				{name: "a token of another key", call: unverified, want: unauthenticated, check: untouched},
				{name: "V36 a token of another issuer", call: bearer(fetched), want: unauthenticated, check: untouched},
				{name: "no token but a text", call: bearer("hello"), want: unauthenticated, check: untouched},
			},
		},
		{
			name: "RequestAuthentication.jwtRules.jwksUri", routes: noRetries + toAll, endpoints: at,
			cases: []parityCase{
				{name: "a token in a header, which stays", call: with("x-token", "Token "+fetched), want: answered, check: sent(map[string]string{"x-token": "Token " + fetched})},
				{name: "a bad token in a header", call: with("x-token", "Token "+inline), want: unauthenticated, check: untouched},
				{name: "a token in a cookie", call: with("cookie", "a=b; session="+fetched), want: answered},
				{name: "a bad token in a cookie", call: with("cookie", "session=x.y.z"), want: unauthenticated, check: untouched},
				{name: "a token in a parameter", call: parityCall{query: "a=b&token=" + fetched}, want: answered, httpOnly: true, why: grpcHasNoQuery},
				{name: "a bad token in a parameter", call: parityCall{query: "token=x.y.z"}, want: unauthenticated, httpOnly: true, why: grpcHasNoQuery, check: untouched},
				{name: "tokens of both issuers", call: both, want: answered},
			},
		},
		{
			name: "G21 RequestAuthentication and bad tokens", routes: noRetries + toAll, endpoints: at,
			run: func(t *testing.T, p *parityProbe) {
				for _, bad := range tokentest.Battery(issuers[0]) {
					if len(bad.Token) > 16<<10 || strings.ContainsAny(bad.Token, "\r\n") {
						continue // no header can hold it
					}
					r := p.call(t, bearer(bad.Token))
					ok := r.Arrivals == 0
					if p.grpc {
						ok = ok && slices.Contains([]codes.Code{codes.Unauthenticated, codes.PermissionDenied}, r.Code)
					} else {
						ok = ok && (r.Status == http.StatusUnauthorized || r.Status == http.StatusForbidden)
					}
					if !ok {
						t.Errorf("%s: %v", bad.Name, r)
					}
				}
			},
		},
	}
}
