package route

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

// Paths and domains are made of few pieces, so that most requests are matched by
// several routes of each kind.
var (
	pathPieces   = []string{"/", "/a", "/b", "a", "b", "A", "/ab", "/a/b", "é", "É", "%41"}
	domainPieces = []string{"a", "b", ".a", ".b", "-", "shop", "A"}
)

func someOf(r *rand.Rand, pieces []string, most int) string {
	var b strings.Builder
	for range r.IntN(most + 1) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

// randomTable is the text of a table, as parseTable reads it.
func randomTable(r *rand.Rand) string {
	kinds := []string{"prefix", "exact", "separated", "PREFIX", "EXACT", "SEPARATED", "regex"}
	var b strings.Builder
	for i := range 1 + r.IntN(4) {
		b.WriteString("host h" + strconv.Itoa(i))
		for range 1 + r.IntN(4) {
			domain := someOf(r, domainPieces, 3)
			switch r.IntN(4) {
			case 0:
				domain = "*" + domain
			case 1:
				domain += "*"
			}
			b.WriteString(" " + domain)
		}
		b.WriteString("\n")
		for range r.IntN(60) {
			kind, value := kinds[r.IntN(len(kinds))], someOf(r, pathPieces, 3)
			if kind == "regex" {
				value += []string{"", ".*", "[a-b]*"}[r.IntN(3)]
			}
			b.WriteString(kind + " " + value)
			if r.IntN(3) > 0 {
				b.WriteString(" x-user=" + strconv.Itoa(r.IntN(3)))
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func TestBU1_AndBU2_TheCompiledTableAnswersAsALinearOne(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	found := 0
	for range 300 {
		text := randomTable(r)
		source := parseTable(text)
		source.IgnorePortInHostMatching = r.IntN(2) == 0
		table := Compile(source)
		for range 40 {
			req := get(someOf(r, domainPieces, 3), someOf(r, pathPieces, 4))
			if r.IntN(4) == 0 {
				req.Host += ":80"
			}
			req.Header = headers{"x-user": {strconv.Itoa(r.IntN(4))}}
			want := reference(source, req)
			d, ok := table.Match(req)
			if ok != (want != nil) || ok && d.Route != want {
				t.Fatalf("%s%s took %+v, %t; the reference says %+v, in\n%s", req.Host, req.Path, d.Route, ok, want, text)
			}
			if ok {
				found++
			}
		}
	}
	if found == 0 {
		t.Error("no request was matched: the test shows nothing")
	}
}

// A route that draws is asked once at most, whatever list it is found by: its
// share does not depend on what stands beside it.
func TestBU2_AShareIsDrawnOncePerRoute(t *testing.T) {
	t.Parallel()
	half := new(uint32(500_000))
	routes := []*discovery.Route{
		to("exact", discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathExact, Value: "/a"}, PerMillion: half}),
		to("prefix", discovery.RouteMatch{Path: discovery.PathMatch{Value: "/a"}, PerMillion: half}),
		to("folded", discovery.RouteMatch{Path: discovery.PathMatch{Value: "/A", IgnoreCase: true}, PerMillion: half}),
		to("regex", discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathRegex, Regex: regex(t, ".*")}, PerMillion: half}),
		to("rest", discovery.RouteMatch{}),
	}
	const draws = 40_000
	counts := make(map[string]int)
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {3, 2, 1, 0, 4}, {2, 0, 3, 1, 4}} {
		clear(counts)
		var ordered []*discovery.Route
		for _, i := range order {
			ordered = append(ordered, routes[i])
		}
		table := matching(ordered...)
		seed := rand.Uint64()
		table.random = rand.New(rand.NewPCG(seed, 0)).Uint64N
		for range draws {
			counts[chosen(table, get("payment", "/a"))]++
		}
		share := 0.5
		for i, r := range ordered {
			if i == len(ordered)-1 {
				share *= 2 // what is left
			}
			checkShare(t, seed, r.Name, counts[r.Name], draws, share)
			share /= 2
		}
	}
}
