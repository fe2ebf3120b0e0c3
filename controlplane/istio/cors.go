package istio

import (
	"strconv"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

// cors translates a CORS policy into the configuration of the CORS filter for one
// route; nil without one.
func cors(in *networking.CorsPolicy, a at) *anypb.Any {
	if in == nil {
		return nil
	}
	out := &corsv3.CorsPolicy{
		AllowMethods:     headerList(in.AllowMethods, a.field("allowMethods")),
		AllowHeaders:     headerList(in.AllowHeaders, a.field("allowHeaders")),
		ExposeHeaders:    headerList(in.ExposeHeaders, a.field("exposeHeaders")),
		AllowCredentials: in.AllowCredentials,
	}
	for i, origin := range in.AllowOrigins {
		if m := corsOrigin(origin, a.field("allowOrigins").index(i)); m != nil {
			out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, m)
		}
	}
	for _, origin := range in.AllowOrigin { //nolint:staticcheck // the deprecated field is still in use
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, exactOrigin(origin))
	}
	if in.MaxAge != nil {
		checkDuration(in.MaxAge, a.field("maxAge"))
		out.MaxAge = strconv.FormatInt(int64(in.MaxAge.AsDuration()/time.Second), 10)
	}
	switch in.UnmatchedPreflights {
	case networking.CorsPolicy_UNSPECIFIED:
	case networking.CorsPolicy_FORWARD:
		out.ForwardNotMatchingPreflights = wrapperspb.Bool(true)
	case networking.CorsPolicy_IGNORE:
		out.ForwardNotMatchingPreflights = wrapperspb.Bool(false)
	}
	return packCORS(out, a)
}

// packCORS is the configuration of the filter for a route.
func packCORS(out *corsv3.CorsPolicy, a at) *anypb.Any {
	policy, err := pack(out)
	if err != nil {
		a.doubt(err)
		return nil
	}
	// As the filter itself, for clients that do not know it.
	packed, err := pack(&routev3.FilterConfig{Config: policy, IsOptional: true})
	if err != nil {
		a.doubt(err)
		return nil
	}
	return packed
}

// corsOrigin translates a match of an origin; nil for one with a problem.
func corsOrigin(m *networking.StringMatch, a at) *matcherv3.StringMatcher {
	switch m := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return exactOrigin(m.Exact)
	case *networking.StringMatch_Prefix:
		if m.Prefix == "" {
			a.field("prefix").errorf("must not be empty: use exact: \"*\" for any origin")
			return nil
		}
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: m.Prefix}}
	case *networking.StringMatch_Regex:
		checkRegex(m.Regex, a.field("regex"))
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
			SafeRegex: &matcherv3.RegexMatcher{Regex: m.Regex},
		}}
	}
	a.errorf("needs exact, prefix or regex")
	return nil
}

func exactOrigin(value string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}}
}

// headerList is a list of methods or of headers in one header.
func headerList(values []string, a at) string {
	for i, value := range values {
		if !isHeaderName(value) { // "*" is one
			a.index(i).errorf("%q is neither a name nor \"*\"", value)
		}
	}
	return strings.Join(values, ",")
}
