package route

import "github.com/inboardmesh/inboard/discovery"

// levels returns the mutation levels of a decision in the order in which they
// are applied: weighted cluster, route, virtual host, route configuration, so
// that the later overwrite the earlier; most_specific_header_mutations_wins
// reverses it (Envoy docs, "Custom request/response headers"). Without a route
// there are none.
func (d *Decision) levels() (levels [4]*discovery.HeaderMutations, n int) {
	add := func(m *discovery.HeaderMutations) {
		levels[n] = m
		n++
	}
	if d.Route == nil {
		return levels, 0
	}
	if d.Cluster != nil {
		add(&d.Cluster.Headers)
	}
	add(&d.Route.Headers)
	add(&d.VirtualHost.Headers)
	add(&d.Table.Headers)
	if d.Table.MostSpecificHeaderMutationsWins {
		for i, j := 0, n-1; i < j; i, j = i+1, j-1 {
			levels[i], levels[j] = levels[j], levels[i]
		}
	}
	return levels, n
}

// Mutations are the header operations of all levels, in the order in which they are
// applied.
func (d *Decision) Mutations() []*discovery.HeaderMutations {
	levels, n := d.levels()
	return levels[:n]
}

// MutateRequest applies the request header operations of all levels to h, which
// req sees.
func (d *Decision) MutateRequest(h HeaderMap, req *Request, f *Facts) {
	levels, n := d.levels()
	for _, m := range levels[:n] {
		d.mutate(h, m.RequestAdd, m.RequestRemove, req, f, nil)
	}
}

// MutateResponse applies the response header operations of all levels to h. req
// is the request as it was sent.
func (d *Decision) MutateResponse(h HeaderMap, req *Request, f *Facts) {
	levels, n := d.levels()
	for _, m := range levels[:n] {
		d.mutate(h, m.ResponseAdd, m.ResponseRemove, req, f, h)
	}
}

// MutatesResponse reports whether MutateResponse has anything to do.
func (d *Decision) MutatesResponse() bool {
	levels, n := d.levels()
	for _, m := range levels[:n] {
		if len(m.ResponseAdd)+len(m.ResponseRemove) > 0 {
			return true
		}
	}
	return false
}

// mutate removes before it adds, as Envoy's HeaderParser does.
func (d *Decision) mutate(h HeaderMap, add []discovery.HeaderValue, remove []string, req *Request, f *Facts, response Header) {
	for _, name := range remove {
		h.Del(name)
	}
	for i := range add {
		v := &add[i]
		value := v.Value
		if v.Format != nil {
			value = d.expand(v.Format, req, f, response)
		}
		if value == "" && !v.KeepEmpty {
			continue
		}
		switch v.Action {
		case discovery.AppendIfExistsOrAdd:
			h.Add(v.Name, value)
		case discovery.AddIfAbsent:
			if len(h.Values(v.Name)) == 0 {
				h.Add(v.Name, value)
			}
		case discovery.OverwriteIfExistsOrAdd:
			h.Set(v.Name, value)
		case discovery.OverwriteIfExists:
			if len(h.Values(v.Name)) > 0 {
				h.Set(v.Name, value)
			}
		}
	}
}

// Filter returns the configuration of a filter for this decision: the most
// specific override, else the listener's, which is that of a request without a
// route too. ok is false if it is switched off.
func (d *Decision) Filter(f *discovery.HTTPFilter) (config discovery.FilterConfig, ok bool) {
	config, ok = f.Config, !f.Disabled
	if d.Route == nil {
		return config, ok && config != nil
	}
	for _, overrides := range [...]map[string]discovery.FilterOverride{
		d.VirtualHost.Filters, d.Route.Filters, d.clusterFilters(),
	} {
		if o, found := overrides[f.Name]; found {
			ok = !o.Disabled
			if o.Config != nil {
				config = o.Config
			}
		}
	}
	return config, ok && config != nil
}

func (d *Decision) clusterFilters() map[string]discovery.FilterOverride {
	if d.Cluster == nil {
		return nil
	}
	return d.Cluster.Filters
}
