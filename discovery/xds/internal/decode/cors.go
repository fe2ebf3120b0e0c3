package decode

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/discovery"
)

var corsFields = []messageFields{
	{message: (*corsv3.Cors)(nil)},
	{message: (*corsv3.CorsPolicy)(nil), read: corsPolicyFields},
	{message: (*routev3.CorsPolicy)(nil), read: corsPolicyFields},
}

const corsPolicyFields = "allow_origin_string_match allow_methods allow_headers expose_headers max_age allow_credentials " +
	"filter_enabled shadow_enabled allow_private_network_access forward_not_matching_preflights"

// corsFilter is the name by which control planes configure the CORS filter.
const corsFilter = "envoy.filters.http.cors"

// corsPolicy is a CorsPolicy: the filter's, or the one that routes and virtual
// hosts had before.
type corsPolicy interface {
	GetAllowOriginStringMatch() []*matcherv3.StringMatcher
	GetAllowMethods() string
	GetAllowHeaders() string
	GetExposeHeaders() string
	GetMaxAge() string
	GetAllowCredentials() *wrapperspb.BoolValue
	GetFilterEnabled() *corev3.RuntimeFractionalPercent
	GetShadowEnabled() *corev3.RuntimeFractionalPercent
	GetAllowPrivateNetworkAccess() *wrapperspb.BoolValue
	GetForwardNotMatchingPreflights() *wrapperspb.BoolValue
}

// isCORS tells whether a holds the configuration of the CORS filter: of a
// listener, which is empty, or of a route.
func isCORS(a *anypb.Any) bool {
	return is(a, (*corsv3.Cors)(nil)) || is(a, (*corsv3.CorsPolicy)(nil))
}

// cors decodes the configuration of the CORS filter.
func (d *decoder) cors(at path, a *anypb.Any) discovery.FilterConfig {
	if is(a, (*corsv3.Cors)(nil)) {
		d.unpack(at, a, &corsv3.Cors{})
		return &discovery.CORS{}
	}
	m := &corsv3.CorsPolicy{}
	if !d.unpack(at, a, m) {
		return nil
	}
	return d.corsPolicy(at, m)
}

// legacyCORS adds the cors field of a route or a virtual host to the overrides of
// filters, where they say nothing of CORS (Envoy: typed_per_filter_config goes
// first).
func (d *decoder) legacyCORS(at path, m *routev3.CorsPolicy, overrides map[string]discovery.FilterOverride) map[string]discovery.FilterOverride {
	if m == nil {
		return overrides
	}
	policy := d.corsPolicy(at, m)
	if _, ok := overrides[corsFilter]; ok {
		return overrides
	}
	if overrides == nil {
		overrides = make(map[string]discovery.FilterOverride, 1)
	}
	overrides[corsFilter] = discovery.FilterOverride{Config: policy}
	return overrides
}

func (d *decoder) corsPolicy(at path, m corsPolicy) *discovery.CORS {
	c := &discovery.CORS{
		AllowMethods: d.corsValue(at.field("allow_methods"), m.GetAllowMethods()), AllowHeaders: d.corsValue(at.field("allow_headers"), m.GetAllowHeaders()),
		ExposeHeaders: d.corsValue(at.field("expose_headers"), m.GetExposeHeaders()), MaxAge: d.corsValue(at.field("max_age"), m.GetMaxAge()),
		AllowCredentials: m.GetAllowCredentials().GetValue(), AllowPrivateNetwork: m.GetAllowPrivateNetworkAccess().GetValue(),
		StopUnmatched: m.GetForwardNotMatchingPreflights() != nil && !m.GetForwardNotMatchingPreflights().GetValue(),
	}
	switch {
	case m.GetFilterEnabled() != nil:
		c.PerMillion = perMillion(m.GetFilterEnabled().GetDefaultValue())
	case m.GetShadowEnabled() == nil:
		c.PerMillion = always
	}
	// A shadow is only counted, in metrics that are not there.
	for i, origin := range m.GetAllowOriginStringMatch() {
		c.AllowOrigins = append(c.AllowOrigins, d.stringMatch(at.element("allow_origin_string_match", i), origin))
	}
	return c
}

// corsValue checks the value of a header.
func (d *decoder) corsValue(at path, value string) string {
	if !httpguts.ValidHeaderFieldValue(value) {
		d.refusef(at, "%q is not a valid header value", value)
	}
	return value
}
