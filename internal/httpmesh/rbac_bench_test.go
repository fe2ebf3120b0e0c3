package httpmesh

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/tokentest"
	"github.com/inboardmesh/inboard/observe"
)

// discarding is a response that nobody reads.
type discarding struct{ header http.Header }

func (d *discarding) Header() http.Header         { return d.header }
func (d *discarding) Write(p []byte) (int, error) { return len(p), nil }
func (d *discarding) WriteHeader(int)             {}

// BenchmarkAuthorization is a request through a handler without policies, and
// behind ten ALLOW policies of which the last matches, by method, path and header;
// then with a token too, which is known after the first request.
func BenchmarkAuthorization(b *testing.B) {
	rules := &discovery.RBACRules{}
	for i := range 10 {
		rules.Policies = append(rules.Policies, discovery.RBACPolicy{
			Name: strconv.Itoa(i),
			Permissions: []discovery.RBACRule{{Kind: discovery.RBACAnd, Rules: []discovery.RBACRule{
				{Kind: discovery.RBACHeader, Header: discovery.HeaderMatch{Name: ":method", String: discovery.StringMatch{Value: http.MethodGet}}},
				{Kind: discovery.RBACPath, Text: &discovery.StringMatch{Kind: discovery.MatchPrefix, Value: "/" + strconv.Itoa(i) + "/"}},
				{Kind: discovery.RBACHeader, Header: discovery.HeaderMatch{Name: "x-role", String: discovery.StringMatch{Value: "admin"}}},
			}}},
			Principals: []discovery.RBACRule{{Kind: discovery.RBACAny}},
		})
	}
	issuer := tokentest.New("https://issuer.test")
	policies := discovery.HTTPFilter{Name: "rbac", Config: &discovery.RBAC{Rules: rules}}
	for _, bb := range []struct {
		name    string
		filters []discovery.HTTPFilter
	}{
		{"without", nil},
		{"10 policies", []discovery.HTTPFilter{policies}},
		{"a token and 10 policies", []discovery.HTTPFilter{tokens(b, issuer, false), policies}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			in := strict()
			in.Chains[0].TLS, in.Chains[0].Match.TransportProtocol, in.Chains[0].Filters = nil, "raw_buffer", bb.filters
			listeners := inbound.New(inbound.Options{Source: served{in}, Hooks: &observe.Hooks{}})
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			if _, err := listeners.Listen(b.Context(), inner); err != nil {
				b.Fatal(err)
			}
			defer listeners.Close()
			served := 0
			handler := &Handler{Listeners: listeners, Hooks: &observe.Hooks{}, Next: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ })}
			req, err := http.NewRequestWithContext(context.WithValue(b.Context(), http.LocalAddrContextKey, inner.Addr()), http.MethodGet, "http://a/9/x", http.NoBody)
			if err != nil {
				b.Fatal(err)
			}
			req.RemoteAddr = "127.0.0.1:4000"
			req.Header.Set("X-Role", "admin")
			bearer := []string{"Bearer " + issuer.Token(nil)}
			w := &discarding{header: make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				req.Header["Authorization"] = bearer // the filter takes it away
				handler.ServeHTTP(w, req)
			}
			if served != b.N {
				b.Errorf("%d of %d were served", served, b.N)
			}
		})
	}
}
