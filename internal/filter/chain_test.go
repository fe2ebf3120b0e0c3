package filter_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// script is a filter that does what a test says.
type script func(x *filter.Exchange) (*filter.Answer, error)

func (s script) Request(_ context.Context, x *filter.Exchange) (*filter.Answer, error) { return s(x) }

// merging is a filter whose overrides are not complete by themselves.
type merging struct {
	script
	override func(discovery.FilterConfig) (filter.Filter, error)
}

func (m merging) Override(c discovery.FilterConfig) (filter.Filter, error) { return m.override(c) }

// builder builds what is listed.
type builder map[discovery.FilterConfig]filter.Filter

func (b builder) build(config discovery.FilterConfig) (filter.Filter, error) {
	if f := b[config]; f != nil {
		return f, nil
	}
	return nil, errors.New("not supported")
}

// config returns a configuration that is different from all others.
func config() discovery.FilterConfig { return &discovery.Fault{MaxActive: 1} }

func table(routes ...*discovery.Route) *discovery.RouteTable {
	return &discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}}
}

func local(prefix string) *discovery.Route {
	return &discovery.Route{Name: prefix, Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: prefix}}, Local: true}
}

type headers map[string][]string

func (h headers) Values(name string) []string { return h[name] }
func (h headers) Set(name, value string)      { h[name] = []string{value} }
func (h headers) Add(name, value string)      { h[name] = append(h[name], value) }
func (h headers) Del(name string)             { delete(h, name) }

func run(t *testing.T, source *discovery.RouteTable, filters []discovery.HTTPFilter, b builder) (*filter.Exchange, *filter.Answer) {
	t.Helper()
	c, err := filter.Compile(filters, source, b.build)
	if err != nil {
		t.Fatal(err)
	}
	routes := route.Compile(source)
	h := headers{}
	x := &filter.Exchange{Request: route.Request{Method: "GET", Host: "a", Path: "/x", Header: h}, Headers: h, Routes: routes}
	x.Decision, _ = routes.Match(&x.Request)
	answer, err := c.Run(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	return x, answer
}

func TestFiltersRunInOrderUntilOneAnswers(t *testing.T) {
	t.Parallel()
	var ran []string
	step := func(name string, answer *filter.Answer) filter.Filter {
		return script(func(x *filter.Exchange) (*filter.Answer, error) {
			ran = append(ran, name)
			x.Respond(func(status int, h route.HeaderMap) { h.Add("x-order", fmt.Sprint(name, status)) })
			return answer, nil
		})
	}
	a, b, c := config(), config(), config()
	x, answer := run(t, table(local("/")),
		[]discovery.HTTPFilter{{Name: "a", Config: a}, {Name: "b", Config: b}, {Name: "c", Config: c}},
		builder{a: step("a", nil), b: step("b", &filter.Answer{Status: 403}), c: step("c", nil)})
	if !slices.Equal(ran, []string{"a", "b"}) || answer == nil || answer.Status != 403 {
		t.Errorf("%v ran, the answer is %+v", ran, answer)
	}
	h := headers{}
	x.Response(403, h)
	if got := h["x-order"]; !slices.Equal(got, []string{"b403", "a403"}) {
		t.Errorf("the response has %v", got)
	}
}

func TestMetadataOfOneFilterRoutesForTheNext(t *testing.T) {
	t.Parallel()
	first, second := config(), config()
	source := table(local("/admin"), local("/"))
	x, _ := run(t, source, []discovery.HTTPFilter{{Name: "jwt", Config: first}, {Name: "rbac", Config: second}}, builder{
		first: script(func(x *filter.Exchange) (*filter.Answer, error) {
			x.SetMetadata("jwt", map[string]any{"role": "admin", "sub": "x"})
			x.SetMetadata("jwt", map[string]any{"sub": "y"})
			x.Path = "/admin"
			x.ClearRoute()
			return nil, nil
		}),
		second: script(func(x *filter.Exchange) (*filter.Answer, error) {
			x.Headers.Set("x-seen", fmt.Sprint(x.Metadata["jwt"]["role"], x.Metadata["jwt"]["sub"], x.Decision.Route.Name))
			return nil, nil
		}),
	})
	if got := x.Header.Values("x-seen"); !slices.Equal(got, []string{"adminy/admin"}) {
		t.Errorf("the second filter saw %v", got)
	}
}

func TestFiltersRunWithoutARoute(t *testing.T) {
	t.Parallel()
	c := config()
	x, _ := run(t, table(local("/other")), []discovery.HTTPFilter{{Name: "a", Config: c}}, builder{
		c: script(func(x *filter.Exchange) (*filter.Answer, error) {
			x.Headers.Set("x-ran", "yes")
			return nil, nil
		}),
	})
	if x.Decision.Route != nil || x.Header.Values("x-ran") == nil {
		t.Errorf("route %v, headers %v", x.Decision.Route, x.Header)
	}
}

func TestARouteOverridesAFilter(t *testing.T) {
	t.Parallel()
	saw := func(what string) filter.Filter {
		return script(func(x *filter.Exchange) (*filter.Answer, error) {
			x.Headers.Add("x-saw", what)
			return nil, nil
		})
	}
	listener, vhost, ofRoute, merged := config(), config(), config(), config()
	b := builder{
		listener: saw("listener"), vhost: saw("virtual host"), ofRoute: saw("route"),
	}
	withMerge := builder{listener: merging{script: func(*filter.Exchange) (*filter.Answer, error) { return nil, nil }, override: func(c discovery.FilterConfig) (filter.Filter, error) {
		if c == merged {
			return saw("merged"), nil
		}
		return nil, errors.New("unknown requirement")
	}}}
	for _, tt := range []struct {
		name         string
		b            builder
		disabled     bool
		vhost, route map[string]discovery.FilterOverride
		want         []string
	}{
		{name: "the listener's without an override", b: b, want: []string{"listener"}},
		{name: "the virtual host's", b: b, vhost: map[string]discovery.FilterOverride{"f": {Config: vhost}}, want: []string{"virtual host"}},
		{
			name: "the route's before the virtual host's", b: b, want: []string{"route"},
			vhost: map[string]discovery.FilterOverride{"f": {Config: vhost}}, route: map[string]discovery.FilterOverride{"f": {Config: ofRoute}},
		},
		{name: "switched off by the route", b: b, route: map[string]discovery.FilterOverride{"f": {Disabled: true}}},
		{name: "switched on by the route", b: b, disabled: true, route: map[string]discovery.FilterOverride{"f": {}}, want: []string{"listener"}},
		{name: "of another filter", b: b, route: map[string]discovery.FilterOverride{"g": {Config: config()}}, want: []string{"listener"}},
		{name: "what is different from the listener's", b: withMerge, route: map[string]discovery.FilterOverride{"f": {Config: merged}}, want: []string{"merged"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			source := table(local("/"))
			source.VirtualHosts[0].Filters = tt.vhost
			source.VirtualHosts[0].Routes[0].Filters = tt.route
			x, _ := run(t, source, []discovery.HTTPFilter{{Name: "f", Config: listener, Disabled: tt.disabled}}, tt.b)
			if got := x.Header.Values("x-saw"); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWhatCannotBeRunIsRefused(t *testing.T) {
	t.Parallel()
	known := config()
	b := builder{known: script(func(*filter.Exchange) (*filter.Answer, error) { return nil, nil })}
	for _, tt := range []struct {
		name    string
		filters []discovery.HTTPFilter
		change  func(*discovery.RouteTable)
		want    string
	}{
		{
			name:    "in the listener",
			filters: []discovery.HTTPFilter{{Name: "a", Config: known}, {Name: "b", Config: config()}},
			want:    `http_filters[1] "b": not supported`,
		},
		{
			name: "in a virtual host", filters: []discovery.HTTPFilter{{Name: "a", Config: known}},
			change: func(t *discovery.RouteTable) {
				t.VirtualHosts[0].Filters = map[string]discovery.FilterOverride{"a": {Config: config()}}
			},
			want: `virtual host "all": typed_per_filter_config["a"]: not supported`,
		},
		{
			name: "in a cluster of a route", filters: []discovery.HTTPFilter{{Name: "a", Config: known}},
			change: func(t *discovery.RouteTable) {
				t.VirtualHosts[0].Routes[0].Forward = &discovery.Forward{Clusters: []discovery.WeightedCluster{{
					Filters: map[string]discovery.FilterOverride{"a": {Config: config()}},
				}}}
			},
			want: `virtual host "all": routes[0]: clusters[0]: typed_per_filter_config["a"]: not supported`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			source := table(local("/"))
			if tt.change != nil {
				tt.change(source)
			}
			_, err := filter.Compile(tt.filters, source, b.build)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestAChainWithoutFiltersIsNil(t *testing.T) {
	// Not parallel: it counts allocations.
	c, err := filter.Compile(nil, table(), nil)
	if c != nil || err != nil {
		t.Fatalf("got %v, %v", c, err)
	}
	if allocs := testing.AllocsPerRun(100, func() {
		if answer, err := c.Run(t.Context(), nil); answer != nil || err != nil {
			t.Error("an empty chain answered")
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// guard decides about all requests alike.
type guard struct{ script }

func (guard) Guards() bool { return false }

// TestV14_AGuardThatDependsOnTheRouteDependsOnThePath: what needs a token nowhere
// else than on one route must not be reached by another spelling of its path.
func TestV14_AGuardThatDependsOnTheRouteDependsOnThePath(t *testing.T) {
	t.Parallel()
	guarding, other, route := config(), config(), config()
	pass := script(func(*filter.Exchange) (*filter.Answer, error) { return nil, nil })
	b := builder{guarding: guard{pass}, other: pass, route: pass}
	for _, tt := range []struct {
		name      string
		listener  discovery.FilterConfig
		overrides map[string]discovery.FilterOverride
		want      bool
	}{
		{"the same everywhere", guarding, nil, false},
		{"switched off by a route", guarding, map[string]discovery.FilterOverride{"f": {Disabled: true}}, true},
		{"different in a route", guarding, map[string]discovery.FilterOverride{"f": {Config: route}}, true},
		{"another is different in a route", guarding, map[string]discovery.FilterOverride{"g": {Config: route}}, false},
		{"one that decides nothing is different in a route", other, map[string]discovery.FilterOverride{"f": {Config: route}}, false},
	} {
		source := table(local("/open"), local("/"))
		source.VirtualHosts[0].Routes[0].Filters = tt.overrides
		c, err := filter.Compile([]discovery.HTTPFilter{{Name: "f", Config: tt.listener}}, source, b.build)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Guarded(); got != tt.want {
			t.Errorf("%s: guarded %t, want %t", tt.name, got, tt.want)
		}
	}
}
