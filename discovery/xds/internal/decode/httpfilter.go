package decode

import (
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery"
)

var httpFilterFields = []messageFields{
	{message: (*hcmv3.HttpFilter)(nil), read: "name typed_config is_optional disabled"},
	{
		message: (*routerv3.Router)(nil),
		read:    "suppress_envoy_headers",
		// false is not to reject early data, of which TLS here has none.
		zero: "reject_connect_request_early_data",
		// Metrics, spans and access logs.
		harmless: "dynamic_stats start_child_span upstream_log upstream_log_options " +
			"suppress_grpc_request_failure_code_stats",
	},
	{message: (*routev3.FilterConfig)(nil), read: "config is_optional disabled"},
}

// httpFilters decodes HttpConnectionManager.http_filters and returns them
// without the router, which must be last (gRFC A39), beside what that says.
func (d *decoder) httpFilters(at path, list []*hcmv3.HttpFilter) (filters []discovery.HTTPFilter, router *routerv3.Router) {
	router = &routerv3.Router{}
	names := make(map[string]struct{}, len(list))
	terminated := false
	for i, m := range list {
		in := at.element("http_filters", i)
		if _, ok := names[m.GetName()]; ok {
			d.refusef(in.field("name"), "%q is the name of an earlier filter", m.GetName())
		}
		names[m.GetName()] = struct{}{}
		if !knownFilter(m.GetTypedConfig()) {
			switch {
			case m.GetIsOptional():
			case m.GetTypedConfig() == nil:
				d.refusef(in.field("typed_config"), "must be set")
			default:
				d.refusef(in.field("typed_config"), "HTTP filter %q is not supported", typeName(m.GetTypedConfig()))
			}
			continue
		}
		if terminated {
			d.refusef(in, "filter %q comes after the router, which must be the last", m.GetName())
		}
		config := in.field("typed_config")
		if is(m.GetTypedConfig(), (*routerv3.Router)(nil)) {
			d.unpack(config, m.GetTypedConfig(), router)
			if m.GetDisabled() {
				d.refusef(in.field("disabled"), "the router cannot be disabled")
			}
			terminated = true
			continue
		}
		if is(m.GetTypedConfig(), (*httprbacv3.RBACPerRoute)(nil)) {
			d.refusef(config, "is for routes: use %q", (*httprbacv3.RBAC)(nil).ProtoReflect().Descriptor().FullName())
			continue
		}
		filters = append(filters, discovery.HTTPFilter{
			Name:     m.GetName(),
			Config:   d.filterConfig(config, m.GetTypedConfig()),
			Disabled: m.GetDisabled(),
		})
	}
	if !terminated {
		d.refusef(at.field("http_filters"), "must end with the router")
	}
	return filters, router
}

// knownFilter tells whether a holds the configuration of a filter that this
// package decodes.
func knownFilter(a *anypb.Any) bool {
	return is(a, (*routerv3.Router)(nil)) || is(a, (*faultv3.HTTPFault)(nil)) ||
		is(a, (*authzv3.ExtAuthz)(nil)) || is(a, (*authzv3.ExtAuthzPerRoute)(nil)) ||
		isCORS(a) || isSession(a) ||
		is(a, (*jwtv3.JwtAuthentication)(nil)) || is(a, (*jwtv3.PerRouteConfig)(nil)) ||
		is(a, (*httprbacv3.RBAC)(nil)) || is(a, (*httprbacv3.RBACPerRoute)(nil))
}

// filterConfig decodes the configuration of a filter other than the router, in
// a listener or in a route.
func (d *decoder) filterConfig(at path, a *anypb.Any) discovery.FilterConfig {
	if config, ok := d.jwtConfig(at, a); ok {
		return config
	}
	if config, ok := d.extAuthzConfig(at, a); ok {
		return config
	}
	switch {
	case isCORS(a):
		return d.cors(at, a)
	case isSession(a):
		return d.session(at, a)
	case is(a, (*httprbacv3.RBAC)(nil)):
		m := &httprbacv3.RBAC{}
		if !d.unpack(at, a, m) {
			return nil
		}
		return d.rbac(at, m)
	case is(a, (*httprbacv3.RBACPerRoute)(nil)):
		m := &httprbacv3.RBACPerRoute{}
		if !d.unpack(at, a, m) {
			return nil
		}
		return d.rbacPerRoute(at, m)
	}
	m := &faultv3.HTTPFault{}
	if !d.unpack(at, a, m) {
		return nil
	}
	return d.fault(at, m)
}

// filterOverrides decodes typed_per_filter_config.
func (d *decoder) filterOverrides(at path, configs map[string]*anypb.Any) map[string]discovery.FilterOverride {
	if len(configs) == 0 {
		return nil
	}
	overrides := make(map[string]discovery.FilterOverride, len(configs))
	// Sorted, so that the same resource always gives the same errors.
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		if override, ok := d.filterOverride(at.entry("typed_per_filter_config", name), configs[name]); ok {
			overrides[name] = override
		}
	}
	return overrides
}

// filterOverride decodes one entry: the configuration of a filter, or a
// FilterConfig around it. It reports false for an entry to skip.
func (d *decoder) filterOverride(at path, a *anypb.Any) (discovery.FilterOverride, bool) {
	optional := false
	if is(a, (*routev3.FilterConfig)(nil)) {
		wrapper := &routev3.FilterConfig{}
		if !d.unpack(at, a, wrapper) {
			return discovery.FilterOverride{}, false
		}
		if wrapper.GetDisabled() {
			return discovery.FilterOverride{Disabled: true}, true
		}
		if wrapper.GetConfig() == nil {
			d.refusef(at.field("config"), "must be set unless disabled is")
			return discovery.FilterOverride{}, false
		}
		at, a, optional = at.field("config"), wrapper.GetConfig(), wrapper.GetIsOptional()
		if a.GetTypeUrl() == "" {
			// An empty Any enables a filter that the listener disables.
			return discovery.FilterOverride{}, true
		}
	}
	if !knownFilter(a) {
		if !optional {
			d.refusef(at, "HTTP filter %q is not supported", typeName(a))
		}
		return discovery.FilterOverride{}, false
	}
	if override, ok := d.extAuthzSwitch(a); ok {
		return override, true
	}
	if sessionOff(a) {
		return discovery.FilterOverride{Disabled: true}, true
	}
	config := d.filterConfig(at, a)
	return discovery.FilterOverride{Config: config}, config != nil
}
