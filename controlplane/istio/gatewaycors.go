package istio

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/gatewayapi"
)

// defaultMaxAge is how many seconds a browser keeps the answer to a preflight, by
// the Gateway API.
const defaultMaxAge = 5

// gatewayCORS translates a CORS filter; nil without one.
func gatewayCORS(in *gatewayapi.HTTPCORSFilter, a at) *anypb.Any {
	if in == nil {
		return nil
	}
	credentials := or(in.AllowCredentials, false)
	list := func(values []string, a at) string {
		switch {
		case !slices.Contains(values, "*"):
		case len(values) > 1:
			a.errorf("\"*\" stands for all: remove the others, or it")
		case credentials:
			// Then the names that the browser asks for have to be repeated.
			a.errorf("\"*\" is not supported together with allowCredentials: name them")
		}
		return headerList(values, a)
	}
	out := &corsv3.CorsPolicy{
		AllowMethods:  list(in.AllowMethods, a.field("allowMethods")),
		AllowHeaders:  list(in.AllowHeaders, a.field("allowHeaders")),
		ExposeHeaders: list(in.ExposeHeaders, a.field("exposeHeaders")),
		MaxAge:        strconv.Itoa(defaultMaxAge),
		// Who is not allowed gets an answer without the headers, and the application
		// no preflight.
		ForwardNotMatchingPreflights: wrapperspb.Bool(false),
	}
	if in.AllowCredentials != nil {
		out.AllowCredentials = wrapperspb.Bool(credentials)
	}
	if maxAge := a.field("maxAge"); maxAge.written() {
		if in.MaxAge < 1 {
			maxAge.errorf("%d: use at least 1", in.MaxAge)
		}
		out.MaxAge = strconv.Itoa(int(in.MaxAge))
	}
	for i, origin := range in.AllowOrigins {
		if m := gatewayOrigin(origin, a.field("allowOrigins").index(i)); m != nil {
			out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, m)
		}
	}
	if slices.Contains(in.AllowOrigins, "*") && len(in.AllowOrigins) > 1 {
		a.field("allowOrigins").errorf("\"*\" stands for all: remove the others, or it")
	}
	return packCORS(out, a)
}

// originFormat is the Gateway API's: a star stands for any labels at the left of a
// host, or for the host.
var originFormat = regexp.MustCompile(`^(https?)://(\*|(?:\*\.)?[a-zA-Z0-9](?:[-a-zA-Z0-9.]*[a-zA-Z0-9])?)(:[0-9]{1,5})?$`)

// gatewayOrigin translates an origin; nil for one with a problem.
func gatewayOrigin(origin string, a at) *matcherv3.StringMatcher {
	if origin == "*" {
		return exactOrigin(origin)
	}
	if !originFormat.MatchString(origin) {
		a.errorf("%q is not an origin: write it like https://shop.example.com, https://*.example.com:8443 or *", origin)
		return nil
	}
	before, after, wild := strings.Cut(origin, "*")
	if !wild {
		return exactOrigin(origin)
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{
		Regex: regexp.QuoteMeta(before) + "[-a-zA-Z0-9.]+" + regexp.QuoteMeta(after),
	}}}
}
