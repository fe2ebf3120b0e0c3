package decode

import (
	"net/http"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	allowlistedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/allow_listed_routes/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/previous_routes/v3"
	safeschemev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/safe_cross_scheme/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var internalRedirectFields = []messageFields{
	{
		message: (*routev3.InternalRedirectPolicy)(nil),
		read: "max_internal_redirects redirect_response_codes predicates allow_cross_scheme_redirect " +
			"response_headers_to_copy",
	},
	{message: (*allowlistedv3.AllowListedRoutesConfig)(nil), read: "allowed_route_names"},
	{message: (*previousv3.PreviousRoutesConfig)(nil)},
	{message: (*safeschemev3.SafeCrossSchemeConfig)(nil)},
}

// internalRedirect decodes an InternalRedirectPolicy; nil without one.
func (d *decoder) internalRedirect(at path, m *routev3.InternalRedirectPolicy) *discovery.InternalRedirect {
	if m == nil {
		return nil
	}
	r := &discovery.InternalRedirect{MaxRedirects: 1, CrossScheme: m.GetAllowCrossSchemeRedirect()}
	if n := m.GetMaxInternalRedirects(); n != nil {
		r.MaxRedirects = n.GetValue()
	}
	for _, code := range m.GetRedirectResponseCodes() {
		switch code {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
			http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			r.Statuses = append(r.Statuses, int(code))
		}
		// Envoy's documentation: any other code is ignored.
	}
	if len(m.GetRedirectResponseCodes()) == 0 {
		r.Statuses = []int{http.StatusFound}
	}
	for i, predicate := range m.GetPredicates() {
		d.redirectPredicate(at.element("predicates", i).field("typed_config"), predicate, r)
	}
	for i, name := range m.GetResponseHeadersToCopy() {
		r.CopyHeaders = append(r.CopyHeaders, d.mutableHeader(at.element("response_headers_to_copy", i), name))
	}
	return r
}

// redirectPredicate adds a predicate to a policy. All of them must hold.
func (d *decoder) redirectPredicate(at path, m *corev3.TypedExtensionConfig, r *discovery.InternalRedirect) {
	allowed := &allowlistedv3.AllowListedRoutesConfig{}
	switch config := m.GetTypedConfig(); {
	case is(config, (*previousv3.PreviousRoutesConfig)(nil)):
		r.PreviousRoutes = d.unpack(at, config, &previousv3.PreviousRoutesConfig{})
	case is(config, (*safeschemev3.SafeCrossSchemeConfig)(nil)):
		r.SafeCrossScheme = d.unpack(at, config, &safeschemev3.SafeCrossSchemeConfig{})
	case is(config, allowed):
		if !d.unpack(at, config, allowed) {
			return
		}
		names := slices.Clone(allowed.GetAllowedRouteNames())
		if r.AllowedRoutes != nil {
			names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(r.AllowedRoutes, name) })
		}
		if names == nil {
			names = []string{} // no route at all, and not any
		}
		r.AllowedRoutes = names
	default:
		d.refusef(at, "internal redirect predicate %q is not supported: use one of %s", typeName(config), strings.Join([]string{
			"AllowListedRoutesConfig", "PreviousRoutesConfig", "SafeCrossSchemeConfig",
		}, ", "))
	}
}
