package httpmesh

import (
	"net/http"
	"regexp"
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

// TestS30_HeaderMutationsAtFourLevels sends a request through a cluster, a route, a
// virtual host and a table, each of which changes its headers, and those of the
// response.
func TestS30_HeaderMutationsAtFourLevels(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		specificWins bool
		want         map[string][]string
	}{
		{
			name: "the outer level wins",
			want: map[string][]string{
				"X-Set": {"table"}, "X-Append": {"old", "cluster", "route", "host", "table"}, "X-Absent": {"cluster"}, "X-Old": {"table"}, "X-Gone": nil, "X-Never": nil,
			},
		},
		{
			name: "the most specific level wins", specificWins: true,
			want: map[string][]string{
				"X-Set": {"cluster"}, "X-Append": {"old", "table", "host", "route", "cluster"}, "X-Absent": {"table"}, "X-Old": {"cluster"}, "X-Gone": nil, "X-Never": nil,
			},
		},
	}
	mutations := func(level string) discovery.HeaderMutations {
		add := []discovery.HeaderValue{
			{Name: "x-set", Value: level, Action: discovery.OverwriteIfExistsOrAdd},
			{Name: "x-append", Value: level},
			{Name: "x-absent", Value: level, Action: discovery.AddIfAbsent},
			{Name: "x-old", Value: level, Action: discovery.OverwriteIfExists},
			{Name: "x-never", Value: level, Action: discovery.OverwriteIfExists},
		}
		remove := []string{"x-gone"}
		return discovery.HeaderMutations{RequestAdd: add, RequestRemove: remove, ResponseAdd: add, ResponseRemove: remove}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				var sent http.Header
				w := newWorld(t, newTarget(protocol, func(target *discovery.Target) {
					table := target.Routes
					table.MostSpecificHeaderMutationsWins = tt.specificWins
					table.Headers, table.VirtualHosts[0].Headers = mutations("table"), mutations("host")
					top(target).Headers, top(target).Forward.Clusters[0].Headers = mutations("route"), mutations("cluster")
				}), func(rw http.ResponseWriter, r *http.Request) {
					sent = r.Header.Clone()
					for _, name := range []string{"X-Append", "X-Old", "X-Gone"} {
						rw.Header().Set(name, "old")
					}
				})
				req := newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)
				for _, name := range []string{"X-Append", "X-Old", "X-Gone"} {
					req.Header.Set(name, "old")
				}
				resp := w.do(req)
				readAll(t, resp)
				for name, want := range tt.want {
					if got := sent.Values(name); !slices.Equal(got, want) {
						t.Errorf("request %s: %q, want %q", name, got, want)
					}
					if got := resp.Header.Values(name); !slices.Equal(got, want) {
						t.Errorf("response %s: %q, want %q", name, got, want)
					}
				}
			})
		})
	}
}

// TestS31_RewritesKeepQueriesAndEscapes looks at the target that an upstream gets.
func TestS31_RewritesKeepQueriesAndEscapes(t *testing.T) {
	t.Parallel()
	prefix := func(match, by string) func(*discovery.Target) {
		return func(target *discovery.Target) {
			top(target).Match.Path.Value, top(target).Forward.PrefixRewrite = match, by
		}
	}
	expression := func(match, by string) func(*discovery.Target) {
		return func(target *discovery.Target) {
			top(target).Forward.PathSubstitution = &discovery.Substitution{Program: regexp.MustCompile(match), Replacement: by}
		}
	}
	tests := []struct {
		name   string
		edit   func(*discovery.Target)
		target string
		want   string
	}{
		{name: "a prefix", edit: prefix("/a", "/b"), target: "/a/c?q=1", want: "/b/c?q=1"},
		{name: "a prefix in the query stays", edit: prefix("/a", "/b"), target: "/a?u=/a/x", want: "/b?u=/a/x"},
		{name: "escapes of the rest stay", edit: prefix("/a", "/b"), target: "/a/x%2Fy%20z/%C3%A9?q=%2F%26+%20", want: "/b/x%2Fy%20z/%C3%A9?q=%2F%26+%20"},
		{name: "an escape in the prefix is compared as it is", edit: prefix("/a%2Fb", "/c"), target: "/a%2Fb/d?", want: "/c/d?"},
		{name: "a prefix to the root", edit: prefix("/a/", "/"), target: "/a/c?q=%25", want: "/c?q=%25"},
		{name: "a prefix that brings a query", edit: prefix("/a", "/b?x=1 2"), target: "/a/c?q=%2F", want: "/b?x=1%202/c?q=%2F"},
		{name: "a text that is no path, before escapes", edit: prefix("/a/", `/{id}|<"\^`+"`>/"), target: "/a/..%2F..%2Fadmin", want: "/%7Bid%7D%7C%3C%22%5C%5E%60%3E/..%2F..%2Fadmin"},
		{name: "a per cent sign that escapes nothing, before escapes", edit: prefix("/a/", "/100%/50%2/%2F%x/"), target: "/a/x%2Fy", want: "/100%25/50%252/%2F%25x/x%2Fy"},
		{name: "letters beyond ASCII, by an expression", edit: expression("^/v1/(.*)$", "/\u00e9/$1"), target: "/v1/a%2Fb", want: "/%C3%A9/a%2Fb"},
		{name: "an expression", edit: expression("^/v1/(.*)$", "/v2/$1"), target: "/v1/a%2Fb?v1=/v1/", want: "/v2/a%2Fb?v1=/v1/"},
		{name: "every match of an expression", edit: expression("one", "two"), target: "/one/one?one=one", want: "/two/two?one=one"},
		{name: "groups change places", edit: expression("^/([^/]+)/([^/]+)", "/$2/$1"), target: "/a%3Fb/c;d?x", want: "/c;d/a%3Fb?x"},
		{name: "an expression that does not match", edit: expression("^/v1/", "/v2/"), target: "/v3/a?b", want: "/v3/a?b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				var got, original string
				w := newWorld(t, newTarget(protocol, tt.edit), func(_ http.ResponseWriter, r *http.Request) {
					got, original = r.RequestURI, r.Header.Get("X-Envoy-Original-Path")
				})
				readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, "http://payment.shop"+tt.target, nil)))
				if got != tt.want {
					t.Errorf("the upstream gets %q, want %q", got, tt.want)
				}
				wantOriginal := tt.target
				if tt.want == tt.target {
					wantOriginal = ""
				}
				if original != wantOriginal && original+"?" != wantOriginal {
					t.Errorf("the original is %q, want %q", original, wantOriginal)
				}
			})
		})
	}
}
