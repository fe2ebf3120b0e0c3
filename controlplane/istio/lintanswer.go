package istio

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// lintContent finds bodies of direct responses that HTTP has no room for.
func lintContent(one *rule) {
	direct := one.spec.DirectResponse
	if direct == nil || len(direct.Body.GetString_()) == 0 && len(direct.Body.GetBytes()) == 0 {
		return
	}
	switch direct.Status {
	case http.StatusNoContent, http.StatusResetContent, http.StatusNotModified:
		one.field("directResponse").field("body").warnf(lintBodyNotSent, "responses with the status %d have no body: it is not sent", direct.Status)
	}
}

// lintRewrite finds queries in what replaces paths.
func lintRewrite(one *rule) {
	to := one.spec.GetRewrite().GetUri()
	if !strings.Contains(to, "?") {
		return
	}
	rest := ""
	for _, m := range one.spec.Match {
		if _, ok := m.GetUri().GetMatchType().(*networking.StringMatch_Prefix); ok {
			rest = "/x"
		}
	}
	if len(one.spec.Match) == 0 {
		rest = "x" // all of the path but the slash that a route without a match replaces
	}
	one.field("rewrite").field("uri").warnf(lintRewriteQuery,
		"%q has a query, which what follows becomes a part of: a request with the query \"a=b\" is sent as %q", to, to+rest+"?a=b")
}

// stranger is an origin that nobody means.
const stranger = "https://anybody.invalid"

const strangersMay = "every origin may use the credentials of whoever visits it"

// lintCORS finds policies that let everybody use the credentials of a browser's user,
// and stars that are none beside credentials (Fetch, "CORS protocol and credentials").
func lintCORS(policy *networking.CorsPolicy, a at) {
	if !policy.GetAllowCredentials().GetValue() {
		return
	}
	for i, origin := range policy.AllowOrigins {
		if allowsStrangers(origin) {
			a.field("allowOrigins").index(i).warnf(lintCORSCredentials, strangersMay)
		}
	}
	for i, origin := range policy.AllowOrigin { //nolint:staticcheck // the deprecated field is still in use
		if origin == "*" {
			a.field("allowOrigin").index(i).warnf(lintCORSCredentials, strangersMay)
		}
	}
	for _, list := range []struct {
		field string
		names []string
	}{
		{"allowMethods", policy.AllowMethods}, {"allowHeaders", policy.AllowHeaders}, {"exposeHeaders", policy.ExposeHeaders},
	} {
		if i := slices.Index(list.names, "*"); i >= 0 {
			a.field(list.field).index(i).warnf(lintCORSCredentials, "beside credentials \"*\" is a name for browsers, and stands for nothing else")
		}
	}
}

// lintGatewayCORS is [lintCORS] for a rule of the Gateway API, where stars for names
// beside credentials are a problem.
func lintGatewayCORS(rule *gatewayRule) {
	for i := range rule.filters {
		policy := rule.filters[i].CORS
		if policy == nil || !or(policy.AllowCredentials, false) {
			continue
		}
		for j, origin := range policy.AllowOrigins {
			if origin == "*" || strings.HasSuffix(origin, "://*") {
				rule.at.field("filters").index(i).field("cors").field("allowOrigins").index(j).warnf(lintCORSCredentials, strangersMay)
			}
		}
	}
}

func allowsStrangers(m *networking.StringMatch) bool {
	switch m := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return m.Exact == "*"
	case *networking.StringMatch_Prefix:
		return strings.HasPrefix(stranger, m.Prefix)
	case *networking.StringMatch_Regex:
		program, err := regexp.Compile("^(?:" + m.Regex + ")$")
		return err == nil && (program.MatchString(stranger) || program.MatchString("*")) // one that is none was reported
	}
	return false
}
