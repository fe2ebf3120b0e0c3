package jwt_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/tokentest"
)

// TestOfATokenItsSignatureIsRemembered and nothing else: the same token expires, and is
// none for other audiences.
func TestOfATokenItsSignatureIsRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := tokentest.New(tokentest.Name)
		other := &discovery.JWTRequirement{Kind: discovery.JWTProviderRequired, Provider: "p", Audiences: []string{"bank"}}
		f := build(t, &discovery.JWTAuthn{
			Providers: map[string]*discovery.JWTProvider{"p": provider(t, i)}, Rules: []discovery.JWTRule{
				{Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: "/bank"}}, Requires: other},
				{Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: "/"}}, Requires: required("p")},
			},
		})
		raw := i.Token(object{"exp": time.Now().Add(time.Hour).Unix()})
		at := func(path string) int {
			x := exchange(bearer(raw))
			x.Path = path
			return status(t, f, x)
		}
		for _, want := range []struct {
			path   string
			status int
		}{{"/path", 200}, {"/bank", 403}, {"/path", 200}, {"/bank", 403}} {
			if got := at(want.path); got != want.status {
				t.Errorf("%s: %d, want %d", want.path, got, want.status)
			}
		}
		// The clocks may be a minute apart.
		time.Sleep(time.Hour + 59*time.Second)
		if got := at("/path"); got != 200 {
			t.Errorf("within the skew of the clocks: %d", got)
		}
		time.Sleep(time.Second)
		if got := at("/path"); got != 401 {
			t.Errorf("expired: %d", got)
		}
	})
}
