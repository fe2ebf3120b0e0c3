package filter

import (
	"context"
	"fmt"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// Chain is the HTTP filters of a listener, compiled, with the overrides of its
// routes. It is immutable and safe for concurrent use. Nil is a chain without
// filters.
type Chain struct {
	filters []instance
	// overrides are the filters of routes that differ from the listener's, by
	// their place in the chain and their configuration.
	overrides map[overrideKey]Filter
	guarded   bool
}

type instance struct {
	source *discovery.HTTPFilter
	filter Filter
}

type overrideKey struct {
	index  int
	config discovery.FilterConfig // a pointer
}

// Compile builds the filters of a chain and the overrides in its routes. It
// returns nil if there are no filters, and an error for what cannot be run.
func Compile(filters []discovery.HTTPFilter, routes *discovery.RouteTable, build Build) (*Chain, error) {
	if len(filters) == 0 {
		return nil, nil
	}
	c := &Chain{filters: make([]instance, len(filters)), overrides: make(map[overrideKey]Filter)}
	for i := range filters {
		source := &filters[i]
		f, err := build(source.Config)
		if err != nil {
			return nil, fmt.Errorf("http_filters[%d] %q: %w", i, source.Name, err)
		}
		c.filters[i] = instance{source: source, filter: f}
		c.guarded = c.guarded || guards(f)
	}
	for where, overrides := range overridesOf(routes) {
		if err := c.override(overrides, build); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
	}
	return c, nil
}

// override builds the filters of one typed_per_filter_config. Entries for
// filters that the chain does not have are for other listeners.
func (c *Chain) override(overrides map[string]discovery.FilterOverride, build Build) error {
	for i := range c.filters {
		base := &c.filters[i]
		o, ok := overrides[base.source.Name]
		key := overrideKey{index: i, config: o.Config}
		if _, decides := base.filter.(Guard); ok && decides {
			// What it decides depends on the route, and with it on the path.
			c.guarded = true
		}
		if !ok || o.Config == nil || c.overrides[key] != nil {
			continue
		}
		var f Filter
		var err error
		if overridable, ok := base.filter.(Overridable); ok {
			f, err = overridable.Override(o.Config)
		} else {
			f, err = build(o.Config)
		}
		if err != nil {
			return fmt.Errorf("typed_per_filter_config[%q]: %w", base.source.Name, err)
		}
		c.overrides[key] = f
		c.guarded = c.guarded || guards(f)
	}
	return nil
}

// overridesOf iterates over every typed_per_filter_config of a table, and where
// it is.
func overridesOf(routes *discovery.RouteTable) func(yield func(string, map[string]discovery.FilterOverride) bool) {
	return func(yield func(string, map[string]discovery.FilterOverride) bool) {
		if routes == nil {
			return
		}
		for _, vh := range routes.VirtualHosts {
			if len(vh.Filters) > 0 && !yield(fmt.Sprintf("virtual host %q", vh.Name), vh.Filters) {
				return
			}
			for i, r := range vh.Routes {
				if len(r.Filters) > 0 && !yield(fmt.Sprintf("virtual host %q: routes[%d]", vh.Name, i), r.Filters) {
					return
				}
				if r.Forward == nil {
					continue
				}
				for j := range r.Forward.Clusters {
					cluster := &r.Forward.Clusters[j]
					if len(cluster.Filters) > 0 && !yield(fmt.Sprintf("virtual host %q: routes[%d]: clusters[%d]", vh.Name, i, j), cluster.Filters) {
						return
					}
				}
			}
		}
	}
}

// Guarded reports whether a [Guard] is among the filters: then requests whose
// path has no [CanonicalPath] must be refused, and the others run with that.
func (c *Chain) Guarded() bool { return c != nil && c.guarded }

// Idle reports whether [Chain.Run] would do nothing with a request of this decision.
func (c *Chain) Idle(d *route.Decision) bool {
	if c == nil {
		return true
	}
	for i := range c.filters {
		if f := c.filter(i, d); f != nil && !idle(f) {
			return false
		}
	}
	return true
}

// idle reports whether a filter never does anything.
func idle(f Filter) bool {
	i, ok := f.(Idler)
	return ok && i.Idle()
}

// Run runs the filters until one ends the request, and routes it again where one
// has asked for that.
func (c *Chain) Run(ctx context.Context, x *Exchange) (*Answer, error) {
	if c == nil {
		return nil, nil
	}
	for i := range c.filters {
		f := c.filter(i, &x.Decision)
		if f == nil {
			continue
		}
		answer, err := f.Request(ctx, x)
		if answer != nil || err != nil {
			return answer, err
		}
		if x.reroute {
			x.reroute = false
			// Without a route the decision is empty.
			x.Decision, _ = x.Routes.Match(&x.Request)
		}
	}
	return nil, nil
}

// filter is the instance that runs for a decision; nil if it is switched off.
func (c *Chain) filter(i int, d *route.Decision) Filter {
	base := &c.filters[i]
	config, ok := d.Filter(base.source)
	switch {
	case !ok:
		return nil
	case config == base.source.Config:
		return base.filter
	}
	return c.overrides[overrideKey{index: i, config: config}]
}
