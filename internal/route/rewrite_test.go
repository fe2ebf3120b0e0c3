package route

import (
	"regexp"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

func TestBU5_PrefixRewrite(t *testing.T) {
	t.Parallel()
	exact := discovery.PathMatch{Kind: discovery.PathExact, Value: "/charge"}
	prefix := discovery.PathMatch{Value: "/charge"}
	separated := discovery.PathMatch{Kind: discovery.PathSeparatedPrefix, Value: "/charge"}
	tests := []struct {
		name    string
		match   discovery.PathMatch
		rewrite string
		path    string
		want    string // "" if the path stays
		query   string // "" if the query stays
	}{
		{name: "without a rewrite the path stays", match: prefix, path: "/charge/card"},
		{name: "a prefix is replaced and the rest kept", match: prefix, rewrite: "/v2", path: "/charge/card", want: "/v2/card"},
		{name: "also within a segment", match: prefix, rewrite: "/v2", path: "/charges", want: "/v2s"},
		{name: "the rest may be empty", match: prefix, rewrite: "/v2", path: "/charge", want: "/v2"},
		{name: "only the first occurrence", match: prefix, rewrite: "/v2", path: "/charge/charge", want: "/v2/charge"},
		{name: "escapes in the rest are kept", match: prefix, rewrite: "/v2", path: "/charge/a%2Fb%20c", want: "/v2/a%2Fb%20c"},
		{name: "slashes are not cleaned", match: prefix, rewrite: "/", path: "/charge/card", want: "//card"},
		{name: "a separated prefix", match: separated, rewrite: "/v2", path: "/charge/card", want: "/v2/card"},
		{name: "an exact path is replaced whole", match: exact, rewrite: "/v2", path: "/charge", want: "/v2"},
		{
			name:    "the case of what was matched does not matter",
			match:   discovery.PathMatch{Value: "/charge", IgnoreCase: true},
			rewrite: "/v2", path: "/CHARGE/Card", want: "/v2/Card",
		},
		{
			name:    "what a regular expression matched is replaced whole",
			match:   discovery.PathMatch{Kind: discovery.PathRegex, Regex: regex(t, "/charge.*")},
			rewrite: "/v2", path: "/charge/card", want: "/v2",
		},
		{
			name:    "what a template matched is replaced whole",
			match:   discovery.PathMatch{Kind: discovery.PathTemplate, Regex: regex(t, "/charge.*")},
			rewrite: "/v2", path: "/charge/card", want: "/v2",
		},
		{name: "a path begins with a slash", match: prefix, rewrite: "v2", path: "/charge", want: "/v2"},
		{name: "a query is before the request's, as text", match: prefix, rewrite: "/v2?tier=a b", path: "/charge/card", want: "/v2", query: "tier=a%20b/card?a=b"},
		{name: "a query without a path that changes", match: exact, rewrite: "/charge?tier=1", path: "/charge", want: "/charge", query: "tier=1?a=b"},
		{name: "what cannot be sent is escaped", match: prefix, rewrite: "/v2#a b", path: "/charge", want: "/v2%23a%20b"},
		{name: "the path that was there is no change", match: prefix, rewrite: "/charge", path: "/charge/card"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			route := to("v1", discovery.RouteMatch{Path: tt.match})
			route.Forward.PrefixRewrite = tt.rewrite
			req, h := get("payment", tt.path), headers{}
			req.Query = "a=b"
			d, ok := matching(route).Match(req)
			if !ok {
				t.Fatal("no match")
			}
			out := d.Forward(h, req, &Facts{}, false)
			if out.Path != tt.want {
				t.Errorf("path %q became %q, want %q", tt.path, out.Path, tt.want)
			}
			if out.Query != tt.query {
				t.Errorf("query %q, want %q", out.Query, tt.query)
			}
			told := ""
			if tt.want != "" {
				told = "x-envoy-original-path: " + tt.path + "?a=b"
			}
			if got := h.lines(); got != told {
				t.Errorf("headers %q, want %q", got, told)
			}
		})
	}
}

func substitution(source, replacement string) *discovery.Substitution {
	return &discovery.Substitution{Program: regexp.MustCompile(source), Replacement: replacement}
}

// forwarded applies a route to a request.
func forwarded(req *Request, h headers, hide bool, change func(*discovery.Route)) Outgoing {
	route := to("v1", discovery.RouteMatch{})
	change(route)
	req.Header = h
	d, _ := matching(route).Match(req)
	return d.Forward(h, req, &Facts{}, hide)
}

func TestBU5_PathsByExpressionAndFormat(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*discovery.Forward)
		want   string
	}{
		{
			name:   "an expression replaces what it matches",
			change: func(f *discovery.Forward) { f.PathSubstitution = substitution("^/pay/([^/]+)", "/${1}/v2") },
			want:   "/charge/v2/7",
		},
		{
			name:   "an expression that does not match keeps the path",
			change: func(f *discovery.Forward) { f.PathSubstitution = substitution("^/refund", "/x") },
		},
		{
			name:   "what is left of a path is one",
			change: func(f *discovery.Forward) { f.PathSubstitution = substitution(".*", "") },
			want:   "/",
		},
		{
			name:   "a format",
			change: func(f *discovery.Forward) { f.PathFormat = format(t, "/users/%REQ(x-user)%/") },
			want:   "/users/ada%20l/",
		},
		{
			name:   "an empty format keeps the path",
			change: func(f *discovery.Forward) { f.PathFormat = format(t, "%REQ(x-none)%") },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out := forwarded(get("payment", "/pay/charge/7"), headers{"x-user": {"ada l"}}, false, func(r *discovery.Route) { tt.change(r.Forward) })
			if out.Path != tt.want {
				t.Errorf("path %q, want %q", out.Path, tt.want)
			}
		})
	}
}

func TestBU5_HostRewrites(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		change   func(*discovery.Forward)
		want     string // "" if the host stays
		endpoint bool
	}{
		{name: "none", change: func(*discovery.Forward) {}},
		{name: "a literal", change: func(f *discovery.Forward) { f.HostRewrite = "v1.shop" }, want: "v1.shop"},
		{name: "the same", change: func(f *discovery.Forward) { f.HostRewrite = "payment" }},
		{name: "a header", change: func(f *discovery.Forward) { f.HostFrom = &discovery.HostSource{Header: "x-host"} }, want: "a.shop:80"},
		{name: "a header that is not there", change: func(f *discovery.Forward) { f.HostFrom = &discovery.HostSource{Header: "x-none"} }},
		{name: "a header that is no host", change: func(f *discovery.Forward) { f.HostFrom = &discovery.HostSource{Header: "x-user"} }},
		{name: "a header with a path", change: func(f *discovery.Forward) { f.HostFrom = &discovery.HostSource{Header: "x-url"} }},
		{
			name: "the path",
			change: func(f *discovery.Forward) {
				f.HostFrom = &discovery.HostSource{Path: substitution("^/([^/]+).*$", "${1}.shop")}
			},
			want: "charge.shop",
		},
		{
			name:   "a path without a host",
			change: func(f *discovery.Forward) { f.HostFrom = &discovery.HostSource{Path: substitution(".*", "")} },
		},
		{name: "the endpoint", change: func(f *discovery.Forward) { f.HostFrom = &discovery.HostSource{Endpoint: true} }, endpoint: true},
		{
			name: "the cluster before the route",
			change: func(f *discovery.Forward) {
				f.HostRewrite = "route.shop"
				f.Clusters[0].HostRewrite = "cluster.shop"
			},
			want: "cluster.shop",
		},
		{
			name: "the cluster before the endpoint",
			change: func(f *discovery.Forward) {
				f.HostFrom = &discovery.HostSource{Endpoint: true}
				f.Clusters[0].HostRewrite = "cluster.shop"
			},
			want: "cluster.shop",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := headers{"x-host": {"a.shop:80"}, "x-user": {"ada l"}, "x-url": {"a/b"}}
			before := h.lines()
			out := forwarded(get("payment", "/charge/7"), h, false, func(r *discovery.Route) { tt.change(r.Forward) })
			if out.Host != tt.want || out.EndpointHost != tt.endpoint {
				t.Errorf("got %+v, want host %q, of the endpoint %t", out, tt.want, tt.endpoint)
			}
			want := before
			if tt.want != "" || tt.endpoint {
				want = "x-envoy-original-host: payment\n" + before
			}
			if got := h.lines(); got != want {
				t.Errorf("headers:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// Nothing that a caller says of a rewrite is passed on in the place of what
// happened.
func TestBU5_OriginalsAreWhatHappened(t *testing.T) {
	t.Parallel()
	rewrite := func(r *discovery.Route) {
		r.Forward.PrefixRewrite, r.Forward.HostRewrite, r.Forward.AppendForwardedHost = "/v2", "v1.shop", true
	}
	h := headers{"x-envoy-original-path": {"/forged"}, "x-envoy-original-host": {"forged"}, "x-forwarded-host": {"edge"}}
	forwarded(get("payment", "/charge"), h, false, rewrite)
	if got, want := h.lines(), `x-envoy-original-host: payment
x-envoy-original-path: /charge
x-forwarded-host: edge
x-forwarded-host: payment`; got != want {
		t.Errorf("headers:\n%s\nwant:\n%s", got, want)
	}
	h = headers{"x-forwarded-host": {"edge, payment"}}
	forwarded(get("payment", "/charge"), h, true, rewrite)
	if got, want := h.lines(), "x-forwarded-host: edge, payment"; got != want {
		t.Errorf("hidden: headers:\n%s\nwant:\n%s", got, want)
	}
}

// The operations on headers come first: a rewrite sees what they made.
func TestBU5_RewritesSeeTheHeadersOfTheRoute(t *testing.T) {
	t.Parallel()
	out := forwarded(get("payment", "/charge"), headers{}, false, func(r *discovery.Route) {
		r.Headers.RequestAdd = []discovery.HeaderValue{{Name: "x-host", Value: "made.shop"}}
		r.Forward.HostFrom = &discovery.HostSource{Header: "x-host"}
	})
	if out.Host != "made.shop" {
		t.Errorf("host %q", out.Host)
	}
}

func TestRoutesThatDoNotForwardRewriteNothing(t *testing.T) {
	t.Parallel()
	d := Decision{Table: &discovery.RouteTable{}, VirtualHost: &discovery.VirtualHost{}, Route: &discovery.Route{Local: true}}
	if got := d.Forward(headers{}, get("payment", "/charge"), &Facts{}, false); got != (Outgoing{}) {
		t.Errorf("Forward() = %+v", got)
	}
}
