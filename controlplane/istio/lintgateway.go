package istio

import (
	"slices"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// lintGateway warns of routes of the Gateway API.
func (r *registry) lintGateway() {
	for _, g := range r.gatewayRoutes {
		for _, rule := range g.rules {
			lintBackends(rule)
			lintGatewayRetries(g, rule)
			lintGatewayRedirect(rule)
			lintGatewayCORS(rule)
		}
	}
	for _, host := range sortedKeys(r.attached) {
		for _, s := range r.services[host] {
			for _, port := range s.ports {
				for _, namespace := range consumersOf(r.attached[host]) {
					r.lintMerged(r.mergeGateway(r.attachedIn(host, namespace, port.number), port.number))
				}
			}
		}
	}
}

// consumersOf are the namespaces whose clients have routes of their own, and
// elsewhere.
func consumersOf(parents []*gatewayParent) []string {
	seen := map[string]bool{elsewhere: true}
	for _, p := range parents {
		seen[p.consumer] = true
	}
	return sortedKeys(seen)
}

// lintMerged finds matches that no request reaches among the routes of a port, which
// stand in the order in which they are tried: the same one is there before, or a prefix that
// goes before every expression.
func (r *registry) lintMerged(routes []sourcedRoute) {
	before := make(map[string]at)
	var prefixes []sourcedRoute
	for _, one := range routes {
		key, err := proto.MarshalOptions{Deterministic: true}.Marshal(one.route.Match)
		if err != nil {
			continue // a match can always be written
		}
		by, ok := before[string(key)]
		if !ok {
			before[string(key)] = one.at
		} else if by != one.at {
			one.at.warnf(lintShadowedRoute, "is never reached: %s matches the same, and goes before it", by.source())
			continue
		}
		if one.route.Match.GetSafeRegex() == nil {
			prefixes = append(prefixes, one)
			continue
		}
		if i := slices.IndexFunc(prefixes, func(p sourcedRoute) bool { return coversRegex(p.route.Match, one.route.Match) }); i >= 0 {
			one.at.warnf(lintShadowedRoute, "is never reached: %s matches all of it, and goes before it", prefixes[i].at.source())
		}
	}
}

// coversRegex reports whether every request that meets an expression meets a prefix too, and
// what else there is beside it. It may say no where it does not know.
func coversRegex(a, b *routev3.RouteMatch) bool {
	prefix := a.GetPrefix()
	if separated := a.GetPathSeparatedPrefix(); separated != "" {
		prefix = separated + "/"
	}
	if prefix == "" || a.RuntimeFraction != nil || !beginsWith(b.GetSafeRegex().GetRegex(), prefix) {
		return false
	}
	return !slices.ContainsFunc(a.Headers, func(h *routev3.HeaderMatcher) bool {
		return !slices.ContainsFunc(b.Headers, func(other *routev3.HeaderMatcher) bool { return proto.Equal(h, other) })
	}) && !slices.ContainsFunc(a.QueryParameters, func(q *routev3.QueryParameterMatcher) bool {
		return !slices.ContainsFunc(b.QueryParameters, func(other *routev3.QueryParameterMatcher) bool { return proto.Equal(q, other) })
	})
}

func lintBackends(rule *gatewayRule) {
	sum, given := int64(0), false
	for i := range rule.backends {
		sum += int64(or(rule.backends[i].Weight, 1))
		given = given || rule.backends[i].Weight != nil
	}
	for i := range rule.backends {
		if given && rule.backends[i].Weight == nil {
			rule.at.field("backendRefs").index(i).field("weight").warnf(lintMissingWeight, "is missing among others: this backend has the weight 1 of %d", sum)
		}
	}
}

// lintGatewayRetries warns of retries as [lintRetriedMethods] and [lintTries] do. A
// GRPCRoute has neither.
func lintGatewayRetries(g *gatewayRoute, rule *gatewayRule) {
	var request, each time.Duration
	if t := rule.timeouts; t != nil {
		request, each = readDuration(t.Request), readDuration(t.BackendRequest)
	}
	if rule.retry == nil {
		return
	}
	attempts := int64(or(rule.retry.Attempts, defaultRetries)) + 1
	lintTryTime(request, each, attempts, rule.at.field("timeouts").field("backendRequest"))
	if method, ok := g.repeats(rule); ok {
		rule.at.field("retry").field("codes").warnf(lintRetryNonIdempotent, "repeat %s requests on which the server may have acted already", method)
	}
}

// readDuration reads a duration that was checked.
func readDuration(text *string) time.Duration {
	d, err := time.ParseDuration(or(text, "0s"))
	if err != nil {
		return 0
	}
	return d
}

// repeats reports whether a rule repeats requests which are not to be repeated after
// an answer. GRPCRoute has no retries.
func (g *gatewayRoute) repeats(rule *gatewayRule) (methods string, ok bool) {
	if len(rule.retry.Codes) == 0 || g.grpc {
		return "", false
	}
	for _, m := range rule.matches {
		method := ""
		for _, h := range m.match.Headers {
			if h.Name == ":method" {
				method = h.GetStringMatch().GetExact()
			}
		}
		switch method {
		case "":
			return "POST and PATCH", true
		case "POST", "PATCH":
			return method, true
		}
	}
	return "", false
}

// lintGatewayRedirect finds redirects to what is redirected again.
func lintGatewayRedirect(rule *gatewayRule) {
	for i := range rule.filters {
		redirect := rule.filters[i].RequestRedirect
		if redirect == nil || redirect.Scheme != nil || redirect.Hostname != nil || redirect.Port != nil || redirect.Path == nil {
			continue
		}
		to := text(redirect.Path.ReplaceFullPath)
		for _, m := range rule.matches {
			if to != "" && (m.match.GetPath() == to || matchesAll(m.match) || isBelow(to, m.match.GetPathSeparatedPrefix())) && len(m.match.Headers)+len(m.match.QueryParameters) == 0 {
				rule.at.field("filters").index(i).field("requestRedirect").field("path").field("replaceFullPath").warnf(lintRedirectLoop,
					"%q is redirected by the same rule: whoever follows it never arrives", to)
			}
		}
	}
}

// isBelow reports whether a path is a prefix or below it.
func isBelow(path, prefix string) bool {
	return prefix != "" && (path == prefix || len(path) > len(prefix) && path[:len(prefix)] == prefix && path[len(prefix)] == '/')
}
