package istio

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
)

// lint warns of what is allowed in an object and hardly meant.
func (r *registry) lint() {
	for _, vs := range r.virtualServices {
		lintShadows(vs)
		lintRetriedMethods(vs)
		for _, one := range vs.rules {
			lintMatches(one)
			lintWeights(one)
			lintTries(one)
			lintRedirect(one)
			lintPrefix(one)
			lintRewrite(one)
			lintContent(one)
			lintCORS(one.spec.CorsPolicy, one.field("corsPolicy"))
		}
	}
	r.lintGateway()
}

// lintTogether warns of what objects mean together, once there is no problem.
func (r *registry) lintTogether() {
	for _, vs := range r.virtualServices {
		for _, one := range vs.rules {
			r.lintCallers(one)
		}
	}
	r.lintRules()
	r.lintSelectors()
}

// lintShadows finds rules, and matches of them, that no request reaches.
func lintShadows(vs *virtualService) {
	type reached struct {
		match *networking.HTTPMatchRequest // nil for every request
		at    at
	}
	var before []reached
	// shadow is what is before a match and covers it.
	shadow := func(match *networking.HTTPMatchRequest) (at, bool) {
		for _, b := range before {
			if matchCovers(b.match, match) {
				return b.at, true
			}
		}
		return at{}, false
	}
	for _, one := range vs.rules {
		if len(one.spec.Match) == 0 {
			if by, ok := shadow(nil); ok {
				one.at.warnf(lintShadowedRoute, "is never reached: %s is for every request that gets here", by.source())
			}
			before = append(before, reached{nil, one.at})
			continue
		}
		for i, match := range one.spec.Match {
			if by, ok := shadow(match); ok {
				one.matches[i].warnf(lintShadowedRoute, "is never reached: %s matches all of it", by.source())
			}
			before = append(before, reached{match, one.matches[i]})
		}
	}
}

func lintWeights(one *rule) {
	if len(one.spec.Route) < 2 {
		return
	}
	sum := int64(0)
	for i, d := range one.spec.Route {
		sum += int64(d.Weight)
		if weight := one.field("route").index(i).field("weight"); !weight.written() {
			weight.warnf(lintMissingWeight, "is missing among several destinations: this one gets no request")
		}
	}
	if sum != 100 {
		one.field("route").warnf(lintWeightSum, "the weights sum up to %d and not to 100: each is a share of %d, and no percentage", sum, sum)
	}
}

// repeatsWork are the conditions that hold for requests which an application may
// have acted on.
var repeatsWork = []string{"5xx", "gateway-error", "reset", "retriable-4xx", "deadline-exceeded", "internal", "cancelled"}

// lintRetriedMethods finds rules that repeat requests which are not to be repeated.
// A rule without a method is for those of every method that no earlier rule takes.
func lintRetriedMethods(vs *virtualService) {
	var before []*networking.HTTPMatchRequest
	for _, one := range vs.rules {
		matches := one.spec.Match
		if len(matches) == 0 {
			matches = []*networking.HTTPMatchRequest{{}}
		}
		if part, ok := repeated(one.spec.Retries); ok {
			var methods []string
			for _, method := range []string{"POST", "PATCH"} {
				if slices.ContainsFunc(matches, func(m *networking.HTTPMatchRequest) bool { return takesMethod(m, method, before) }) {
					methods = append(methods, method)
				}
			}
			if len(methods) > 0 {
				one.field("retries").field("retryOn").warnf(lintRetryNonIdempotent,
					"%q repeats %s requests on which the server may have acted already", part, strings.Join(methods, " and "))
			}
		}
		before = append(before, matches...)
	}
}

// repeated is the first condition of a policy that repeats what a server may have
// acted on.
func repeated(retries *networking.HTTPRetry) (string, bool) {
	if retries == nil || retries.Attempts <= 0 {
		return "", false
	}
	for part := range strings.SplitSeq(retries.RetryOn, ",") {
		if slices.Contains(repeatsWork, part) || part != "" && part[0] >= '0' && part[0] <= '9' {
			return part, true
		}
	}
	return "", false
}

// takesMethod reports whether a match is for requests with a method that no earlier
// match takes.
func takesMethod(m *networking.HTTPMatchRequest, method string, before []*networking.HTTPMatchRequest) bool {
	exactly := &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: method}}
	if !stringCovers(m.Method, exactly) {
		return false
	}
	narrowed := proto.CloneOf(m)
	narrowed.Method = exactly
	return !slices.ContainsFunc(before, func(b *networking.HTTPMatchRequest) bool { return matchCovers(b, narrowed) })
}

// lintTries finds times of attempts that do not go together with that of the call.
func lintTries(one *rule) {
	retries := one.spec.Retries
	if retries == nil || retries.Attempts <= 0 {
		return
	}
	lintTryTime(one.spec.Timeout.AsDuration(), retries.PerTryTimeout.AsDuration(), int64(retries.Attempts)+1, one.field("retries").field("perTryTimeout"))
}

func lintTryTime(timeout, try time.Duration, attempts int64, a at) {
	if timeout <= 0 || try <= 0 {
		return
	}
	switch {
	case try >= timeout:
		a.warnf(lintPerTryTimeout, "%v has no effect: the timeout of the route, %v, is not longer", try, timeout)
	case attempts > int64(timeout/try):
		a.warnf(lintRetriesExceedTimeout,
			"%d attempts of %v do not fit into the timeout of the route, %v: at most %d can take that long", attempts, try, timeout, timeout/try)
	}
}

// lintRedirect finds redirects to what is redirected again.
func lintRedirect(one *rule) {
	to := one.spec.Redirect
	if to == nil || to.Authority != "" || to.Scheme != "" || to.RedirectPort != nil || to.Uri == "" {
		return
	}
	there := &networking.HTTPMatchRequest{
		Uri: &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: to.Uri}},
	}
	loops := len(one.spec.Match) == 0
	for _, m := range one.spec.Match {
		loops = loops || onlyURI(m) && uriCovers(m, there)
	}
	if loops {
		one.field("redirect").field("uri").warnf(lintRedirectLoop, "%q is redirected by the same rule: whoever follows it never arrives", to.Uri)
	}
}

// lintPrefix finds prefixes that are replaced by what does not fit the rest of the
// path. The rest behind a prefix without a slash begins with one, unless an earlier
// match takes these paths.
func lintPrefix(one *rule) {
	to, a := one.spec.GetRewrite().GetUri(), one.field("rewrite").field("uri")
	if redirected := one.spec.GetRedirect().GetPrefixRewrite(); redirected != "" {
		to, a = redirected, one.field("redirect").field("prefixRewrite")
	}
	if to == "" {
		return
	}
	slash := strings.HasSuffix(to, "/")
	var before []*networking.HTTPMatchRequest
	for _, m := range one.spec.Match {
		prefix, ok := m.GetUri().GetMatchType().(*networking.StringMatch_Prefix)
		if !ok || strings.HasSuffix(prefix.Prefix, "/") == slash {
			before = append(before, m)
			continue
		}
		example := strings.TrimSuffix(prefix.Prefix, "/") + "/x"
		there := &networking.HTTPMatchRequest{Uri: &networking.StringMatch{MatchType: &networking.StringMatch_Prefix{Prefix: prefix.Prefix + "/"}}}
		taken := slash && slices.ContainsFunc(before, func(earlier *networking.HTTPMatchRequest) bool {
			return onlyURI(earlier) && uriCovers(earlier, there)
		})
		if !taken {
			a.warnf(lintPrefixRewrite, "%q in the place of the prefix %q makes %q of %q", to, prefix.Prefix, to+strings.TrimPrefix(example, prefix.Prefix), example)
		}
		before = append(before, m)
	}
}

// lintCallers finds rules that let a service wait for longer than its own callers
// wait for it. Who calls is known from the matches on the source.
func (r *registry) lintCallers(one *rule) {
	timeout := one.spec.Timeout.AsDuration()
	if timeout == 0 {
		return
	}
	for _, m := range one.spec.Match {
		from, ok := callerOf(m)
		if !ok {
			continue
		}
		for _, host := range sortedKeys(r.services) {
			for _, s := range r.services[host] {
				if !s.runsAs(from) {
					continue
				}
				if outer, at, ok := r.longestWait(host); ok && timeout > outer {
					one.field("timeout").warnf(lintTimeoutExceedsCaller,
						"%v is longer than the %v for which callers of %q wait (%s): the answer comes when nobody waits for it",
						timeout, outer, host, at.source())
				}
			}
		}
	}
}

// runsAs reports whether all endpoints of a service are callers of a source.
func (s *service) runsAs(from source) bool {
	for _, e := range s.endpoints {
		if !from.accepts(Node{Namespace: e.namespace, Labels: e.labels}) {
			return false
		}
	}
	return len(s.endpoints) > 0
}

// longestWait is the longest timeout of the routes to a host; ok is false if one
// has none.
func (r *registry) longestWait(host string) (longest time.Duration, where at, ok bool) {
	found := r.routes.about(host)
	if len(found) == 0 {
		return 0, at{}, false
	}
	for _, vs := range found[0].values { // less specific patterns are not for the host
		for _, one := range vs.rules {
			timeout := one.spec.Timeout.AsDuration()
			if timeout == 0 && len(one.spec.Route) > 0 {
				return 0, at{}, false
			}
			if timeout > longest {
				longest, where, ok = timeout, one.field("timeout"), true
			}
		}
	}
	return longest, where, ok
}
