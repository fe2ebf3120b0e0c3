package grpcmesh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/token"
	"github.com/inboardmesh/inboard/internal/tokentest"
)

func TestBM3_ATokenThatIsMissingOrForgedIsUnauthenticated(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				issuer := tokentest.New("https://issuer.test")
				keys, err := token.ParseKeys([]byte(issuer.Keys()), true)
				if err != nil {
					t.Fatal(err)
				}
				f := newFixture(t)
				in := plaintext(endpoint)
				in.Chains[0].Filters = []discovery.HTTPFilter{{Name: "jwt", Config: &discovery.JWTAuthn{
					Providers: map[string]*discovery.JWTProvider{"p": {
						Issuer: issuer.Name, Audiences: []string{tokentest.Audience}, Keys: keys, ClockSkew: time.Minute,
						Headers: []discovery.JWTHeader{{Name: "authorization", Prefix: "Bearer "}},
					}},
					Rules: []discovery.JWTRule{{
						Match:    discovery.RouteMatch{Path: discovery.PathMatch{Value: "/"}},
						Requires: &discovery.JWTRequirement{Kind: discovery.JWTProviderRequired, Provider: "p"},
					}},
				}}}
				b := &backend{}
				f.serveAs(in, b)
				f.forwardTo(endpoint)
				forged := tokentest.New(issuer.Name).Token(nil)
				for name, md := range map[string]metadata.MD{"no token": {}, "a forged one": metadata.Pairs("authorization", "Bearer "+forged)} {
					err := kind.call(metadata.NewOutgoingContext(withTimeout(t), md), f.client())
					if status.Code(err) != codes.Unauthenticated || b.calls.Load() != 0 {
						t.Errorf("%s: %v, with %d calls at the application", name, err, b.calls.Load())
					}
				}
			})
		})
	}
}
