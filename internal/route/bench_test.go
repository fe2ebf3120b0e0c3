package route

import (
	"fmt"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/cputime"
)

// tables are the shapes of tables whose cost must not grow with their size, each
// with the request that the last of their routes takes.
var tables = []struct {
	name string
	make func(n int) (*discovery.RouteTable, *Request)
}{
	{name: "exact", make: func(n int) (*discovery.RouteTable, *Request) {
		return oneHost(n, discovery.PathExact), get("payment.shop:8080", path(n-1))
	}},
	{name: "prefix", make: func(n int) (*discovery.RouteTable, *Request) {
		return oneHost(n, discovery.PathPrefix), get("payment.shop:8080", path(n-1)+"/card/7")
	}},
	{name: "separated", make: func(n int) (*discovery.RouteTable, *Request) {
		return oneHost(n, discovery.PathSeparatedPrefix), get("payment.shop:8080", path(n-1)+"/card/7")
	}},
	{name: "hosts", make: func(n int) (*discovery.RouteTable, *Request) {
		table := &discovery.RouteTable{}
		for i := range n {
			domain := fmt.Sprintf("*.s%d.shop", i)
			table.VirtualHosts = append(table.VirtualHosts, host(domain, []*discovery.Route{to(domain, discovery.RouteMatch{})}, domain))
		}
		return table, get(fmt.Sprintf("payment.s%d.shop", n-1), "/charge")
	}},
}

func path(i int) string { return fmt.Sprintf("/api/v1/service-%d/charge", i) }

func oneHost(n int, kind discovery.PathMatchKind) *discovery.RouteTable {
	routes := make([]*discovery.Route, n)
	for i := range routes {
		routes[i] = to(path(i), discovery.RouteMatch{Path: discovery.PathMatch{Kind: kind, Value: path(i)}})
	}
	return &discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{host("payment", routes, "payment.shop", "payment.shop:8080")}}
}

var benchSizes = []int{10, 100, 1000, 10_000}

func BenchmarkMatch(b *testing.B) {
	for _, shape := range tables {
		for _, n := range benchSizes {
			source, req := shape.make(n)
			b.Run(fmt.Sprintf("%s/routes=%d", shape.name, n), func(b *testing.B) {
				table := Compile(source)
				cputime.Loop(b, func() {
					if _, ok := table.Match(req); !ok {
						b.Fatal("no match")
					}
				})
			})
		}
	}
}

// BenchmarkMatchLinear is what BenchmarkMatch measures, one route after the
// other.
func BenchmarkMatchLinear(b *testing.B) {
	for _, shape := range tables {
		for _, n := range benchSizes {
			source, req := shape.make(n)
			b.Run(fmt.Sprintf("%s/routes=%d", shape.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if reference(source, req) == nil {
						b.Fatal("no match")
					}
				}
			})
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	source, _ := tables[1].make(10_000)
	b.ReportAllocs()
	for b.Loop() {
		Compile(source)
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	for _, shape := range tables {
		source, req := shape.make(1000)
		table := Compile(source)
		if got := testing.AllocsPerRun(100, func() { table.Match(req) }); got > 0 {
			t.Errorf("%s: %v allocations", shape.name, got)
		}
	}
}
