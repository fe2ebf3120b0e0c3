package route

import (
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

func TestBU1_TheMostSpecificDomainWins(t *testing.T) {
	t.Parallel()
	every := []*discovery.Route{to("any", discovery.RouteMatch{})}
	vhosts := []*discovery.VirtualHost{
		host("everything", every, "*"),
		host("short prefix", every, "payment.*"),
		host("long prefix", every, "payment.shop.*"),
		host("short suffix", every, "*.com"),
		host("long suffix", every, "*.example.com"),
		host("dashed suffix", every, "*-v1.example.com"),
		host("exact", every, "Payment.Example.com", "payment.shop:8080"),
	}
	tests := []struct {
		name       string
		authority  string
		ignorePort bool
		want       string // the virtual host
	}{
		{name: "an exact domain before every wildcard", authority: "payment.example.com", want: "exact"},
		{name: "without regard to case", authority: "PAYMENT.example.COM", want: "exact"},
		{name: "a port is part of the domain", authority: "payment.shop:8080", want: "exact"},
		{name: "another port is another domain", authority: "payment.shop:81", want: "short prefix"},
		{name: "the longest suffix", authority: "a-v1.example.com", want: "dashed suffix"},
		{name: "the next longest suffix", authority: "order.example.com", want: "long suffix"},
		{name: "the shortest suffix", authority: "order.test.com", want: "short suffix"},
		{name: "a suffix before a longer prefix", authority: "payment.shop.com", want: "short suffix"},
		{name: "the longest prefix", authority: "payment.shop.svc", want: "long prefix"},
		{name: "the shortest prefix", authority: "payment.other", want: "short prefix"},
		{name: "a suffix wildcard stands for at least one character", authority: ".example.com", want: "short suffix"},
		{name: "and the shorter one too", authority: "-v1.example.com", want: "long suffix"},
		{name: "a prefix wildcard stands for at least one character", authority: "payment.", want: "everything"},
		{name: "the rest goes to the star", authority: "order", want: "everything"},
		{name: "an empty authority goes to the star", authority: "", want: "everything"},
		{name: "a port is ignored if the table says so", authority: "payment.example.com:8080", ignorePort: true, want: "exact"},
		{name: "then a domain with a port is not found", authority: "payment.shop:8080", ignorePort: true, want: "short prefix"},
		{name: "what is no port stays", authority: "payment.example.com:http", ignorePort: true, want: "short prefix"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := Compile(&discovery.RouteTable{VirtualHosts: vhosts, IgnorePortInHostMatching: tt.ignorePort})
			d, ok := table.Match(get(tt.authority, "/"))
			if !ok || d.VirtualHost.Name != tt.want {
				t.Errorf("Match(%q) = %+v, %t; want virtual host %q", tt.authority, d.VirtualHost, ok, tt.want)
			}
		})
	}
}

func TestStripPort(t *testing.T) {
	t.Parallel()
	for authority, want := range map[string]string{
		"":                  "",
		"payment":           "payment",
		"payment:80":        "payment",
		"payment:":          "payment",
		"payment:http":      "payment:http",
		"10.0.0.7:8080":     "10.0.0.7",
		"[2001:db8::1]":     "[2001:db8::1]",
		"[2001:db8::1]:443": "[2001:db8::1]",
	} {
		if got := stripPort(authority); got != want {
			t.Errorf("stripPort(%q) = %q, want %q", authority, got, want)
		}
	}
}

func TestBU9_NoRouteIsNoMatch(t *testing.T) {
	t.Parallel()
	onlyCharge := []*discovery.Route{to("charge", discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathExact, Value: "/charge"}})}
	tests := []struct {
		name   string
		vhosts []*discovery.VirtualHost
		req    *Request
	}{
		{name: "an empty table", req: get("payment", "/charge")},
		{name: "no virtual host", vhosts: []*discovery.VirtualHost{host("other", onlyCharge, "other")}, req: get("payment", "/charge")},
		{name: "no route of the virtual host", vhosts: []*discovery.VirtualHost{host("payment", onlyCharge, "payment")}, req: get("payment", "/refund")},
		{
			name: "the routes of another virtual host are not asked",
			vhosts: []*discovery.VirtualHost{
				host("payment", onlyCharge, "payment"),
				host("everything", []*discovery.Route{to("any", discovery.RouteMatch{})}, "*"),
			},
			req: get("payment", "/refund"),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if d, ok := Compile(&discovery.RouteTable{VirtualHosts: tt.vhosts}).Match(tt.req); ok {
				t.Errorf("Match() = %+v, want none", d)
			}
		})
	}
}

func TestDecisionNamesEverythingThatWasChosen(t *testing.T) {
	t.Parallel()
	route := to("v1", discovery.RouteMatch{})
	table := &discovery.RouteTable{Name: "payment", VirtualHosts: []*discovery.VirtualHost{host("payment", []*discovery.Route{route}, "*")}}
	d, ok := Compile(table).Match(get("payment", "/"))
	if !ok || d.Table != table || d.VirtualHost != table.VirtualHosts[0] || d.Route != route || d.Cluster != &route.Forward.Clusters[0] {
		t.Errorf("Match() = %+v, %t", d, ok)
	}
}

func TestOnlyForwardingRoutesHaveACluster(t *testing.T) {
	t.Parallel()
	for name, route := range map[string]*discovery.Route{
		"direct response": {Direct: &discovery.DirectResponse{Status: 200}},
		"redirect":        {Redirect: &discovery.Redirect{Status: 301}},
		"local":           {Local: true},
	} {
		d, ok := matching(route).Match(get("payment", "/"))
		if !ok || d.Route != route || d.Cluster != nil {
			t.Errorf("%s: Match() = %+v, %t", name, d, ok)
		}
	}
}
