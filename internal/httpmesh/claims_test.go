package httpmesh

import (
	"net/http"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/token"
	"github.com/inboardmesh/inboard/internal/tokentest"
)

// tokens is a filter that wants a token of an issuer, and leaves its claims.
func tokens(tb testing.TB, issuer *tokentest.Issuer, clearRoute bool) discovery.HTTPFilter {
	tb.Helper()
	keys, err := token.ParseKeys([]byte(issuer.Keys()), true)
	if err != nil {
		tb.Fatal(err)
	}
	return discovery.HTTPFilter{Name: "jwt", Config: &discovery.JWTAuthn{
		Providers: map[string]*discovery.JWTProvider{"p": {
			Issuer: issuer.Name, Audiences: []string{tokentest.Audience}, Keys: keys, ClockSkew: time.Minute, CacheSize: 100,
			Headers:         []discovery.JWTHeader{{Name: "authorization", Prefix: "Bearer "}},
			PayloadMetadata: "payload", ClearRoute: clearRoute,
		}},
		Rules: []discovery.JWTRule{{
			Match:    discovery.RouteMatch{Path: discovery.PathMatch{Value: "/"}},
			Requires: &discovery.JWTRequirement{Kind: discovery.JWTProviderRequired, Provider: "p"},
		}},
	}}
}

// claimIs matches a claim that the filter of tokens has left.
func claimIs(name, value string) discovery.MetadataMatch {
	return discovery.MetadataMatch{
		Filter: "envoy.filters.http.jwt_authn", Path: []string{"payload", name},
		Value: discovery.ValueMatch{Kind: discovery.ValueString, String: discovery.StringMatch{Value: value}},
	}
}

func TestBU2_ClaimsOfATokenChooseTheRoute(t *testing.T) {
	t.Parallel()
	issuer := tokentest.New("https://issuer.test")
	for _, clearRoute := range []bool{true, false} {
		in := strict(
			&discovery.Route{
				Name: "cooks", Match: discovery.RouteMatch{Metadata: []discovery.MetadataMatch{claimIs("role", "cook")}},
				Direct: &discovery.DirectResponse{Status: http.StatusTeapot},
			},
			&discovery.Route{Name: "default", Local: true},
		)
		in.Chains[0].TLS, in.Chains[0].Match.TransportProtocol = nil, "raw_buffer"
		in.Chains[0].Filters = []discovery.HTTPFilter{tokens(t, issuer, clearRoute)}
		address := serveInbound(t, in, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for _, http2 := range []bool{false, true} {
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetHTTP1(!http2)
			transport.Protocols.SetUnencryptedHTTP2(http2)
			t.Cleanup(transport.CloseIdleConnections)
			for _, tt := range []struct {
				name, token string
				want        int
			}{
				{"the claim", issuer.Token(tokentest.Object{"role": "cook"}), http.StatusTeapot},
				{"another claim", issuer.Token(tokentest.Object{"role": "guest"}), http.StatusOK},
				{"a list", issuer.Token(tokentest.Object{"role": []any{"cook"}}), http.StatusOK},
				{"no claim", issuer.Token(nil), http.StatusOK},
				{"a claim that nobody has signed", tokentest.New(issuer.Name).Token(tokentest.Object{"role": "cook"}), http.StatusUnauthorized},
			} {
				want := tt.want
				if !clearRoute && want == http.StatusTeapot {
					want = http.StatusOK // routed before the claims were known
				}
				req := newRequest(t.Context(), t, http.MethodGet, "http://"+address+"/x", nil)
				req.Header.Set("Authorization", "Bearer "+tt.token)
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				readAll(t, resp)
				if resp.StatusCode != want {
					t.Errorf("%s, HTTP/2 %t, clear route %t: status %d, want %d", tt.name, http2, clearRoute, resp.StatusCode, want)
				}
			}
		}
	}
}
