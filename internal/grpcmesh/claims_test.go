package grpcmesh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/token"
	"github.com/inboardmesh/inboard/internal/tokentest"
)

func TestBU2_ClaimsOfATokenChooseTheRouteOfACall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := tokentest.New("https://issuer.test")
		keys, err := token.ParseKeys([]byte(issuer.Keys()), true)
		if err != nil {
			t.Fatal(err)
		}
		f := newFixture(t)
		in := plaintext(endpoint,
			&discovery.Route{
				Name: "cooks", Direct: &discovery.DirectResponse{Status: 403, Body: []byte("cooks go elsewhere")},
				Match: discovery.RouteMatch{Metadata: []discovery.MetadataMatch{{
					Filter: "envoy.filters.http.jwt_authn", Path: []string{"payload", "role"},
					Value: discovery.ValueMatch{Kind: discovery.ValueString, String: discovery.StringMatch{Value: "cook"}},
				}}},
			},
			&discovery.Route{Name: "default", Local: true},
		)
		in.Chains[0].Filters = []discovery.HTTPFilter{{Name: "jwt", Config: &discovery.JWTAuthn{
			Providers: map[string]*discovery.JWTProvider{"p": {
				Issuer: issuer.Name, Audiences: []string{tokentest.Audience}, Keys: keys, ClockSkew: time.Minute,
				Headers:         []discovery.JWTHeader{{Name: "authorization", Prefix: "Bearer "}},
				PayloadMetadata: "payload", ClearRoute: true,
			}},
			Rules: []discovery.JWTRule{{
				Match:    discovery.RouteMatch{Path: discovery.PathMatch{Value: "/"}},
				Requires: &discovery.JWTRequirement{Kind: discovery.JWTProviderRequired, Provider: "p"},
			}},
		}}}
		b := &backend{}
		f.serveAs(in, b)
		client := f.plainClient(endpoint)
		for _, tt := range []struct {
			name, token string
			want        codes.Code
		}{
			{"the claim", issuer.Token(tokentest.Object{"role": "cook"}), codes.PermissionDenied},
			{"another claim", issuer.Token(tokentest.Object{"role": "guest"}), codes.OK},
			{"a claim that nobody has signed", tokentest.New(issuer.Name).Token(tokentest.Object{"role": "cook"}), codes.Unauthenticated},
		} {
			ctx := metadata.AppendToOutgoingContext(withTimeout(t), "authorization", "Bearer "+tt.token)
			if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); status.Code(err) != tt.want {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		}
		if n := b.calls.Load(); n != 1 {
			t.Errorf("%d calls reached the application", n)
		}
	})
}
