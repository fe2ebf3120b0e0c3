package istio

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

// maxRegex is Istio's limit on the length of a regular expression.
const maxRegex = 1024

// checkMatch checks what does not depend on the port.
func checkMatch(m *networking.HTTPMatchRequest, a at) {
	if a.field("port").written() && !isPort(m.Port) {
		a.field("port").errorf("%d is not a port: use 1..65535", m.Port)
	}
	checkString(m.Uri, true, a.field("uri"))
	checkString(m.Method, false, a.field("method"))
	checkString(m.Authority, false, a.field("authority"))
	checkString(m.Scheme, false, a.field("scheme"))
	for _, name := range []string{"uri", "method", "authority", "scheme"} {
		f := a.field(name)
		if f.written() && !f.field("exact").written() && !f.field("prefix").written() && !f.field("regex").written() {
			f.errorf("needs one of exact, prefix, regex")
		}
	}
	if m.GetUri().GetRegex() != "" && m.IgnoreUriCase {
		a.field("ignoreUriCase").refuse("has no effect on a regex: begin the expression with (?i)")
	}
	checkSource(m, a)
	checkMatchHeaders(m.Headers, a.field("headers"))
	checkMatchHeaders(m.WithoutHeaders, a.field("withoutHeaders"))
	for _, name := range sortedKeys(m.QueryParams) {
		if name == "" {
			a.field("queryParams").key(name).refuse("needs a name")
		}
		checkPresence(m.QueryParams[name], a.field("queryParams").key(name))
	}
}

// checkSource checks the conditions on who calls.
func checkSource(m *networking.HTTPMatchRequest, a at) {
	checkSelector(m.SourceLabels, a.field("sourceLabels"))
	if namespace := a.field("sourceNamespace"); namespace.written() && !isDNSLabel(m.SourceNamespace) {
		namespace.errorf("%q is not a namespace: use lower case letters, digits and '-'", m.SourceNamespace)
	}
	if len(m.Gateways) > 0 {
		refuseSource(a, "gateways")
	}
}

// refuseSource refuses conditions on who calls beside gateways.
func refuseSource(a at, gateways string) {
	for _, name := range []string{"sourceLabels", "sourceNamespace"} {
		if a.field(name).written() {
			a.field(name).refuse("cannot be set together with %q, with which Istio does not look at it: remove gateways", gateways)
		}
	}
}

func checkMatchHeaders(headers map[string]*networking.StringMatch, a at) {
	for _, name := range sortedKeys(headers) {
		ha := a.key(name)
		switch {
		case strings.HasPrefix(name, "@"):
			ha.refuse("claims are known to servers, and this is a route of clients: use an AuthorizationPolicy with the condition request.auth.claims")
		case strings.HasPrefix(name, ":"):
			ha.refuse("pseudo headers cannot be matched here: use uri, method or authority")
		case !isHeaderName(name):
			ha.refuse("is not the name of a header")
		}
		checkPresence(headers[name], ha)
	}
}

// checkPresence checks a match of a header or of a query parameter, which may
// ask for nothing but that it is there.
func checkPresence(m *networking.StringMatch, a at) {
	if !anyValue(m) {
		checkString(m, false, a)
	}
}

func checkString(m *networking.StringMatch, emptyPrefix bool, a at) {
	switch v := m.GetMatchType().(type) {
	case *networking.StringMatch_Prefix:
		if v.Prefix == "" && !emptyPrefix {
			a.field("prefix").errorf("must not be empty")
		}
	case *networking.StringMatch_Regex:
		checkRegex(v.Regex, a.field("regex"))
	}
}

func checkRegex(expression string, a at) {
	if expression == "" || len(expression) > maxRegex {
		a.errorf("must have 1..%d characters", maxRegex)
		return
	}
	if _, err := regexp.Compile(expression); err != nil {
		a.errorf("not an RE2 expression: %v", withoutText(err))
	}
}

// withoutText is the error of an expression without the expression, if that is quoted
// whole or from somewhere on: what a header is compared with may be a secret.
func withoutText(err error) error {
	if bad, ok := errors.AsType[*syntax.Error](err); ok {
		switch bad.Code {
		case syntax.ErrMissingParen, syntax.ErrUnexpectedParen, syntax.ErrMissingBracket:
			return errors.New(bad.Code.String())
		}
	}
	return err
}

// anyValue reports whether a match only asks for presence. "*" is no regular
// expression; Istio takes it as that.
func anyValue(m *networking.StringMatch) bool {
	if m.GetMatchType() == nil {
		return true
	}
	regex, ok := m.MatchType.(*networking.StringMatch_Regex)
	return ok && regex.Regex == "*"
}

// routeMatch translates a match; nil matches every request. It expects a match
// that was checked.
func routeMatch(m *networking.HTTPMatchRequest) *routev3.RouteMatch {
	out := &routev3.RouteMatch{
		PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"},
		CaseSensitive: wrapperspb.Bool(true),
	}
	if m == nil {
		return out
	}
	switch uri := m.GetUri().GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: uri.Exact}
	case *networking.StringMatch_Prefix:
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: uri.Prefix}
	case *networking.StringMatch_Regex:
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: uri.Regex}}
	}
	out.CaseSensitive.Value = !m.IgnoreUriCase
	out.Headers = headerMatches(m)
	for _, name := range sortedKeys(m.QueryParams) {
		out.QueryParameters = append(out.QueryParameters, queryMatch(name, m.QueryParams[name]))
	}
	return out
}

func headerMatches(m *networking.HTTPMatchRequest) []*routev3.HeaderMatcher {
	var out []*routev3.HeaderMatcher
	for _, name := range sortedKeys(m.Headers) {
		out = append(out, headerMatch(name, m.Headers[name]))
	}
	for _, name := range sortedKeys(m.WithoutHeaders) {
		h := headerMatch(name, m.WithoutHeaders[name])
		h.InvertMatch = true
		// A missing header must count as one without the value; presence
		// itself needs no such rule.
		h.TreatMissingHeaderAsEmpty = !anyValue(m.WithoutHeaders[name])
		out = append(out, h)
	}
	slices.SortStableFunc(out, func(a, b *routev3.HeaderMatcher) int { return strings.Compare(a.Name, b.Name) })
	if m.Method != nil {
		out = append(out, headerMatch(":method", m.Method))
	}
	if m.Authority != nil {
		out = append(out, headerMatch(":authority", m.Authority))
	}
	if m.Scheme != nil {
		out = append(out, headerMatch(":scheme", m.Scheme))
	}
	return out
}

func headerMatch(name string, m *networking.StringMatch) *routev3.HeaderMatcher {
	h := &routev3.HeaderMatcher{Name: name}
	if anyValue(m) {
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
	} else {
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatch(m)}
	}
	return h
}

func queryMatch(name string, m *networking.StringMatch) *routev3.QueryParameterMatcher {
	q := &routev3.QueryParameterMatcher{Name: name}
	if anyValue(m) {
		q.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
	} else {
		q.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringMatch(m)}
	}
	return q
}

func stringMatch(m *networking.StringMatch) *matcherv3.StringMatcher {
	switch v := m.MatchType.(type) {
	case *networking.StringMatch_Prefix:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: v.Prefix}}
	case *networking.StringMatch_Regex:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
			SafeRegex: &matcherv3.RegexMatcher{Regex: v.Regex},
		}}
	default:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: m.GetExact()}}
	}
}
