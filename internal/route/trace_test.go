package route

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
)

func TestATraceAgreesWithTheMatch(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	found, missed := 0, 0
	for range 200 {
		text := randomTable(r)
		source := parseTable(text)
		source.IgnorePortInHostMatching = r.IntN(2) == 0
		for _, vh := range source.VirtualHosts {
			for _, route := range vh.Routes {
				switch r.IntN(6) {
				case 0:
					route.Match.PerMillion = new(uint32(r.IntN(3) * 500_000))
				case 1:
					route.Match.Query = []discovery.QueryMatch{{Name: "q", AnyValue: r.IntN(2) == 0}}
				}
			}
		}
		table := Compile(source)
		for range 40 {
			req := get(someOf(r, domainPieces, 3), someOf(r, pathPieces, 4))
			req.Header = headers{"x-user": {strconv.Itoa(r.IntN(4))}}
			req.Query = []string{"", "q=1", "q"}[r.IntN(3)]
			// The same numbers are drawn for both.
			draws := r.Uint64()
			table.random = rand.New(rand.NewPCG(draws, 0)).Uint64N
			d, ok := table.Match(req)
			table.random = rand.New(rand.NewPCG(draws, 0)).Uint64N
			trace := table.Trace(req)
			if trace.OK != ok || trace.Decision != d {
				t.Fatalf("%s%s took %+v, the trace says %+v, in\n%s", req.Host, req.Path, d, trace.Decision, text)
			}
			if trace.Host == nil {
				missed++
				continue
			}
			found++
			want := trace.Index
			if !ok {
				want = len(trace.Host.Routes)
			}
			if len(trace.Misses) != want {
				t.Fatalf("%d routes are said not to match, want %d", len(trace.Misses), want)
			}
			if !domainListed(trace.Host.Domains, trace.Domain) {
				t.Fatalf("domain %q is none of %q", trace.Domain, trace.Host.Domains)
			}
		}
	}
	if found == 0 || missed == 0 {
		t.Errorf("%d hosts were found and %d not: the test shows too little", found, missed)
	}
}

func domainListed(domains []string, domain string) bool {
	return slices.ContainsFunc(domains, func(d string) bool { return lower(d) == domain })
}

func TestATraceSaysWhyARouteDidNotMatch(t *testing.T) {
	t.Parallel()
	exact := func(value string) discovery.StringMatch { return discovery.StringMatch{Value: value} }
	tests := []struct {
		name  string
		match discovery.RouteMatch
		want  Miss
	}{
		{
			"another path", discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathExact, Value: "/b", IgnoreCase: true}},
			Miss{Condition: "path", Want: `exact "/b" in any case`, Got: `"/a"`},
		},
		{
			"a path that an expression does not match", discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathRegex, Regex: regex(t, "/b.*")}},
			Miss{Condition: "path", Want: `regex "/b.*"`, Got: `"/a"`},
		},
		{
			"another header", discovery.RouteMatch{Headers: []discovery.HeaderMatch{{Name: "x-user", String: exact("eve")}}},
			Miss{Condition: "header x-user", Name: "x-user", Want: `exact "eve"`, Got: `"ann,bob"`},
		},
		{
			"a header that is not there", discovery.RouteMatch{Headers: []discovery.HeaderMatch{{Name: "x-none", Kind: discovery.HeaderPresent, Present: true}}},
			Miss{Condition: "header x-none", Name: "x-none", Want: "present", Got: absent},
		},
		{
			"a header that must not be there", discovery.RouteMatch{Headers: []discovery.HeaderMatch{{Name: "x-user", Kind: discovery.HeaderPresent}}},
			Miss{Condition: "header x-user", Name: "x-user", Want: "absent", Got: `"ann,bob"`},
		},
		{
			"a number out of a range", discovery.RouteMatch{Headers: []discovery.HeaderMatch{{Name: "x-n", Kind: discovery.HeaderRange, Start: 1, End: 7}}},
			Miss{Condition: "header x-n", Name: "x-n", Want: "in [1, 7)", Got: `"7"`},
		},
		{
			"another method", discovery.RouteMatch{Headers: []discovery.HeaderMatch{{Name: ":method", String: exact("POST")}}},
			Miss{Condition: "header :method", Name: ":method", Want: `exact "POST"`, Got: `"GET"`},
		},
		{
			"the second of two conditions", discovery.RouteMatch{Headers: []discovery.HeaderMatch{
				{Name: "x-n", String: exact("7")}, {Name: "x-n", String: exact("7"), Invert: true},
			}},
			Miss{Condition: "header x-n", Name: "x-n", Want: `not exact "7"`, Got: `"7"`},
		},
		{
			"another parameter", discovery.RouteMatch{Query: []discovery.QueryMatch{{Name: "v", String: exact("2")}}},
			Miss{Condition: "query v", Name: "v", Want: `exact "2"`, Got: `"1"`},
		},
		{
			"a parameter that is not there", discovery.RouteMatch{Query: []discovery.QueryMatch{{Name: "w", AnyValue: true}}},
			Miss{Condition: "query w", Name: "w", Want: "present", Got: absent},
		},
		{
			"another cookie", discovery.RouteMatch{Cookies: []discovery.CookieMatch{{Name: "c", String: exact("2")}}},
			Miss{Condition: "cookie c", Name: "c", Want: `exact "2"`, Got: `"1"`},
		},
		{
			"what no filter has left", discovery.RouteMatch{Metadata: []discovery.MetadataMatch{{Filter: "jwt", Path: []string{"payload", "role"}}}},
			Miss{Condition: "metadata jwt:payload:role", Name: "jwt:payload:role", Want: "what filters leave", Got: "(hidden)"},
		},
		{
			"no gRPC", discovery.RouteMatch{GRPC: true},
			Miss{Condition: "grpc", Want: "a gRPC request", Got: "content-type " + absent},
		},
		{
			"chance", discovery.RouteMatch{PerMillion: new(uint32(2500))},
			Miss{Condition: "fraction", Want: "0.25% of the requests", Got: "not this one"},
		},
	}
	req := &Request{
		Method: http.MethodGet, Scheme: "http", Host: "payment", Path: "/a", Query: "v=1",
		Header: headers{"x-user": {"ann", "bob"}, "x-n": {"7"}, "cookie": {"c=1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := matching(to("first", tt.match), to("rest", discovery.RouteMatch{}))
			table.random = func(n uint64) uint64 { return n - 1 }
			trace := table.Trace(req)
			if trace.Decision.Route == nil || trace.Decision.Route.Name != "rest" || trace.Index != 1 {
				t.Fatalf("took %+v", trace.Decision.Route)
			}
			if diff := cmp.Diff([]Miss{tt.want}, trace.Misses); diff != "" {
				t.Errorf("misses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestATraceTellsTheDraw(t *testing.T) {
	t.Parallel()
	split := func(forward discovery.Forward) *Table {
		forward.Clusters = []discovery.WeightedCluster{{Name: "a", Weight: 30}, {Name: "b", Weight: 70}}
		return matching(&discovery.Route{Name: "split", Forward: &forward})
	}
	req := get("payment", "/")
	req.Header = headers{"x-draw": {"131"}}
	tests := []struct {
		name    string
		forward discovery.Forward
		draws   Draws
		number  uint64
		cluster string
	}{
		{"at random", discovery.Forward{}, AtRandom, 29, "a"},
		{"by a header", discovery.Forward{WeightHeader: "x-draw"}, ByHeader, 31, "b"},
		{"by a header that is not there", discovery.Forward{WeightHeader: "x-none"}, AtRandom, 29, "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := split(tt.forward)
			table.random = func(uint64) uint64 { return 29 }
			trace := table.Trace(req)
			if trace.Draws != tt.draws || trace.Number != tt.number || trace.Total != 100 || trace.Decision.Cluster.Name != tt.cluster {
				t.Errorf("got draw %d, number %d of %d, cluster %q", trace.Draws, trace.Number, trace.Total, trace.Decision.Cluster.Name)
			}
		})
	}
}
