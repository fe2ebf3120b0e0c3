package jwt_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/jwt"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/token"
	"github.com/inboardmesh/inboard/internal/tokentest"
	"github.com/inboardmesh/inboard/observe"
)

type headers map[string][]string

func (h headers) Values(name string) []string { return h[name] }
func (h headers) Set(name, value string)      { h[name] = []string{value} }
func (h headers) Add(name, value string)      { h[name] = append(h[name], value) }
func (h headers) Del(name string)             { delete(h, name) }

type object = tokentest.Object

// bearer are the headers of a request with tokens.
func bearer(tokens ...string) headers {
	h := headers{}
	for _, t := range tokens {
		h.Add("authorization", "Bearer "+t)
	}
	return h
}

// exchange is a request to "/path".
func exchange(h headers) *filter.Exchange {
	return &filter.Exchange{
		Request: route.Request{Method: "GET", Scheme: "http", Host: "shop", Path: "/path", Header: h}, Headers: h,
		Routes: route.Compile(&discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{{
			Domains: []string{"*"}, Routes: []*discovery.Route{{Local: true}},
		}}}),
	}
}

// provider is one with the keys of an issuer at the default locations.
func provider(t *testing.T, i *tokentest.Issuer) *discovery.JWTProvider {
	t.Helper()
	keys, err := token.ParseKeys([]byte(i.Keys()), true)
	if err != nil {
		t.Fatal(err)
	}
	return &discovery.JWTProvider{
		Issuer: i.Name, Audiences: []string{tokentest.Audience}, Keys: keys, ClockSkew: time.Minute,
		Headers: []discovery.JWTHeader{{Name: "authorization", Prefix: "Bearer "}}, Params: []string{"access_token"},
		CacheSize: 100,
	}
}

func required(name string) *discovery.JWTRequirement {
	return &discovery.JWTRequirement{Kind: discovery.JWTProviderRequired, Provider: name}
}

func anyOf(of ...*discovery.JWTRequirement) *discovery.JWTRequirement {
	return &discovery.JWTRequirement{Kind: discovery.JWTAny, Of: of}
}

func allOf(of ...*discovery.JWTRequirement) *discovery.JWTRequirement {
	return &discovery.JWTRequirement{Kind: discovery.JWTAll, Of: of}
}

func missingAllowed() *discovery.JWTRequirement {
	return &discovery.JWTRequirement{Kind: discovery.JWTAllowMissing}
}

func failedAllowed() *discovery.JWTRequirement {
	return &discovery.JWTRequirement{Kind: discovery.JWTAllowMissingOrFailed}
}

// config requires the same of every request.
func config(r *discovery.JWTRequirement, providers map[string]*discovery.JWTProvider) *discovery.JWTAuthn {
	return &discovery.JWTAuthn{Providers: providers, Rules: []discovery.JWTRule{{
		Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: "/"}}, Requires: r,
	}}}
}

// build compiles a configuration that fetches nothing.
func build(t *testing.T, c *discovery.JWTAuthn) *jwt.Filter {
	t.Helper()
	return buildWith(t, newIssuer(), c)
}

func buildWith(t *testing.T, s *server, c *discovery.JWTAuthn) *jwt.Filter {
	t.Helper()
	store := jwt.NewStore(s.fetch, &observe.Hooks{})
	t.Cleanup(store.Close)
	f, err := store.Filter(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// status runs a filter and returns 200 for a request that passes.
func status(t *testing.T, f filter.Filter, x *filter.Exchange) int {
	t.Helper()
	answer, err := f.Request(t.Context(), x)
	switch {
	case err != nil:
		t.Fatal(err)
	case answer != nil:
		return answer.Status
	}
	return 200
}

// server is where key sets are fetched from.
type server struct {
	mu       sync.Mutex
	document string      // guarded by mu
	err      error       // guarded by mu
	times    []time.Time // guarded by mu; of the fetches
	hang     bool        // guarded by mu; answers never
}

func newIssuer() *server { return &server{err: errors.New("down")} }

func (s *server) fetch(ctx context.Context, _ *discovery.JWTRemoteKeys) ([]byte, error) {
	s.mu.Lock()
	s.times = append(s.times, time.Now())
	document, err, hang := s.document, s.err, s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return []byte(document), err
}

func (s *server) serve(document string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.document, s.err = document, err
}

func (s *server) fetches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times)
}

func remoteProvider(t *testing.T, i *tokentest.Issuer, change func(*discovery.JWTRemoteKeys)) *discovery.JWTProvider {
	t.Helper()
	p := provider(t, i)
	p.Keys = nil
	p.RemoteKeys = &discovery.JWTRemoteKeys{
		Scheme: "https", Host: "issuer.test", Path: "/keys", Cluster: "issuer",
		Timeout: 5 * time.Second, CacheDuration: 10 * time.Minute, FailedRefetch: time.Second,
	}
	if change != nil {
		change(p.RemoteKeys)
	}
	return p
}

// words joins what a header holds.
func words(h headers, name string) string { return strings.Join(h[name], "|") }

func noHooks() *observe.Hooks { return &observe.Hooks{} }
