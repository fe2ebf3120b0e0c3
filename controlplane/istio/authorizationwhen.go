package istio

import (
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	security "istio.io/api/security/v1beta1"
)

// conditions translates "when": every condition must hold. Some are about what
// is done, some about who does it.
func (t *ruleTranslator) conditions(when []*security.Condition, a at) (permissions []*rbacv3.Permission, principals []*rbacv3.Principal) {
	for i, condition := range when {
		in := a.index(i)
		if len(condition.GetValues())+len(condition.GetNotValues()) == 0 {
			in.errorf("must have values or notValues")
		}
		onPermission, onPrincipal := t.conditionKey(condition.GetKey(), in.field("key"))
		for _, list := range []struct {
			name   string
			values []string
			negate bool
		}{{"values", condition.GetValues(), false}, {"notValues", condition.GetNotValues(), true}} {
			t.wide = t.denies != list.negate
			switch at := in.field(list.name); {
			case onPermission != nil:
				if p := permissionOf(list.values, list.negate, at, onPermission); p != nil {
					permissions = append(permissions, p)
				}
			case onPrincipal != nil:
				if p := principalOf(list.values, list.negate, at, onPrincipal); p != nil {
					principals = append(principals, p)
				}
			}
		}
	}
	return permissions, principals
}

// conditionKey finds what makes a matcher of a value of a key; one of the two is
// nil, or both after a problem.
func (t *ruleTranslator) conditionKey(key string, a at) (func(string, at) *rbacv3.Permission, func(string, at) *rbacv3.Principal) {
	switch key {
	case "source.ip":
		return nil, directIP
	case "remote.ip":
		return nil, remoteIP
	case "source.namespace":
		return nil, t.sourceNamespace
	case "source.principal":
		return nil, t.principal
	case "source.serviceAccount":
		return nil, t.serviceAccount
	case "source.trustDomain":
		return nil, t.trustDomain
	case "request.auth.principal":
		return nil, t.requestPrincipal
	case "request.auth.audiences":
		return nil, claim("aud")
	case "request.auth.presenter":
		return nil, claim("azp")
	case "destination.ip":
		return func(value string, a at) *rbacv3.Permission {
			return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: cidr(value, a)}}
		}, nil
	case "destination.port":
		return t.port, nil
	case "connection.sni":
		return func(value string, _ at) *rbacv3.Permission {
			return &rbacv3.Permission{Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: wildcardMatch(value)}}
		}, nil
	}
	if path, ok := bracketed(key, "request.headers"); ok && len(path) == 1 {
		if !strings.HasPrefix(path[0], ":") {
			checkHeaderName(path[0], a)
		}
		return nil, func(value string, _ at) *rbacv3.Principal {
			return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: headerMatcher(path[0], t.wildcard(value))}}
		}
	}
	if path, ok := bracketed(key, "request.auth.claims"); ok && len(path) > 0 {
		return nil, claim(path...)
	}
	if strings.HasPrefix(key, "experimental.") {
		a.errorf("%q is not supported: it is for filters that are not here", key)
		return nil, nil
	}
	a.errorf("%q is not a key of a condition", key)
	return nil, nil
}

// bracketed reads "name[a][b]".
func bracketed(key, name string) (path []string, ok bool) {
	rest, ok := strings.CutPrefix(key, name)
	for ok && rest != "" {
		var part string
		if rest, ok = strings.CutPrefix(rest, "["); !ok {
			break
		}
		if part, rest, ok = strings.Cut(rest, "]"); ok && part != "" {
			path = append(path, part)
		} else {
			return nil, false
		}
	}
	return path, ok
}

// claim compares a claim of the token, or one of the values of a claim that is a
// list.
func claim(path ...string) func(string, at) *rbacv3.Principal {
	return func(value string, _ at) *rbacv3.Principal {
		text := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: wildcardMatch(value)}}
		list := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{
			MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: text},
		}}}
		return claimMetadata(path, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_OrMatch{OrMatch: &matcherv3.OrMatcher{
			ValueMatchers: []*matcherv3.ValueMatcher{text, list},
		}}})
	}
}

func claimMetadata(path []string, value *matcherv3.ValueMatcher) *rbacv3.Principal {
	m := &matcherv3.MetadataMatcher{Filter: jwtFilter, Value: value}
	for _, key := range append([]string{jwtPayload}, path...) {
		m.Path = append(m.Path, &matcherv3.MetadataMatcher_PathSegment{
			Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key},
		})
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_SourcedMetadata{SourcedMetadata: &rbacv3.SourcedMetadata{MetadataMatcher: m}}}
}

// requestPrincipal compares "ISSUER/SUBJECT" of the token, parted at the last
// slash as Istio does: an issuer often is a URL. A star stands for the beginning
// of the issuer or for the end of the subject.
func (t *ruleTranslator) requestPrincipal(value string, _ at) *rbacv3.Principal {
	issuer, subject, parted := value, "", false
	if i := strings.LastIndexByte(value, '/'); i >= 0 {
		issuer, subject, parted = value[:i], value[i+1:], true
	}
	switch _, kind := cutWildcard(value); {
	case kind == present:
		subject = "*"
	case kind == ending && !parted:
		issuer, subject = "*", value
	case kind == beginning && !parted:
		subject = "*"
	}
	text := func(claim, value string) *rbacv3.Principal {
		match := &matcherv3.ValueMatcher_StringMatch{StringMatch: wildcardMatch(value)}
		return claimMetadata([]string{claim}, &matcherv3.ValueMatcher{MatchPattern: match})
	}
	return allPrincipals([]*rbacv3.Principal{text("iss", issuer), text("sub", subject)})
}
